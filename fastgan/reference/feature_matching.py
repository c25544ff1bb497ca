"""The weighted L1 distance of two lists of feature maps, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.reference.clamp import with_slope_of_nan


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum over the pairs of weight times mean |fake - real|, 0-d; float32, or float64 if a tensor is.

    The real features get no gradient.
    """
    dtype = torch.float64 if any(each.dtype == torch.float64 for each in (*fake, *real)) else torch.float32
    distances = [
        weight * with_slope_of_nan(a.to(dtype) - b.detach().to(dtype)).abs().mean()
        for a, b, weight in zip(fake, real, weights, strict=True)
    ]
    return sum(distances[1:], start=distances[0])
