"""Means, variances and covariances of the planes of two feature maps, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def feature_moments(x: Tensor, y: Tensor) -> Tensor:
    """See :func:`fastgan.ops.feature_moments`; (N, C, 5): both means, both variances, the covariance."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype).flatten(2), y.to(dtype).flatten(2)
    mean_x, mean_y = x.mean(dim=2, keepdim=True), y.mean(dim=2, keepdim=True)
    x, y = x - mean_x, y - mean_y
    products = [each.mean(dim=2) for each in (x.square(), y.square(), x * y)]
    return torch.stack([mean_x[..., 0], mean_y[..., 0], *products], dim=-1)
