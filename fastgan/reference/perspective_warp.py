"""Sampling images through homographies, in plain PyTorch. See `fastgan.ops.perspective_warp`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def perspective_warp(image: Tensor, matrix: Tensor, fill: Tensor | None = None) -> Tensor:
    """Output pixel (x, y) takes the bilinear value at (x', y', 1) ~ matrix (x, y, 1), or the fill outside.

    Coordinates count pixels from the centre of the first one, as in tf.contrib.image.transform.

    Args:
        image: N C H W.
        matrix: N 3 3, output to input coordinates.
        fill: N C H W; None for zeros.

    Returns:
        N C H W in the image's dtype.
    """
    height, width = image.shape[2:]
    # Apple's GPUs have no float64; elsewhere a coordinate of hundreds deserves its digits behind the point.
    dtype = torch.float32 if image.device.type == "mps" else torch.float64
    rows = torch.arange(height, dtype=dtype, device=image.device)
    columns = torch.arange(width, dtype=dtype, device=image.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
    x, y, scale = (points @ matrix.to(dtype).mT).unflatten(1, (height, width)).unbind(-1)
    # grid_sample counts from the image's edges, which lie at -1 and 1: pixel i is at (2 i + 1) / size - 1.
    grid = torch.stack([(2 * x / scale + 1) / width - 1, (2 * y / scale + 1) / height - 1], dim=-1)
    grid = grid.to(torch.promote_types(image.dtype, torch.float32))
    warped = _sample(image, grid)
    if fill is not None:
        warped = warped + (1 - _sample(torch.ones_like(image[:, :1]), grid)) * fill
    return warped.to(image.dtype)


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(
        image.to(grid.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
