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
        desaturation: N in [0, 1]; 1 leaves only the luminance.

    Returns:
        N 3 H W in [0, 1].
    """
    image = clamp(image + noise, 0, 1)
    image = clamp(image * contrast[:, None, None, None] + offset[:, :, None, None], 0, 1)
    return _desaturated(image, desaturation)


def normal_noise(seed: Tensor, batch: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, N 3 H W; a function of the seed, the pixel's index and the channel.

    Pixels have the index (n H + y) W + x. Channel c of the pixels 4 q to 4 q + 3 uses the four words of
    counter q in stream c, which make two points by the Box-Muller transform: radius sqrt(-2 ln u) with u in
    (0, 1], angle 2 pi u with u in [0, 1), each from 24 bits. The four pixels get the points' coordinates in
    order.
    """
    pixels = batch * height * width
    counter = torch.arange((pixels + 3) // 4, device=seed.device)
    channel = torch.arange(3, device=seed.device)[:, None]
    words = [uniform(word, torch.float64) for word in philox(seed, counter, channel)]
    points = []
    for radius_word, angle_word in (words[:2], words[2:]):
        radius, angle = torch.sqrt(-2 * torch.log(radius_word + 2.0**-24)), 2 * math.pi * angle_word
        points += [radius * torch.cos(angle), radius * torch.sin(angle)]
    normal = torch.stack(points, dim=-1).reshape(3, -1)[:, :pixels]
    return normal.view(3, batch, height, width).transpose(0, 1).to(dtype)


def photometric_tangent(tangent: Tensor, parameters: Tensor, masks: Tensor) -> Tensor:
    """The derivative of the distorted image along a tangent of the image, both N 3 H W.

    Args:
        parameters: N 6, those of the op.
        masks: N H W, bit c set where channel c passed both clamps, bit 3 + c where it is NaN.
    """
    channels = torch.arange(3, device=masks.device)[:, None, None]
    within, nan = (masks[:, None] >> channels) & 1, (masks[:, None] >> (channels + 3)) & 1
    contrast, desaturation = parameters[:, 1], parameters[:, 5]
    slope = torch.where(nan == 1, torch.nan, within * contrast[:, None, None, None]).to(tangent.dtype)
    return _desaturated(torch.where(slope == 0, 0, tangent * slope), desaturation)


def _desaturated(image: Tensor, desaturation: Tensor) -> Tensor:
    channels = zip(LUMINANCE, image.split(1, dim=1), strict=True)
    luminance = sum(weight * channel for weight, channel in channels)
    return torch.lerp(image, luminance.expand_as(image), desaturation[:, None, None, None])
