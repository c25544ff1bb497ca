"""A leaky ReLU between two filters, in plain PyTorch. See `fastgan.ops.filtered_lrelu`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.clamp import clamp as clamped
from fastgan.reference.clamp import with_slope_of_nan
from fastgan.reference.precision import wide
from fastgan.reference.upfirdn2d import upfirdn2d


def filtered_lrelu(
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
) -> Tensor:
    """N C H W to N C H' W' in x's dtype, computed in float32 or better."""
    y = wide(x)
    if b is not None:
        y = y + b.to(y.dtype)[:, None, None]
    y = upfirdn2d(y, fu, (up, up), (1, 1), padding, flip, up * up)
    y = with_slope_of_nan(y)
    y = gain * (F.leaky_relu(y, slope) if slope != 0 else F.relu(y))  # zero times infinity would be NaN
    if clamp is not None:
        y = clamped(y, -clamp, clamp)
    return upfirdn2d(y, fd, (1, 1), (down, down), (0, 0, 0, 0), flip, 1.0).to(x.dtype)
