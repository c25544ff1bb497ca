"""YUV-weighted squared distance with edge gain, in plain PyTorch. See `fastgan.ops.yuv_l2`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# RGB to YUV, BT.601 (analogue PAL), to the digits of tf.image.rgb_to_yuv.
RGB_TO_YUV = (
    (0.299, 0.587, 0.114),
    (-0.14713, -0.28886, 0.436),
    (0.615, -0.51499, -0.10001),
)


def border_ramp(size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 at both ends of an axis, 1 from a quarter of the way in: (cos(4 pi i / size + pi) + 1) / 2."""
    index = torch.arange(size, dtype=torch.float64, device=device)
    distance = torch.minimum(index, size - 1 - index) / size
    ramp = (torch.cos(4 * math.pi * distance + math.pi) + 1) / 2
    return torch.where(distance < 0.25, ramp, 1.0).to(dtype)


def edge_falloff(height: int, width: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """StegaStamp's falloff f, (H, W): 1 on the border, 0 from a quarter of the way in."""
    rows = border_ramp(height, dtype=dtype, device=device)
    columns = border_ramp(width, dtype=dtype, device=device)
    return 1 - rows[:, None] * columns[None, :]


def yuv_l2(
    x: Tensor, y: Tensor, yuv_scales: tuple[float, float, float], edge_gain: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss (0-d) and the three channel means (3,), in float32 (float64 for float64 images)."""
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    # Channel by channel, since autocast and TF32 would round a matrix product.
    red, green, blue = (x.to(dtype) - y.to(dtype)).unbind(1)
    difference = torch.stack([r * red + g * green + b * blue for r, g, b in RGB_TO_YUV], dim=1)
    falloff = edge_falloff(x.shape[2], x.shape[3], dtype=dtype, device=x.device)
    difference = difference * (1 + edge_gain.to(dtype) * falloff)
    channels = difference.square().mean(dim=(0, 2, 3))
    scale_y, scale_u, scale_v = yuv_scales
    loss = scale_y * channels[0] + scale_u * channels[1] + scale_v * channels[2]
    return loss, channels
