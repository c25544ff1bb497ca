"""Sampling images through homographies, in plain PyTorch. See `fastgan.ops.perspective_warp`."""

from __future__ import annotations

import torch
from torch import Tensor


def perspective_warp(image: Tensor, matrix: Tensor, fill: Tensor | None = None) -> Tensor:
    """Output pixel (x, y) takes the bilinear value at (x', y', 1) ~ matrix (x, y, 1), or the fill outside.

    Coordinates count pixels from the centre of the first one, as in tf.contrib.image.transform. Pixel by
    pixel, where grid_sample would be faster: that counts in halves of the image's size, whose roundings give
    weight to pixels that have none, and multiplies NaN with weights of zero.

    Args:
        image: N C H W.
        matrix: N 3 3, output to input coordinates.
        fill: N C H W; None for zeros.

    Returns:
        N C H W in the image's dtype.
    """
    channels, height, width = image.shape[1:]
    accumulation_dtype = torch.promote_types(image.dtype, torch.float32)
    # A matrix that is NaN says of no place where it looks: each pixel gets and gives NaN in its own place.
    unknown = matrix.isnan().any(2).any(1)[:, None, None]
    own_place = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    columns, rows = (
        place.flatten(1) for place in _places(torch.where(unknown, own_place, matrix), height, width)
    )
    poison = torch.where(matrix.isnan(), matrix, 1).flatten(1).prod(1).to(accumulation_dtype)[:, None]
    left, right = _taps(columns, width, accumulation_dtype)
    above, below = _taps(rows, height, accumulation_dtype)
    pixels = image.to(accumulation_dtype).flatten(2)
    total = torch.zeros((), dtype=accumulation_dtype, device=image.device)
    inside = torch.zeros((), dtype=accumulation_dtype, device=image.device)
    for row, row_weight in (above, below):
        of_row, weight_of_row = torch.zeros_like(total), torch.zeros_like(inside)
        for column, column_weight in (left, right):
            weight = (row_weight * column_weight * poison)[:, None]
            index = (row * width + column)[:, None].expand(-1, channels, -1)
            of_row = of_row + _weighted(weight, pixels.gather(2, index))
            weight_of_row = weight_of_row + weight
        total, inside = total + of_row, inside + weight_of_row
    if fill is not None:
        outside = 1 - inside
        # The weights of a place well inside may miss 1 by a rounding.
        seen = ~(outside <= 8 * torch.finfo(accumulation_dtype).eps)
        total = total + torch.where(
            seen, outside * torch.where(seen, fill.to(accumulation_dtype).flatten(2), 0), 0
        )
    return total.view(image.shape).to(image.dtype)


def _places(matrix: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Column and row of the input, N H W each, where output pixels look; -2, outside, for nowhere."""
    # Apple's GPUs have no float64; elsewhere a coordinate of hundreds deserves its digits behind the point.
    dtype = torch.float32 if matrix.device.type == "mps" else torch.float64
    x = torch.arange(width, dtype=dtype, device=matrix.device)
    y = torch.arange(height, dtype=dtype, device=matrix.device)[:, None]
    m = matrix.to(dtype).flatten(1)[:, :, None, None].unbind(1)
    scale = m[6] * x + m[7] * y + m[8]
    places = []
    for first, size in ((0, width), (3, height)):
        moved = m[first] * x + m[first + 1] * y + m[first + 2]
        defined = (moved / scale).isfinite()
        place = torch.where(defined, moved, -2) / torch.where(defined, scale, 1)
        places.append(place.clamp(-2, size + 1))
    return places[0], places[1]


def _taps(place: Tensor, size: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Along one axis, the two pixels around each place and how much of each; 0 outside the image."""
    first = place.detach().floor()
    fraction = (place - first).to(dtype)
    taps = []
    for index, weight in ((first.long(), 1 - fraction), (first.long() + 1, fraction)):
        inside = (index >= 0) & (index < size)
        taps.append((torch.where(inside, index, 0), torch.where(inside, weight, 0)))
    return taps


def _weighted(weight: Tensor, value: Tensor) -> Tensor:
    """Their product; a pixel of weight zero is not read, but counts for the slope of its weight."""
    product = weight * torch.where(weight == 0, 0, value)
    unread = torch.where((weight == 0) & value.isfinite(), value, 0).detach()
    zero = torch.where(weight == 0, weight - weight.detach(), 0)
    return product + zero * unread if weight.requires_grad else product
