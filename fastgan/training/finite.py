"""Checks that a state is finite, with a single synchronization."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


@torch.no_grad()
def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with NaN or infinite values; None if there is none.

    One reduction over all tensors, so that the host waits for one number only. Integers are always finite.
    """
    floating = {
        name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()
    }
    # The infinity norm, because a sum of squares could overflow.
    if not floating or get_total_norm(list(floating.values()), math.inf).isfinite():
        return None
    return next(name for name, tensor in floating.items() if not tensor.isfinite().all())
