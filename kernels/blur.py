"""Triton kernel of `fastgan.ops.blur`, which tells what is computed. One launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels._indexing import index_type
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: 4 pixels per thread, whose taps overlap in the cache.
BLOCK = 512
WARPS = 4
# Larger kernels, which nobody blurs a batch with, would take long to compile.
LARGEST_UNROLLED = 9


@triton.jit
def add_tap(total, line, weight, column, in_row, shift, width, stride_w, OFFSET: tl.constexpr):
    """Adds the weight times the pixels `shift` columns further, where these exist."""
    weight = tl.load(weight)
    if weight != 0.0:  # one branch for the whole program; half of the kernels are a single tap
        exists = in_row & ((column + shift).to(tl.uint32, bitcast=True) < tl.full([], width, tl.uint32))
        value = tl.load(line + tl.full([], shift, OFFSET) * stride_w, exists, 0.0).to(tl.float32)
        if weight - weight == 0.0:
            total += weight * value
        else:  # of pixels that do not exist not even a tap that is NaN makes something
            total += tl.where(exists, weight * value, 0.0)
    return total


@triton.jit
def convolve(
    image,  # N C H W, any strides
    blurred,  # N C H W, any strides
    kernels,  # N SIZE SIZE float32
    channels,
    height,
    width,
    blocks,  # of one channel: a program's pixels share a kernel
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    SIZE: tl.constexpr,
    INDEX: tl.constexpr,
    OFFSET: tl.constexpr,  # tl.int32 while the strides of a channel allow
    UNROLLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    plane = program // blocks
    n = (plane // channels).to(tl.int64)
    channel = (plane % channels).to(tl.int64)
    pixel = (program % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    row = (pixel // width).to(tl.int32)
    column = (pixel % width).to(tl.int32)
    inside = row < height
    stride_h = tl.full([], image_stride_h, OFFSET)
    stride_w = tl.full([], image_stride_w, OFFSET)
    image += n * image_stride_n + channel * image_stride_c
    image += row.to(OFFSET) * stride_h + column.to(OFFSET) * stride_w
    kernels += n * SIZE * SIZE

    total = tl.zeros([BLOCK], tl.float32)
    for i in range(SIZE):
        y = row + (i - SIZE // 2)
        in_row = inside & (y >= 0) & (y < height)
        line = image + tl.full([], i - SIZE // 2, OFFSET) * stride_h
        if UNROLLED:  # neighbours lie at addresses that are constants apart
            for j in tl.static_range(SIZE):
                total = add_tap(
                    total, line, kernels, column, in_row, j - SIZE // 2, width, image_stride_w, OFFSET
                )
                kernels += 1
        else:
            for j in range(SIZE):
                total = add_tap(
                    total, line, kernels, column, in_row, j - SIZE // 2, width, image_stride_w, OFFSET
                )
                kernels += 1
    blurred += n * out_stride_n + channel * out_stride_c
    blurred += row.to(tl.int64) * out_stride_h + column.to(tl.int64) * out_stride_w
    tl.store(blurred, total.to(blurred.dtype.element_ty), inside)


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Like image; on its device and current stream."""
    batch, channels, height, width = image.shape
    blurred = torch.empty_like(image)
    blocks = triton.cdiv(height * width, BLOCK)
    size = kernels.shape[-1]
    # Of the pixel furthest away that a mask lets nobody read.
    _, _, stride_h, stride_w = image.stride()
    offset = index_type((height + size) * stride_h + (width + size) * stride_w, 0)
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
            INDEX=index_type(height * width, BLOCK),
            OFFSET=offset,
            UNROLLED=size <= LARGEST_UNROLLED and offset == tl.int32,  # in 64 bits registers run out
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return blurred
