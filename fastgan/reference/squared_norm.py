"""The squared norm of every sample, in plain PyTorch. See `fastgan.ops.squared_norm`."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_norm(x: Tensor) -> Tensor:
    """Sum of squares of each sample of N ..., (N,); in float32, or float64 for float64."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide.square().reshape(x.shape[0], -1).sum(dim=1)
