"""Whether all numbers of a state are finite, asked of the device once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


@torch.no_grad()
def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that has NaN or infinite values; None: there is none.

    One reduction over all of them and one number for the host to wait for. Integers are finite.
    """
    floating = {
        name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()
    }
    # The largest magnitude, which cannot overflow as a sum of squares does.
    if not floating or get_total_norm(list(floating.values()), math.inf).isfinite():
        return None
    return next(name for name, tensor in floating.items() if not tensor.isfinite().all())
