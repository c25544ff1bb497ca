"""Upscaling images of any size tile by tile, without seams."""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from fastgan.ops._checks import as_whole_number, check_instance
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator

# Pixels over which neighbouring tiles are blended where both are exact.
BLENDED = 8
SMALLEST_TILE = 8


def exact_overlap(generator: EnhanceNetGenerator) -> int:
    """The overlap with which tiling gives the same result as the whole image at once."""
    return 2 * generator.radius + BLENDED


def check_tiles(tile: int, overlap: int | None) -> None:
    """Raises a ValueError for a tile that is too small, or an overlap of more than half a tile."""
    as_whole_number("tile", tile, SMALLEST_TILE)
    if overlap is None:
        return
    check_instance("overlap", overlap, numbers.Integral, "a whole number")
    if isinstance(overlap, bool) or not 0 <= overlap <= tile // 2:
        raise ValueError(f"overlap must lie in [0, {tile // 2}], half of the tile, got {overlap}")


@torch.no_grad()
def upscale(
    generator: EnhanceNetGenerator, low: Tensor, tile: int = 256, overlap: int | None = None
) -> Tensor:
    """The generator's output, clamped, computed in tiles that are blended where they overlap.

    An output pixel depends on `radius` pixels around it, which are missing beyond a tile's edge. With an
    overlap of at least twice that, pixels affected by an edge get no weight, and the result equals that of
    the whole image at once, up to rounding. With less (or with a tile too small for it) they get little
    weight, and the result is smooth and close to it.

    Args:
        generator: in eval mode.
        low: N 3 H W in [0, 1], of any size.
        tile: largest height and width that the network gets at once, in pixels of `low`.
        overlap: of neighbouring tiles, in the same pixels; None: :func:`exact_overlap`, or half a tile if
            that is less.

    Returns:
        N 3 scale*H scale*W in [0, 1], in the dtype of `low`; tiles are blended in float32 or better.

    Raises:
        TypeError, ValueError: a tile or an overlap that is no whole number, or out of range.
    """
    check_tiles(tile, overlap)
    if overlap is None:
        overlap = min(exact_overlap(generator), tile // 2)
    scale, radius = generator.scale, generator.radius
    rows, columns = (_spans(length, tile, overlap, radius, scale) for length in low.shape[-2:])
    if len(rows) == len(columns) == 1:
        return generator(low).clamp(0, 1)
    dtype = torch.promote_types(low.dtype, torch.float32)
    size = (*low.shape[:-2], low.shape[-2] * scale, low.shape[-1] * scale)
    result = low.new_zeros(size, dtype=dtype)
    for top, bottom, row_weights in rows:
        for left, right, column_weights in columns:
            part = generator(low[..., top:bottom, left:right]).to(dtype)
            weights = row_weights.to(part)[:, None] * column_weights.to(part)
            region = result[..., top * scale : bottom * scale, left * scale : right * scale]
            region += part * weights
    return result.clamp_(0, 1).to(low.dtype)


def _spans(length: int, tile: int, overlap: int, radius: int, scale: int) -> list[tuple[int, int, Tensor]]:
    """(start, stop, weights of its output pixels) of each tile along a side; the weights sum to 1."""
    if length <= tile:
        return [(0, length, torch.ones(length * scale))]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    margin = radius if overlap >= 2 * radius else overlap // 4
    position = (torch.arange(tile * scale, dtype=torch.float64) + 0.5) / scale
    # 0 within the margin, then a smooth rise over the rest of the overlap (a jump if there is no rest).
    rise = ((position - margin) / (overlap - 2 * margin)).clamp(0, 1)
    rise = rise * rise * (3 - 2 * rise)
    total = torch.zeros(length * scale, dtype=torch.float64)
    weights = []
    for start in starts:
        weight = torch.ones_like(rise)
        if start > 0:
            weight = weight * rise
        if start + tile < length:
            weight = weight * rise.flip(0)
        total[start * scale : (start + tile) * scale] += weight
        weights.append(weight)
    return [
        (start, start + tile, weight / total[start * scale : (start + tile) * scale])
        for start, weight in zip(starts, weights, strict=True)
    ]
