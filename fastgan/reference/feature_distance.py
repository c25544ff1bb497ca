"""Distances of feature maps in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.reference.clamp import with_slope_of_nan


def feature_distance(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    power: int = 2,
    normalize: bool = False,
    eps: float = 1e-10,
    relu_x: bool = False,
) -> Tensor:
    """See :func:`fastgan.ops.feature_distance.feature_distance`; (N,)."""
    return feature_distance_map(x, y, weight, power, normalize, eps, relu_x).flatten(1).mean(dim=1)


def feature_distance_map(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    power: int = 2,
    normalize: bool = False,
    eps: float = 1e-10,
    relu_x: bool = False,
) -> Tensor:
    """:func:`feature_distance` before the mean over pixels: (N, ...) with the pixels' dimensions."""
    accumulation_dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y, weight = x.to(accumulation_dtype), y.to(accumulation_dtype), weight.to(accumulation_dtype)
    if relu_x:
        x = x.relu()
    if normalize:
        x, y = _unit(x, eps), _unit(y, eps)
    difference = x - y
    powers = with_slope_of_nan(difference).abs() if power == 1 else difference.square()
    return (powers * weight.view(1, -1, *(1,) * (x.dim() - 2))).sum(dim=1)


def _unit(x: Tensor, eps: float) -> Tensor:
    """X with unit norm over channels."""
    # vector_norm's gradient at the zero vector is zero, whereas that of a square root is infinite.
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    # Where squares overflow the direction is unknown: make it NaN, not the zero vector.
    squares = x.detach().square().sum(dim=1, keepdim=True)
    return x / (norm + eps + (squares - squares))
