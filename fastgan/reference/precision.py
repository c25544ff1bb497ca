"""Computing in the precision of the tensors, whatever autocast says."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Switches autocast off for the tensor's device; the meta device has none, and raises where asked."""
    return contextlib.nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
