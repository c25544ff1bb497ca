"""Structural similarity of images, in plain PyTorch. See `fastgan.ops.ssim`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PADDINGS = ("valid", "same", "reflect")
SMALLEST_TAP = 2.0**-126  # float32's smallest normal number


def window_taps(size: int, sigma: float) -> list[float]:
    """The taps of a window from its centre outwards: a Gaussian, or equal ones if sigma is 0.

    Taps beneath float32's normal numbers are 0: as constants of a Triton kernel they would be float64's.
    """
    distances = [k / sigma if sigma else 0.0 for k in range(size // 2 + 1)]
    taps = [math.exp(-distance * distance / 2) for distance in distances]
    total = taps[0] + 2 * sum(taps[1:])
    return [tap / total if tap / total >= SMALLEST_TAP else 0.0 for tap in taps]


def ssim(
    x: Tensor,
    y: Tensor,
    taps: list[float],
    c1: float,
    c2: float,
    padding: str = "valid",
    contrast: bool = False,
    weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Tensor:
    """See :func:`fastgan.ops.ssim.ssim_distance`; (N, C), in the images' dtype.

    In terms of m = (x + y) / 2 and d = (x - y) / 2, of whose windows SSIM needs means and variances alone:
    1 - luminance is 2 D^2 / (M^2 + D^2 + c1 / 2), and 1 - contrast is 2 V_d / (V_m + V_d + c2 / 2). Both are
    exactly 0 for equal windows.
    """
    m, d = (x + y) / 2, (x - y) / 2
    distance = d.abs().mean(dim=(2, 3)) * 2 * l1_weight if l1_weight else 0.0
    radius = len(taps) - 1
    if padding != "valid" and radius:
        mode = "reflect" if padding == "reflect" else "constant"
        m, d = (F.pad(image, [radius] * 4, mode=mode) for image in (m, d))
    images = m, d, m * m, d * d
    if torch.compiler.is_compiling():
        # Together, so that the graph has each tap once rather than four times, which halves the time that
        # compiling 35 taps takes. In eager mode four images at once would no longer fit the cache.
        filtered = _filtered(torch.stack(images), taps).unbind()
    else:
        filtered = tuple(_filtered(image, taps) for image in images)
    mean_m, mean_d, square_m, square_d = filtered
    variance_m, variance_d = square_m - mean_m**2, square_d - mean_d**2
    lost = 2 * variance_d / (variance_m + variance_d + c2 / 2)  # of contrast and structure
    if not contrast:
        lost_luminance = 2 * mean_d**2 / (mean_m**2 + mean_d**2 + c1 / 2)
        lost = lost_luminance + (1 - lost_luminance) * lost
    return weight * lost.mean(dim=(2, 3)) + distance


def _filtered(image: Tensor, taps: list[float]) -> Tensor:
    """Means over windows within the images (... H W), along columns and along rows.

    Tap by tap, since a convolution may be computed in TF32 or, under autocast, in half precision.
    """
    for dim in (-2, -1):
        size, radius = image.shape[dim], len(taps) - 1
        inner = size - 2 * radius
        total = taps[0] * image.narrow(dim, radius, inner)
        for k, tap in enumerate(taps[1:], start=1):
            pair = image.narrow(dim, radius - k, inner) + image.narrow(dim, radius + k, inner)
            total = total + tap * pair
        image = total
    return image
