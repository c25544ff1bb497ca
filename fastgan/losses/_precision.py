"""The precision in which losses compute, whatever the precision of their inputs."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64; its gradient has its own dtype."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Leaves autocast on the tensor's device, where there is such a thing."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):  # meta
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)
