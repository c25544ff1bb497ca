"""StegaStamp's distortions between encoder and decoder, which imitate print, camera and codec."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fastgan.ops._checks import (
    as_flag,
    as_number,
    as_numbers,
    as_whole_number,
    check_image,
    check_instance,
    check_one_of,
)
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.blur import blur
from fastgan.ops.jpeg import ROUNDINGS, jpeg_round_trip
from fastgan.ops.photometric import photometric

# The ranges of parameters that do not accept every number.
RANGES = {
    "rnd_bri": (0.0, math.inf), "rnd_hue": (0.0, math.inf), "rnd_noise": (0.0, math.inf),
    "rnd_sat": (0.0, 1.0), "jpeg_quality": (1.0, 100.0),
}  # fmt: skip

_range_check = GrossRangeCheck("Distortions", ("image",))


@dataclass(frozen=True)
class Distortions:
    """The chain of StegaStamp's `transform_net`, each part with a strength and a ramp in steps.

    Blur, noise, contrast, brightness and hue offset, desaturation, JPEG. The original draws the noise's
    strength, the desaturation, the blur kernel and the JPEG quality once per batch; here they are drawn for
    each image, which adds variety to a batch. A ramp of r steps increases a distortion linearly from none to
    its full strength; a ramp of 0 applies the full strength from the beginning.

    Raises:
        TypeError, ValueError: an argument that is not a number, or out of its range; names it.
    """

    rnd_bri: float = 0.3
    rnd_bri_ramp: float = 1000
    rnd_sat: float = 1.0
    rnd_sat_ramp: float = 1000
    rnd_hue: float = 0.1
    rnd_hue_ramp: float = 1000
    rnd_noise: float = 0.02
    rnd_noise_ramp: float = 1000
    contrast_low: float = 0.5
    contrast_high: float = 1.5
    contrast_ramp: float = 1000
    jpeg_quality: float = 25.0
    jpeg_quality_ramp: float = 1000
    no_jpeg: bool = False
    jpeg_rounding: str = "straight_through"
    blur_probabilities: tuple[float, float] = (0.25, 0.25)
    check_range: bool = True
    """Whether to check the process's first images and to warn, once, of 8-bit values or images in [-1, 1]."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "float":
                number = as_number(field.name, getattr(self, field.name))
                low, high = RANGES.get(field.name, (-math.inf, math.inf))
                finite = abs(number) < math.inf or field.name.endswith("ramp")
                if not (low <= number <= high and finite):
                    raise ValueError(f"{field.name} must be finite and in [{low:g}, {high:g}], got {number}")
        as_flag("no_jpeg", self.no_jpeg)
        as_flag("check_range", self.check_range)
        check_one_of("jpeg_rounding", self.jpeg_rounding, ROUNDINGS)
        _check_probabilities("blur_probabilities", self.blur_probabilities)

    def __call__(self, image: Tensor, step: float, generator: torch.Generator) -> Tensor:
        """Distorts images.

        Args:
            image: N 3 H W, clamped to [0, 1].
            step: the training step, at least 0, for the ramps.
            generator: draws all random numbers, on its device, which must be the image's.

        Raises:
            TypeError, ValueError: an argument that is not such an image, a negative step, or an invalid
                generator.
        """
        check_image("image", image)
        if not as_number("step", step) >= 0:
            raise ValueError(f"step must not be negative, got {step}")
        check_instance("generator", generator, torch.Generator, "a torch.Generator")
        if self.check_range:
            _range_check.look((0, 1), image)
        batch = image.shape[0]

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            drawn = torch.rand(batch, *shape, generator=generator, device=generator.device)
            return low + (high - low) * drawn

        def ramp(steps: float) -> float:
            return min(step / steps, 1.0) if steps > 0 else 1.0

        if sum(self.blur_probabilities) > 0:
            image = blur(image, random_blur_kernels(batch, generator, self.blur_probabilities))
        contrast = uniform(
            1 - (1 - self.contrast_low) * ramp(self.contrast_ramp),
            1 + (self.contrast_high - 1) * ramp(self.contrast_ramp),
        )
        brightness = ramp(self.rnd_bri_ramp) * self.rnd_bri
        hue = ramp(self.rnd_hue_ramp) * self.rnd_hue
        image = photometric(
            image,
            noise=uniform(0, ramp(self.rnd_noise_ramp) * self.rnd_noise),
            contrast=contrast,
            offset=uniform(-brightness, brightness, 1) + uniform(-hue, hue, 3),
            desaturation=uniform(0, ramp(self.rnd_sat_ramp) * self.rnd_sat),
            generator=generator,
            check_range=False,
        )
        if self.no_jpeg:
            return image
        lowest = 100 - ramp(self.jpeg_quality_ramp) * (100 - self.jpeg_quality)
        return jpeg_round_trip(image, uniform(lowest, 100), rounding=self.jpeg_rounding, check_range=False)


def random_blur_kernels(
    batch: int,
    generator: torch.Generator,
    probabilities: tuple[float, float] = (0.25, 0.25),
    size: int = 7,
) -> Tensor:
    """One normalized kernel per image, (batch, size, size): a Gaussian, a line, or the identity.

    The Gaussian has sigma in [1, 3]; the line has a random direction, a width of sigma in [0.25, 1] and an
    extent of 3 to (size - 1) / 2 + 0.1 in L1 distance, as in StegaStamp's `random_blur_kernel`.

    Args:
        batch: number of kernels.
        generator: draws the kernels, on its device.
        probabilities: of the Gaussian and of the line.
        size: odd.

    Raises:
        TypeError, ValueError: sizes that are not positive integers, an even size, an invalid generator, or
            probabilities that are negative or add up to more than 1.
    """
    batch, size = as_whole_number("batch", batch), as_whole_number("size", size)
    if size % 2 == 0:
        raise ValueError(f"size must be odd, got {size}")
    check_instance("generator", generator, torch.Generator, "a torch.Generator")
    _check_probabilities("probabilities", probabilities)
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(batch, 1, 1, generator=generator, device=device)
        return low + (high - low) * drawn

    axis = torch.arange(size, device=device) - (size - 1) / 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    l1_distance = rows.abs() + columns.abs()

    identity = (l1_distance < 0.5).float().expand(batch, -1, -1)
    gaussian = torch.exp(-(rows**2 + columns**2) / (2 * uniform(1, 3) ** 2))
    angle = uniform(0, 2 * math.pi)
    distance = rows * angle.cos() + columns * angle.sin()
    line = torch.exp(-(distance**2) / (2 * uniform(0.25, 1) ** 2))
    line = line * (l1_distance < uniform(3, (size - 1) / 2 + 0.1))

    choice = uniform(0, 1)
    kernels = torch.where(choice < sum(probabilities), line, identity)
    kernels = torch.where(choice < probabilities[0], gaussian, kernels)
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def _check_probabilities(name: str, probabilities: tuple[float, float]) -> None:
    first, second = as_numbers(name, probabilities, 2)
    if first < 0 or second < 0 or first + second > 1:
        raise ValueError(
            f"{name} must be two that are not negative and add up to at most 1, got {probabilities}"
        )
