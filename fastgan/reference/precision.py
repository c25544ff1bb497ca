"""The precision that losses compute in, independent of their inputs' and of autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged if float64; gradients keep the tensor's dtype."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def both_double(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two images in float64 if one of them is, else unchanged; gradients keep each image's dtype."""
    if x.dtype == y.dtype or torch.float64 not in (x.dtype, y.dtype):
        return x, y
    return x.double(), y.double()


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Disables autocast for the tensor's device type, if that has autocast, which meta has not."""
    device_type = tensor.device.type
    return torch.autocast(device_type, enabled=False) if has_autocast(device_type) else nullcontext()


def has_autocast(device_type: str) -> bool:
    """Whether a device type such as "cuda" has autocast."""
    if torch.compiler.is_compiling():  # torch 2.10 cannot trace the call below; all that compile have it
        return device_type != "meta"
    return torch.amp.is_autocast_available(device_type)
