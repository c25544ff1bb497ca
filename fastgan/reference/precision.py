"""The precision that losses compute in, whatever that of their inputs and whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64; its gradient has its own dtype."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Leaves autocast on the tensor's device, where there is such a thing: the meta device has none."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if has_autocast(kind) else nullcontext()


def has_autocast(device_type: str) -> bool:
    """Whether there is autocast for devices like "cuda"."""
    if torch.compiler.is_compiling():  # torch 2.10 cannot trace the question; of what it compiles for, all do
        return device_type != "meta"
    return torch.amp.is_autocast_available(device_type)
