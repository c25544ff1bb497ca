"""StegaStamp's photometric distortions, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

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
    image = (image + noise).clamp(0, 1)
    image = (image * contrast[:, None, None, None] + offset[:, :, None, None]).clamp(0, 1)
    channels = zip(LUMINANCE, image.split(1, dim=1), strict=True)
    luminance = sum(weight * channel for weight, channel in channels)
    return torch.lerp(image, luminance.expand_as(image), desaturation[:, None, None, None])
