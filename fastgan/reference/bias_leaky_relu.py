"""Bias, leaky ReLU, gain and clamp, in plain PyTorch. See `fastgan.ops.bias_leaky_relu`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.clamp import clamp as clamped
from fastgan.reference.clamp import with_slope_of_nan


def bias_leaky_relu(x: Tensor, bias: Tensor | None, slope: float, gain: float, clamp: float | None) -> Tensor:
    """clamp(gain leaky_relu(x + bias)), N C ...; computed in float32 or better, returned in x's dtype."""
    accumulation_dtype = torch.promote_types(x.dtype, torch.float32)
    y = x.to(accumulation_dtype)
    if bias is not None:
        y = y + bias.to(accumulation_dtype).reshape(-1, *(1,) * (x.dim() - 2))
    y = with_slope_of_nan(y)
    y = gain * (F.leaky_relu(y, slope) if slope != 0 else F.relu(y))  # zero times infinity would be NaN
    if clamp is not None:
        y = clamped(y, -clamp, clamp)
    return y.to(x.dtype)
