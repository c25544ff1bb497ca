"""Sampling images through homographies, in plain PyTorch. See `fastgan.ops.perspective_warp`."""

from __future__ import annotations

import torch
from torch import Tensor


def perspective_warp(image: Tensor, matrix: Tensor, fill: Tensor | None = None) -> Tensor:
    """Output pixel (x, y) takes the bilinear value at (x', y', 1) ~ matrix (x, y, 1), or the fill outside.

    Coordinates count pixels from the centre of the first one, as in tf.contrib.image.transform. The pixels
    are gathered one by one, although grid_sample would be faster: the rounding of its normalized coordinates
    gives weight to pixels that have none, and it multiplies NaN by weights of zero.

    Args:
        image: N C H W.
        matrix: N 3 3, output to input coordinates.
        fill: N C H W; None for zeros.

    Returns:
        N C H W in the image's dtype.
    """
    channels, height, width = image.shape[1:]
    accumulation_dtype = torch.promote_types(image.dtype, torch.float32)
    # A NaN matrix is replaced by the identity, with NaN weights: each pixel gets and passes back NaN.
    is_nan = matrix.isnan().any(2).any(1)[:, None, None]
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    columns, rows = (
        coordinate.flatten(1)
        for coordinate in _coordinates(torch.where(is_nan, identity, matrix), height, width)
    )
    nan_factor = torch.where(matrix.isnan(), matrix, 1).flatten(1).prod(1).to(accumulation_dtype)[:, None]
    left, right = _taps(columns, width, accumulation_dtype)
    above, below = _taps(rows, height, accumulation_dtype)
    pixels = image.to(accumulation_dtype).flatten(2)
    total = torch.zeros((), dtype=accumulation_dtype, device=image.device)
    inside = torch.zeros((), dtype=accumulation_dtype, device=image.device)
    for row, row_weight in (above, below):
        row_total, row_inside = torch.zeros_like(total), torch.zeros_like(inside)
        for column, column_weight in (left, right):
            weight = (row_weight * column_weight * nan_factor)[:, None]
            index = (row * width + column)[:, None].expand(-1, channels, -1)
            row_total = row_total + _weighted(weight, pixels.gather(2, index))
            row_inside = row_inside + weight
        total, inside = total + row_total, inside + row_inside
    if fill is not None:
        outside = 1 - inside
        # Well inside the image, weights may sum to 1 only up to rounding.
        visible = ~(outside <= 8 * torch.finfo(accumulation_dtype).eps)
        total = total + torch.where(
            visible, outside * torch.where(visible, fill.to(accumulation_dtype).flatten(2), 0), 0
        )
    return total.view(image.shape).to(image.dtype)


def _coordinates(matrix: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Input column and row of each output pixel, N H W each; -2, which is outside, where undefined."""
    # In float64, since float32 leaves coordinates of hundreds few fractional digits; MPS has no float64.
    dtype = torch.float32 if matrix.device.type == "mps" else torch.float64
    x = torch.arange(width, dtype=dtype, device=matrix.device)
    y = torch.arange(height, dtype=dtype, device=matrix.device)[:, None]
    m = matrix.to(dtype).flatten(1)[:, :, None, None].unbind(1)
    scale = m[6] * x + m[7] * y + m[8]
    coordinates = []
    for first, size in ((0, width), (3, height)):
        numerator = m[first] * x + m[first + 1] * y + m[first + 2]
        defined = (numerator / scale).isfinite()
        coordinate = torch.where(defined, numerator, -2) / torch.where(defined, scale, 1)
        coordinates.append(coordinate.clamp(-2, size + 1))
    return coordinates[0], coordinates[1]


def _taps(coordinate: Tensor, size: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Index and weight, along one axis, of the two pixels around each coordinate; 0 outside the image."""
    first = coordinate.detach().floor()
    fraction = (coordinate - first).to(dtype)
    taps = []
    for index, weight in ((first.long(), 1 - fraction), (first.long() + 1, fraction)):
        inside = (index >= 0) & (index < size)
        taps.append((torch.where(inside, index, 0), torch.where(inside, weight, 0)))
    return taps


def _weighted(weight: Tensor, value: Tensor) -> Tensor:
    """The product; a pixel of weight zero is not read, but determines the gradient of its weight."""
    product = weight * torch.where(weight == 0, 0, value)
    unread = torch.where((weight == 0) & value.isfinite(), value, 0).detach()
    zero = torch.where(weight == 0, weight - weight.detach(), 0)
    return product + zero * unread if weight.requires_grad else product
