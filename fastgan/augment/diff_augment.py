"""Differentiable augmentations of the discriminator's inputs, real and generated alike.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020. A discriminator
memorizes a small data set, but not if it gets only augmented images; since generated images are augmented as
well, the generator learns the distribution of the images, not that of the augmentations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.ops._checks import (
    as_flag,
    as_whole_number,
    check_floating,
    check_image,
    check_instance,
    check_one_of,
    check_same_device,
    described,
)
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.perspective_warp import perspective_warp

POLICIES = ("color", "translation", "cutout")
NUMBERS = {"color": 3, "translation": 2, "cutout": 2}
# Divisors of the side. Integers, since int() of a float would recompile for each side.
LARGEST_TRANSLATION = 8
CUTOUT = 2


class DiffAugment:
    """Random colour, translation and cutout.

    ============ =======================================================================================
    color        brightness + U(-0.5, 0.5); saturation x U(0, 2); contrast x U(0.5, 1.5), around the means
    translation  by whole pixels, up to an eighth of each side; 0 comes in
    cutout       a square of half the side, anywhere, also across the border, becomes 0
    ============ =======================================================================================

    Args:
        policy: the augmentations to apply, in this order; an empty one leaves images unchanged.
        check_range: whether to check the first images and to warn, once, of 8-bit values.

    Raises:
        TypeError, ValueError: a policy that is not a sequence of names, or an unknown name.
    """

    def __init__(self, policy: Sequence[str] = POLICIES, *, check_range: bool = True) -> None:
        is_name = isinstance(policy, str)
        if is_name or not isinstance(policy, Sequence) or not all(isinstance(name, str) for name in policy):
            raise TypeError(f"policy must be a sequence of {', '.join(POLICIES)}, got {described(policy)}")
        for name in policy:
            check_one_of("policy", name, POLICIES)
        self.policy = tuple(policy)
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck(
            "DiffAugment", ("image",), {(0, 255): "8-bit values must be divided by 127.5, less 1, first"}
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The random numbers for `count` images, (count, numbers) in [0, 1), on the generator's device.

        Raises:
            TypeError, ValueError: an invalid count or generator.
        """
        count = as_whole_number("count", count, least=0)
        check_instance("generator", generator, torch.Generator, "a torch.Generator")
        numbers = sum(NUMBERS[name] for name in self.policy)
        return torch.rand(count, numbers, generator=generator, device=generator.device)

    def __call__(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Augments images; gradients are exact to every order.

        Args:
            image: N C H W in [-1, 1].
            drawn: the result of :meth:`draw` for N images, on the image's device.

        Returns:
            N C H W; "color" may move values out of [-1, 1].

        Raises:
            TypeError, ValueError: an argument that is not such an image, or numbers of another shape.
        """
        check_image("image", image, channels=None)
        numbers = [NUMBERS[name] for name in self.policy]
        check_floating("drawn", drawn)
        check_same_device(image=image, drawn=drawn)
        if drawn.shape != (image.shape[0], sum(numbers)):
            raise ValueError(
                f"drawn must have shape {(image.shape[0], sum(numbers))}, got {tuple(drawn.shape)}"
            )
        if self.check_range:
            self._range_check.look((-1, 1), image)
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
    # Computed on the image's device, since copying numbers to a GPU synchronizes.
    shifts = []
    for column, side in zip(drawn.unbind(1), image.shape[:1:-1], strict=True):
        largest = (side + LARGEST_TRANSLATION // 2) // LARGEST_TRANSLATION
        shifts.append(_to_integer(2 * largest + 1, column) - largest)
    x, y = torch.stack(shifts).detach()
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    matrix = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).unflatten(1, (3, 3))
    return perspective_warp(image, matrix)


def _cutout(image: Tensor, drawn: Tensor) -> Tensor:
    inside = []
    for axis, side in zip((0, 1), image.shape[2:], strict=True):
        length = (side + CUTOUT // 2) // CUTOUT
        # The centre lies in the image: on a pixel, or for an even length between two or on the border.
        begin = _to_integer(side + 1 - length % 2, drawn[:, axis, None]) - length // 2
        position = torch.arange(side, device=image.device)
        inside.append((position >= begin) & (position < begin + length))
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return image.masked_fill(cut[:, None], 0)


def _to_integer(count: int, drawn: Tensor) -> Tensor:
    """Integers from 0 to count - 1 from numbers in [0, 1), which in low precision may round up to 1."""
    return (drawn * count).floor().clamp(max=count - 1)


_APPLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
