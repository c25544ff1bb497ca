"""Sampling an image through a homography, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def perspective_warp(image: Tensor, matrix: Tensor) -> Tensor:
    """Output pixel (x, y) takes the bilinear value at (x', y', 1) ~ matrix (x, y, 1); zero outside.

    Coordinates count pixels from the centre of the first one, as in tf.contrib.image.transform.

    Args:
        image: N C H W.
        matrix: N 3 3, output to input coordinates.

    Returns:
        N C H W in the image's dtype.
    """
    height, width = image.shape[2:]
    rows = torch.arange(height, dtype=matrix.dtype, device=image.device)
    columns = torch.arange(width, dtype=matrix.dtype, device=image.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
    x, y, scale = (points @ matrix.mT).unflatten(1, (height, width)).unbind(-1)
    # grid_sample with aligned corners: pixel i lies at 2 i / (size - 1) - 1
    x = 2 * x / (scale * max(width - 1, 1)) - 1
    y = 2 * y / (scale * max(height - 1, 1)) - 1
    grid = torch.stack([x, y], dim=-1).to(image.dtype)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
