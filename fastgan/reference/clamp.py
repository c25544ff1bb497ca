"""Clamping with the same gradient under every version of torch."""

from __future__ import annotations

import torch
from torch import Tensor


def clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Values clamped to [low, high]; the gradient passes within the bounds and at them.

    `torch.clamp` passed gradients at its bounds in older versions and stops them in newer ones. White and
    black pixels lie at the bounds. NaN stays NaN, and its gradient is NaN, as its slope is unknown.
    """
    return torch.where((x < low) | (x > high), x.detach().clamp(low, high), with_slope_of_nan(x))


def with_slope_of_nan(x: Tensor) -> Tensor:
    """X itself, with a gradient that is NaN where x is; for use before functions whose slope depends on x."""
    return x * torch.where(x.isnan(), torch.nan, 1.0).to(x.dtype)
