"""Triton kernels of `fastgan.ops.yuv_l2`, which documents the formulas.

`sweep` reads x and y once and writes D' (if wanted) and three partial sums per program; `finish` adds the
partial sums in a fixed order, so the same input gives the same bits. Two launches, no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type
from fastgan.kernels._pixels import load, part_of_image, store, walk

# Chosen by arithmetic, not yet by measurement: 16 bytes of each channel per thread, with at most 64
# registers.
WARPS = 8
THREADS = 32 * WARPS
# Partial sums that `finish` adds at once.
BLOCK = 1024


@triton.jit
def border_ramp(index, size):
    """(1 - cos(4 pi p)) / 2 = sin(2 pi p)^2, with p = distance to the nearer border / size, up to p = 1/4.

    The sine's argument stays below pi / 2, where eight terms of its series are exact to float32;
    tl.sin includes a range reduction, ten times the code of the rest.
    """
    position = tl.minimum(index, size - 1 - index).to(tl.float32) / size
    angle = 6.283185307179586 * tl.minimum(position, 0.25)
    square = angle * angle
    series = 1.0 - square * (1 / 210.0) * (1.0 - square * (1 / 272.0))
    series = 1.0 - square * (1 / 110.0) * (1.0 - square * (1 / 156.0) * series)
    series = 1.0 - square * (1 / 42.0) * (1.0 - square * (1 / 72.0) * series)
    sine = angle * (1.0 - square * (1 / 6.0) * (1.0 - square * (1 / 20.0) * series))
    return sine * sine


@triton.jit
def sweep(
    x,  # N 3 H W, any strides
    y,  # N 3 H W, any strides
    direction,  # N 3 H W, any strides; not touched unless HAS_DIRECTION
    partial_sums,  # [programs, 3] float32
    edge_gain,  # 0-d; not touched unless HAS_GAIN
    edge_gain_number,  # used otherwise
    scale_y,
    scale_u,
    scale_v,
    direction_factor,
    height,
    width,
    pixels,  # H * W
    parts,  # programs per image
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    y_stride_n,
    y_stride_c,
    y_stride_h,
    y_stride_w,
    d_stride_n,
    d_stride_c,
    d_stride_h,
    d_stride_w,
    HAS_GAIN: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    FLAT: tl.constexpr,
    X_LINE: tl.constexpr,
    Y_LINE: tl.constexpr,
    D_LINE: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 if N * H * W and the strides allow
    BLOCK: tl.constexpr,
):
    image, first = part_of_image(parts, INDEX, BLOCK)
    pixel = first + tl.arange(0, BLOCK)
    inside = pixel < pixels
    # Clamped, because ramps of rows beyond the last one could be infinite.
    row, column = tl.minimum(pixel // width, height - 1), pixel % width
    red, green, blue = load(
        x + image * x_stride_n, first, pixels, width, x_stride_c, x_stride_h, x_stride_w, inside,
        FLAT, X_LINE, BLOCK,
    )  # fmt: skip
    red_y, green_y, blue_y = load(
        y + image * y_stride_n, first, pixels, width, y_stride_c, y_stride_h, y_stride_w, inside,
        FLAT, Y_LINE, BLOCK,
    )  # fmt: skip
    red, green, blue = red - red_y, green - green_y, blue - blue_y

    ramps = border_ramp(row, height) * border_ramp(column, width)
    gain = edge_gain_number
    if HAS_GAIN:
        gain = tl.load(edge_gain).to(tl.float32)
    weight = 1.0 + gain * (1.0 - ramps)

    squared = weight * weight
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma_u = -0.14713 * red - 0.28886 * green + 0.436 * blue
    chroma_v = 0.615 * red - 0.51499 * green - 0.10001 * blue
    partial_sums += tl.program_id(0) * 3
    tl.store(partial_sums, tl.sum(squared * luma * luma))
    tl.store(partial_sums + 1, tl.sum(squared * chroma_u * chroma_u))
    tl.store(partial_sums + 2, tl.sum(squared * chroma_v * chroma_v))

    if HAS_DIRECTION:
        squared *= direction_factor
        luma *= scale_y * squared
        chroma_u *= scale_u * squared
        chroma_v *= scale_v * squared
        red = 0.299 * luma - 0.14713 * chroma_u + 0.615 * chroma_v
        green = 0.587 * luma - 0.28886 * chroma_u - 0.51499 * chroma_v
        blue = 0.114 * luma + 0.436 * chroma_u - 0.10001 * chroma_v
        store(
            direction + image * d_stride_n, red, green, blue, first, pixels, width,
            d_stride_c, d_stride_h, d_stride_w, inside, FLAT, D_LINE, BLOCK,
        )  # fmt: skip


@triton.jit
def finish(
    partial_sums,  # [programs, 3] float32
    channels,  # [3] float32
    loss,  # 0-d float32
    scale_y,
    scale_u,
    scale_v,
    programs,
    pixels,
    BLOCK: tl.constexpr,
):
    lane = tl.arange(0, BLOCK)
    sum_y = tl.zeros([BLOCK], tl.float64)
    sum_u = tl.zeros([BLOCK], tl.float64)
    sum_v = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, programs, BLOCK):
        place = partial_sums + (begin + lane) * 3
        inside = begin + lane < programs
        sum_y += tl.load(place, inside, 0.0).to(tl.float64)
        sum_u += tl.load(place + 1, inside, 0.0).to(tl.float64)
        sum_v += tl.load(place + 2, inside, 0.0).to(tl.float64)
    mean_y = (tl.sum(sum_y) / pixels).to(tl.float32)
    mean_u = (tl.sum(sum_u) / pixels).to(tl.float32)
    mean_v = (tl.sum(sum_v) / pixels).to(tl.float32)
    tl.store(channels, mean_y)
    tl.store(channels + 1, mean_u)
    tl.store(channels + 2, mean_v)
    tl.store(loss, scale_y * mean_y + scale_u * mean_u + scale_v * mean_v)


@triton.jit
def scale(
    source,  # `count` elements in memory order
    target,  # like source; may be source itself
    grad_loss,  # 0-d
    factor,
    count,
    IN_PLACE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    factor *= tl.load(grad_loss).to(tl.float32)
    if IN_PLACE:  # a factor of 1, which is only known on the device, must not cost a pass over memory
        count = tl.where(factor == 1.0, 0, count)
    element = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = element < count
    values = factor * tl.load(source + element, inside, 0.0).to(tl.float32)
    tl.store(target + element, values.to(target.dtype.element_ty), inside)


def mean_factor(image: Tensor) -> float:
    """2 / (N H W), the factor of D in the gradient."""
    return 6.0 / image.numel()


def yuv_l2(
    x: Tensor,
    y: Tensor,
    edge_gain: Tensor | None,
    edge_gain_number: float,
    scale_y: float,
    scale_u: float,
    scale_v: float,
    direction_sign: int,
    direction_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss 0-d, channels (3,), direction like x or empty), all on x's device and current stream."""
    batch, _, height, width = x.shape
    scales = scale_y, scale_u, scale_v
    images = [x, y]
    strides: tuple[int, ...] = (0, 0, 0, 0)
    if direction_dtype is None:
        direction = x.new_empty(0, dtype=torch.float32)
    else:
        direction = torch.empty_like(x, dtype=direction_dtype)
        images.append(direction)
        strides = direction.stride()
    plan = walk(THREADS, *images)
    programs = batch * plan.parts
    loss, channels = x.new_empty((), dtype=torch.float32), x.new_empty(3, dtype=torch.float32)
    partial_sums = x.new_empty((programs, 3), dtype=torch.float32)
    with torch.cuda.device_of(x):
        sweep[(programs,)](
            x,
            y,
            direction,
            partial_sums,
            x if edge_gain is None else edge_gain,
            edge_gain_number,
            *scales,
            direction_sign * mean_factor(x) if direction_sign else 1.0,
            height,
            width,
            height * width,
            plan.parts,
            *x.stride(),
            *y.stride(),
            *strides,
            HAS_GAIN=edge_gain is not None,
            HAS_DIRECTION=direction_dtype is not None,
            FLAT=plan.flat,
            X_LINE=plan.line(x),
            Y_LINE=plan.line(y),
            D_LINE=plan.line(direction) if direction_dtype is not None else 0,
            INDEX=plan.index,
            BLOCK=plan.block,
            num_warps=WARPS,
        )
        finish[(1,)](partial_sums, channels, loss, *scales, programs, batch * height * width, BLOCK=BLOCK)
    return loss, channels, direction


def yuv_l2_backward(
    direction: Tensor, grad_loss: Tensor, sign: int, scaled: bool, dtype: torch.dtype
) -> Tensor:
    """Sign * grad_loss * direction, times 2 / (N H W) unless `scaled`; like the direction, in that dtype."""
    grad = torch.empty_like(direction, dtype=dtype)
    scale_into(grad, direction, grad_loss, sign, scaled)
    return grad


def yuv_l2_backward_(direction: Tensor, grad_loss: Tensor, sign: int, scaled: bool) -> None:
    """The same in place."""
    scale_into(direction, direction, grad_loss, sign, scaled)


def scale_into(out: Tensor, direction: Tensor, grad_loss: Tensor, sign: int, scaled: bool) -> None:
    """Writes the scaled direction to `out`; both are dense and have equal strides."""
    count = direction.numel()
    block = THREADS * 16 // direction.itemsize
    with torch.cuda.device_of(direction):
        scale[(cdiv(count, block),)](
            direction,
            out,
            grad_loss,
            float(sign if scaled else sign * mean_factor(direction)),
            count,
            IN_PLACE=out is direction,
            INDEX=index_type(count, block),
            BLOCK=block,
            num_warps=WARPS,
        )
