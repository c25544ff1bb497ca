"""Augmentations between images and discriminator, real and generated alike, that pass gradients.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020. With few images a
discriminator learns them by heart; one that only ever sees augmented images cannot, and since what the
generator makes is augmented likewise, it learns the images and not the augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.ops._checks import check_image, check_one_of
from fastgan.ops.perspective_warp import perspective_warp

POLICIES = ("color", "translation", "cutout")
NUMBERS = {"color": 3, "translation": 2, "cutout": 2}
LARGEST_TRANSLATION = 1 / 8  # of the side
CUTOUT = 1 / 2  # of the side


class DiffAugment:
    """Random colour, translation and cutout.

    ============ =======================================================================================
    color        brightness + U(-0.5, 0.5); saturation x U(0, 2); contrast x U(0.5, 1.5), around the means
    translation  by whole pixels, up to an eighth of each side; 0 comes in
    cutout       a square of half the side, anywhere, also across the border, becomes 0
    ============ =======================================================================================

    Args:
        policy: which, in this order; none leaves images as they are.

    Raises:
        ValueError: an unknown policy.
    """

    def __init__(self, policy: Sequence[str] = POLICIES) -> None:
        for name in policy:
            check_one_of("policy", name, POLICIES)
        self.policy = tuple(policy)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The random numbers for `count` images, (count, numbers) in [0, 1), on the generator's device."""
        numbers = sum(NUMBERS[name] for name in self.policy)
        return torch.rand(count, numbers, generator=generator, device=generator.device)

    def __call__(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Augments images; gradients are exact to every order.

        Args:
            image: N C H W in [-1, 1].
            drawn: what :meth:`draw` gave for N images, on the image's device.

        Returns:
            N C H W, which colour may have driven out of [-1, 1].

        Raises:
            TypeError, ValueError: no such image, or numbers for others.
        """
        check_image("image", image, channels=None)
        numbers = [NUMBERS[name] for name in self.policy]
        if drawn.shape != (image.shape[0], sum(numbers)):
            raise ValueError(
                f"drawn must have shape {(image.shape[0], sum(numbers))}, got {tuple(drawn.shape)}"
            )
        for name, part in zip(self.policy, drawn.split(numbers, 1) if numbers else (), strict=True):
            image = _APPLY[name](image, part)
        return image


def _color(image: Tensor, drawn: Tensor) -> Tensor:
    brightness, saturation, contrast = drawn.to(image.dtype)[:, :, None, None, None].unbind(1)
    image = image + (brightness - 0.5)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * (2 * saturation)
    mean = image.mean((1, 2, 3), keepdim=True)
    return mean + (image - mean) * (0.5 + contrast)


def _translation(image: Tensor, drawn: Tensor) -> Tensor:
    # Reckoned here: numbers brought to a GPU would wait for it.
    shifts = []
    for column, side in zip(drawn.unbind(1), image.shape[:1:-1], strict=True):
        reach = int(side * LARGEST_TRANSLATION + 0.5)
        shifts.append(_one_of(2 * reach + 1, column) - reach)
    matrix = torch.eye(3, device=image.device, dtype=drawn.dtype).repeat(image.shape[0], 1, 1)
    matrix[:, :2, 2] = -torch.stack(shifts, 1)
    return perspective_warp(image, matrix)


def _cutout(image: Tensor, drawn: Tensor) -> Tensor:
    inside = []
    for axis, side in zip((0, 1), image.shape[2:], strict=True):
        length = int(side * CUTOUT + 0.5)
        # The middle lies in the image: on a pixel, or between two for an even length, from border to border.
        begin = _one_of(side + 1 - length % 2, drawn[:, axis, None]) - length // 2
        place = torch.arange(side, device=image.device)
        inside.append((place >= begin) & (place < begin + length))
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return image.masked_fill(cut[:, None], 0)


def _one_of(count: int, drawn: Tensor) -> Tensor:
    """0 to count - 1 from numbers in [0, 1), which in low precision may round up to 1."""
    return (drawn * count).floor().clamp(max=count - 1)


_APPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
