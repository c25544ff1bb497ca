"""StegaStamp's distortions between encoder and decoder: what print, camera and codec do to an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastgan.ops.blur import blur
from fastgan.ops.jpeg import jpeg_round_trip
from fastgan.ops.photometric import photometric


@dataclass(frozen=True)
class Distortions:
    """The chain of StegaStamp's `transform_net`, each part with a strength and a ramp in steps.

    Blur, noise, contrast, brightness and hue offset, desaturation, JPEG. The original draws the noise's
    strength, the desaturation, the blur kernel and the JPEG quality once per batch; here every image has
    its own, which gives the decoder more to learn from in a batch. A ramp of r steps brings a
    distortion from nothing to its full strength linearly.
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

    def __call__(self, image: Tensor, step: float, generator: torch.Generator) -> Tensor:
        """Distorts images N 3 H W, clamped to [0, 1]; every draw is made on the generator's device."""
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
        )
        if self.no_jpeg:
            return image
        lowest = 100 - ramp(self.jpeg_quality_ramp) * (100 - self.jpeg_quality)
        return jpeg_round_trip(image, uniform(lowest, 100), rounding=self.jpeg_rounding)


def random_blur_kernels(
    batch: int,
    generator: torch.Generator,
    probabilities: tuple[float, float] = (0.25, 0.25),
    size: int = 7,
) -> Tensor:
    """One normalized kernel per image, (batch, size, size): a Gaussian, a line, or none.

    The Gaussian has sigma in [1, 3]; the line any direction, a width of sigma in [0.25, 1] and a reach
    of 3 to (size - 1) / 2 + 0.1 in L1 distance, as in StegaStamp's `random_blur_kernel`.

    Args:
        probabilities: of the Gaussian and of the line.
    """
    device = generator.device

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(batch, 1, 1, generator=generator, device=device)
        return low + (high - low) * drawn

    axis = torch.arange(size, device=device) - (size - 1) / 2
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    reach = rows.abs() + columns.abs()

    none = (reach < 0.5).float().expand(batch, -1, -1)
    gaussian = torch.exp(-(rows**2 + columns**2) / (2 * uniform(1, 3) ** 2))
    angle = uniform(0, 2 * math.pi)
    distance = rows * angle.cos() + columns * angle.sin()
    line = torch.exp(-(distance**2) / (2 * uniform(0.25, 1) ** 2))
    line = line * (reach < uniform(3, (size - 1) / 2 + 0.1))

    choice = uniform(0, 1)
    kernels = torch.where(choice < sum(probabilities), line, none)
    kernels = torch.where(choice < probabilities[0], gaussian, kernels)
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)
