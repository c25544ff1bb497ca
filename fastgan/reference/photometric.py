"""StegaStamp's photometric distortions, in plain PyTorch. See `fastgan.ops.photometric`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastgan.reference.clamp import clamp
from fastgan.reference.philox import philox, uniform

# Luminance as StegaStamp's transform_net weights it.
LUMINANCE = (0.3, 0.6, 0.1)


def photometric(
    image: Tensor, noise: Tensor, contrast: Tensor, offset: Tensor, desaturation: Tensor
) -> Tensor:
    """Noise, clamp, contrast, brightness and hue offset, clamp, desaturation, in this order.

    Args:
        image: N 3 H W in [0, 1].
        noise: N 3 H W, added first.
        contrast: N, factor.
        offset: N 3, added after the contrast: brightness plus a colour cast.
        desaturation: N in [0, 1]; 1 leaves luminance alone.

    Returns:
        N 3 H W in [0, 1].
    """
    image = clamp(image + noise, 0, 1)
    image = clamp(image * contrast[:, None, None, None] + offset[:, :, None, None], 0, 1)
    return _desaturated(image, desaturation)


def normal_noise(seed: Tensor, batch: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, N 3 H W; those of pixel (n, y, x) are functions of seed and its number.

    The number counts pixels, (n H + y) W + x. Its four Philox words make two points by Box and Muller's
    transform: radius sqrt(-2 ln u) with u in (0, 1], angle 2 pi u with u in [0, 1), each from 24 bits. Red
    and green are the first point, blue is the second's x.
    """
    counter = torch.arange(batch * height * width, device=seed.device).view(batch, height, width)
    words = [uniform(word, torch.float64) for word in philox(seed, counter)]
    radius = [torch.sqrt(-2 * torch.log(word + 2.0**-24)) for word in words[::2]]
    angle = [2 * math.pi * word for word in words[1::2]]
    red, green = radius[0] * torch.cos(angle[0]), radius[0] * torch.sin(angle[0])
    return torch.stack([red, green, radius[1] * torch.cos(angle[1])], dim=1).to(dtype)


def photometric_tangent(tangent: Tensor, parameters: Tensor, masks: Tensor) -> Tensor:
    """The derivative of the distorted image along a tangent of the image, both N 3 H W.

    Args:
        parameters: N 6, as the op takes them.
        masks: N H W, bit c set where channel c passed both clamps.
    """
    channels = torch.arange(3, device=masks.device)[:, None, None]
    within = (masks[:, None] >> channels) & 1
    contrast, desaturation = parameters[:, 1], parameters[:, 5]
    return _desaturated(tangent * within * contrast[:, None, None, None], desaturation)


def _desaturated(image: Tensor, desaturation: Tensor) -> Tensor:
    channels = zip(LUMINANCE, image.split(1, dim=1), strict=True)
    luminance = sum(weight * channel for weight, channel in channels)
    return torch.lerp(image, luminance.expand_as(image), desaturation[:, None, None, None])
