"""Clamping with one gradient under every version of torch."""

from __future__ import annotations

import torch
from torch import Tensor


def clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Values clamped to [low, high]; the gradient passes within, the bounds included.

    `torch.clamp` passed gradients at its bounds in older versions and stops them in newer ones. White and
    black pixels lie there. NaN stays NaN and gets no gradient.
    """
    return torch.where((x >= low) & (x <= high), x, x.detach().clamp(low, high))
