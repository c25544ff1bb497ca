"""Triton kernel of `fastgan.ops.blur`, which documents the formula. One launch.

A thread computes ROWS rows of four columns. If most taps are non-zero, it reads each row within their reach
once, in the widest loads, and adds it to all output rows that it contributes to, including taps of weight
zero. It goes tap by tap, and skips those of weight zero, if few taps are non-zero, or if the sum is not
finite: then zero times a pixel may be NaN.

For kernels of 7 x 7 taps the limit is arithmetic: their 49 multiply-adds per pixel alone take an H100 82 us
for 8x3x1080x1920, while a copy in bfloat16 takes 66 us. The rest, 23 instructions in float32 and 29 where
halves are converted, is loads, the border, and work done once per program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type

# Chosen by arithmetic, not yet by measurement. With 6 rows each row is read twice, 72 registers suffice, and
# 1080 is a multiple. 8 rows would take 4 instructions per pixel less, but up to 128 registers.
ROWS = 6
LONE_ROWS = 4  # where adjacent pixels are loaded one by one, which takes more registers
# A program is one warp, so that the compiler knows its scalars to be uniform and keeps the weights in uniform
# registers.
QUADS = 32
WARPS = 1
# Up to this many non-zero taps, tap by tap (8 instructions per pixel each) is no slower than all of 7 x 7.
FEW_TAPS = 8
# Larger kernels have more weights than there are uniform registers.
LARGEST_DENSE = 7


@triton.jit
def in_range(index, size):
    """0 <= index < size."""
    return index.to(tl.uint32, bitcast=True) < tl.full([], size, tl.uint32)


@triton.jit
def load_columns(pointers, exist):
    """Loads four adjacent pixels per thread at once, and returns each of the four columns."""
    values = tl.load(pointers, exist, 0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(values, [values.shape[0], 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def as_quads(first, second, third, fourth):
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), [first.shape[0], 4])


@triton.jit
def zero_totals(ROWS: tl.constexpr, QUADS: tl.constexpr):
    totals: tl.tuple = ()
    for _ in tl.static_range(ROWS):
        totals += (tl.zeros([QUADS, 4], tl.float32),)
    return totals


@triton.jit
def row_by_row(
    image,  # this channel's plane
    offset,  # of the thread's first pixels
    kernel,
    row,
    column,
    height,
    width,
    stride_h,
    stride_w,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    ROWS: tl.constexpr,
    QUADS: tl.constexpr,
):
    """The sums over all taps, including those of weight zero."""
    FIRST: tl.constexpr = 4 - SIZE // 2  # index of the column that the first tap reads
    weights: tl.tuple = ()
    for tap in tl.static_range(SIZE * SIZE):
        weights += (tl.load(kernel + STEP * tap),)
    left, centre, right = column >= 4, column < width, column < width - 4
    totals = zero_totals(ROWS, QUADS)
    line = image - (SIZE // 2) * stride_h
    for source in tl.static_range(ROWS + SIZE - 1):
        in_row = in_range(row + (source - SIZE // 2), height)
        columns = load_columns(line - 4 * stride_w + offset, in_row & left)
        columns = columns + load_columns(line + offset, in_row & centre)
        columns = columns + load_columns(line + 4 * stride_w + offset, in_row & right)
        for j in tl.static_range(SIZE):
            values = as_quads(
                columns[FIRST + j], columns[FIRST + j + 1], columns[FIRST + j + 2], columns[FIRST + j + 3]
            )
            sums: tl.tuple = ()
            for target in tl.static_range(ROWS):
                if source - target >= 0 and source - target < SIZE:
                    sums += (totals[target] + weights[(source - target) * SIZE + j] * values,)
                else:
                    sums += (totals[target],)
            totals = sums
        line += stride_h
    return totals


@triton.jit
def tap_by_tap(
    image,
    offset,
    kernel,
    row,
    column,
    height,
    width,
    stride_h,
    stride_w,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    QUADS: tl.constexpr,
):
    """The sums over the non-zero taps, of pixels inside the image."""
    totals = zero_totals(ROWS, QUADS)
    for tap in range(SIZE * SIZE):
        weight = tl.load(kernel + STEP * tap)
        if weight != 0.0:  # uniform branch; half of the kernels have a single tap
            down, across = tap // SIZE - SIZE // 2, tap % SIZE - SIZE // 2
            line = image + tl.full([], down, OFFSET) * stride_h + tl.full([], across, OFFSET) * stride_w
            in_column = in_range(column + across, width)
            sums: tl.tuple = ()
            for target in tl.static_range(ROWS):
                exist = in_column & in_range(row + down + target, height)
                values = tl.load(line + offset, exist, 0.0).to(tl.float32)
                # An increment, because Triton 3.6 would share multiples of the stride with `row_by_row`, and
                # these would displace its weights from the uniform registers.
                line += stride_h
                # A weight that is NaN must not contribute where there is no pixel.
                sums += (totals[target] + tl.where(exist, weight, 0.0) * values,)
            totals = sums
    return totals


@triton.jit
def store(blurred, totals, row, in_column, height, stride_h, ROWS: tl.constexpr):
    for target in tl.static_range(ROWS):
        place = blurred + tl.full([], target, tl.int64) * stride_h
        tl.store(place, totals[target].to(blurred.dtype.element_ty), in_column & (row < height - target))


@triton.jit
def convolve(
    image,  # N C H W, any strides
    blurred,  # N C H W, any strides
    kernels,  # N SIZE SIZE float32
    channels,
    height,
    width,
    blocks,  # programs per channel: all pixels of a program use the same kernel
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,  # from one tap to the next; -1: the kernel is rotated by 180 degrees
    INDEX: tl.constexpr,
    OFFSET: tl.constexpr,  # tl.int32 if the strides of a channel allow
    DENSE: tl.constexpr,  # up to 7 x 7
    FEW_TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    QUADS: tl.constexpr,
):
    program = tl.program_id(0)
    plane = program // blocks
    n = (plane // channels).to(tl.int64)
    channel = (plane % channels).to(tl.int64)
    quads = (width + 3) // 4  # per row; quads beyond the last row do not exist
    quad = (program % blocks).to(INDEX) * QUADS + tl.arange(0, QUADS)
    row = ((quad // quads).to(tl.int32) * ROWS)[:, None]
    column = ((quad % quads).to(tl.int32) * 4)[:, None] + tl.arange(0, 4)[None, :]
    stride_h = tl.full([], image_stride_h, OFFSET)
    image += n * image_stride_n + channel * image_stride_c
    offset = row.to(OFFSET) * stride_h + column.to(OFFSET) * image_stride_w
    blurred += n * out_stride_n + channel * out_stride_c
    blurred += row.to(tl.int64) * out_stride_h + column.to(tl.int64) * out_stride_w
    kernel = kernels + n * SIZE * SIZE
    first_tap = kernel + (SIZE * SIZE - 1 if STEP < 0 else 0)

    by_taps = True
    if DENSE:
        tap = tl.arange(0, 64)
        counts = tl.load(kernel + tap, tap < SIZE * SIZE, 0.0) != 0.0
        by_taps = tl.sum(counts.to(tl.int32)) <= FEW_TAPS
        if not by_taps:
            totals = row_by_row(
                image, offset, first_tap, row, column, height, width, stride_h, image_stride_w,
                SIZE, STEP, ROWS, QUADS,
            )  # fmt: skip
            total = totals[0]
            for target in tl.static_range(1, ROWS):
                total += totals[target]
            by_taps = tl.sum((total - total != 0.0).to(tl.int32)) != 0
            store(blurred, totals, row, column < width, height, out_stride_h, ROWS)
    if by_taps:
        totals = tap_by_tap(
            image, offset, first_tap, row, column, height, width, stride_h, image_stride_w,
            SIZE, STEP, OFFSET, ROWS, QUADS,
        )  # fmt: skip
        store(blurred, totals, row, column < width, height, out_stride_h, ROWS)


def blur(image: Tensor, kernels: Tensor, turned: bool) -> Tensor:
    """Like image; on its device and current stream."""
    batch, channels, height, width = image.shape
    blurred = torch.empty_like(image)
    rows = ROWS if image.stride(3) == 1 and image.stride(2) % 16 == 0 else LONE_ROWS
    quads = cdiv(height, rows) * cdiv(width, 4)
    blocks = cdiv(quads, QUADS)
    size = kernels.shape[-1]
    # The largest offset that is computed, including masked pixels.
    _, _, stride_h, stride_w = image.stride()
    furthest = (height + size + QUADS * ROWS) * stride_h + (width + size + 4) * stride_w
    offset = index_type(furthest, 0)
    with torch.cuda.device_of(image):
        convolve[(batch * channels * blocks,)](
            image,
            blurred,
            kernels,
            channels,
            height,
            width,
            blocks,
            *image.stride(),
            *blurred.stride(),
            SIZE=size,
            STEP=-1 if turned else 1,
            INDEX=index_type(quads, QUADS),
            OFFSET=offset,
            DENSE=1 < size <= LARGEST_DENSE and offset == tl.int32,  # with 64-bit offsets registers run out
            FEW_TAPS=FEW_TAPS,
            ROWS=rows,
            QUADS=QUADS,
            num_warps=WARPS,
        )
    return blurred
