"""Triton kernels of `fastgan.ops.perspective_warp`, which documents the formula. One launch each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._homography import coefficients, shifts
from fastgan.kernels._indexing import cdiv, index_type
from fastgan.kernels._perspective_gather import COLUMNS, GATHER_WARPS, MAX_REGISTERS, ROWS, backward

# Chosen by arithmetic, not yet by measurement. A thread processes one pixel at a time, so that a warp's taps
# are adjacent in memory, and STEPS of them in turn, which read the matrix once.
TILE_ROWS, TILE_COLUMNS = 4, 32
STEPS = 4
WARPS = 4
# The limit for the second and third axis of a grid.
LARGEST_GRID = 65535


@triton.jit
def forward(
    image,  # N C H W, any strides
    warped,  # N C H W, any strides
    fill,  # N C H W, any strides; not touched unless HAS_FILL
    matrix,  # N 3 3
    groups,  # of GROUP channels each
    height,
    width,
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    fill_stride_n,
    fill_stride_c,
    fill_stride_h,
    fill_stride_w,
    HAS_FILL: tl.constexpr,
    OFFSET: tl.constexpr,  # tl.int32 if the strides of a channel allow
    GROUP: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
):
    n = tl.program_id(2).to(tl.int64)
    m, poison = coefficients(matrix + n * 9)
    image += n * image_stride_n
    warped += n * out_stride_n
    fill += n * fill_stride_n
    x = tl.program_id(0) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)[None, :]
    top = tl.program_id(1) * (TILE_ROWS * STEPS)
    stride_h, stride_w = tl.full([], image_stride_h, OFFSET), tl.full([], image_stride_w, OFFSET)
    for step in range(STEPS):
        y = top + step * TILE_ROWS + tl.arange(0, TILE_ROWS)[:, None]
        inside = (x < width) & (y < height)
        shift_x, shift_y = shifts(m, x.to(tl.float32), y.to(tl.float32))
        # NaN and shifts that exceed the range of integers are outside in any case.
        nowhere = ~((tl.abs(shift_x) < 1e9) & (tl.abs(shift_y) < 1e9))
        shift_x, shift_y = tl.where(nowhere, -1e9, shift_x), tl.where(nowhere, 0.0, shift_y)
        left, above = tl.floor(shift_x), tl.floor(shift_y)
        column, row = x + left.to(tl.int32), y + above.to(tl.int32)
        right, below = shift_x - left, shift_y - above
        # Along each axis, pixels outside have weight zero.
        end_x, end_y = tl.full([], width, tl.uint32), tl.full([], height, tl.uint32)
        w_left = tl.where(inside & (column.to(tl.uint32, bitcast=True) < end_x), 1.0 - right, 0.0)
        w_right = tl.where(inside & ((column + 1).to(tl.uint32, bitcast=True) < end_x), right, 0.0)
        w_above = tl.where(row.to(tl.uint32, bitcast=True) < end_y, 1.0 - below, 0.0)
        w_below = tl.where((row + 1).to(tl.uint32, bitcast=True) < end_y, below, 0.0)
        w00, w01, w10, w11 = w_left * w_above, w_right * w_above, w_left * w_below, w_right * w_below
        outside = 1.0 - (w00 + w01 + w10 + w11)
        first = column.to(OFFSET) * stride_w + row.to(OFFSET) * stride_h
        target = x.to(OFFSET) * tl.full([], out_stride_w, OFFSET) + y.to(OFFSET) * tl.full(
            [], out_stride_h, OFFSET
        )
        seen = inside & (outside > 1e-6)  # well inside, the sum of weights differs from 1 by rounding alone
        source, place, colour = image, warped, fill
        if HAS_FILL:
            filled = x.to(OFFSET) * tl.full([], fill_stride_w, OFFSET)
            filled += y.to(OFFSET) * tl.full([], fill_stride_h, OFFSET)
        for _ in range(groups):
            for _ in tl.static_range(GROUP):
                pixel = source + first
                value = w00 * tl.load(pixel, w00 != 0.0, 0.0).to(tl.float32)
                value += w01 * tl.load(pixel + stride_w, w01 != 0.0, 0.0).to(tl.float32)
                value += w10 * tl.load(pixel + stride_h, w10 != 0.0, 0.0).to(tl.float32)
                value += w11 * tl.load(pixel + (stride_h + stride_w), w11 != 0.0, 0.0).to(tl.float32)
                if HAS_FILL:
                    value += outside * tl.load(colour + filled, seen, 0.0).to(tl.float32)
                    colour += fill_stride_c
                # With NaN in the matrix, the sampled positions are undefined: all of its image is NaN.
                tl.store(place + target, (value + poison).to(warped.dtype.element_ty), inside)
                source += image_stride_c
                place += out_stride_c


def group_size(channels: int, offset: tl.dtype, largest_of_64_bits: int) -> int:
    """How many channels a program processes at once; with 64-bit offsets, more take too many registers."""
    largest = 4 if offset is tl.int32 else largest_of_64_bits
    return next(size for size in range(largest, 0, -1) if channels % size == 0)


def offset_type(*tensors: Tensor) -> tl.dtype:
    """The type of offsets in a channel, including some past its end, which are computed but never read."""
    height, width = tensors[0].shape[2:]
    return index_type(
        max((height + 64) * abs(x.stride(2)) + (width + 64) * abs(x.stride(3)) for x in tensors), 0
    )


def check_fits_grid(image: Tensor) -> None:
    rows = LARGEST_GRID * TILE_ROWS * STEPS
    if image.shape[1] > LARGEST_GRID or image.shape[2] > rows:
        raise ValueError(
            f"on a GPU an image must have at most {LARGEST_GRID} channels and {rows} rows, "
            f"got shape {tuple(image.shape)}"
        )


def perspective_warp(image: Tensor, matrix: Tensor, fill: Tensor | None) -> Tensor:
    """Like image; on its device and current stream."""
    check_fits_grid(image)
    warped = torch.empty_like(image)
    fill_like = image if fill is None else fill
    batch, channels, height, width = image.shape
    offset = offset_type(image, warped, fill_like)
    group = group_size(channels, offset, 2)
    columns, rows = cdiv(width, TILE_COLUMNS), cdiv(height, TILE_ROWS * STEPS)
    with torch.cuda.device_of(image):
        for begin in range(0, batch, LARGEST_GRID):
            source, target, colour = (x[begin : begin + LARGEST_GRID] for x in (image, warped, fill_like))
            forward[columns, rows, source.shape[0]](
                source,
                target,
                colour,
                matrix[begin:],
                channels // group,
                height,
                width,
                *source.stride(),
                *target.stride(),
                *colour.stride(),
                HAS_FILL=fill is not None,
                OFFSET=offset,
                GROUP=group,
                TILE_ROWS=TILE_ROWS,
                TILE_COLUMNS=TILE_COLUMNS,
                STEPS=STEPS,
                num_warps=WARPS,
            )
    return warped


def perspective_warp_backward(grad: Tensor, matrix: Tensor) -> Tensor:
    """The gradient of the image, in the dtype of grad."""
    result = torch.empty_like(grad)
    batch, channels, height, width = grad.shape
    offset = offset_type(grad, result)
    group = group_size(channels, offset, 3)
    groups = channels // group
    columns, rows = cdiv(width, 2 * COLUMNS), cdiv(height, 2 * ROWS)
    at_once = max(1, LARGEST_GRID // groups)
    with torch.cuda.device_of(grad):
        for begin in range(0, batch, at_once):
            source, target = grad[begin : begin + at_once], result[begin : begin + at_once]
            backward[columns, rows, source.shape[0] * groups](
                source,
                target,
                matrix[begin:],
                groups,
                height,
                width,
                *source.stride(),
                *target.stride(),
                GROUP=group,
                INDEX=index_type(height * width, 2048),
                OFFSET=offset,
                ROWS=ROWS,
                COLUMNS=COLUMNS,
                num_warps=GATHER_WARPS,
                maxnreg=None if source.stride(3) == 1 else MAX_REGISTERS,
            )
    return result
