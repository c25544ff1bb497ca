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
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    plane = program // blocks
    n = (plane // channels).to(tl.int64)
    channel = (plane % channels).to(tl.int64)
    pixel = (program % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    row = (pixel // width).to(tl.int64)
    column = (pixel % width).to(tl.int64)
    inside = row < height
    image += n * image_stride_n + channel * image_stride_c
    kernels += n * SIZE * SIZE

    total = tl.zeros([BLOCK], tl.float32)
    for tap in range(SIZE * SIZE):
        weight = tl.load(kernels + tap)
        if weight != 0.0:  # one branch for the whole program; half of the kernels are a single tap
            y = row + tap // SIZE - SIZE // 2
            x = column + tap % SIZE - SIZE // 2
            exists = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            value = tl.load(image + y * image_stride_h + x * image_stride_w, exists, 0.0)
            total += tl.where(exists, weight * value.to(tl.float32), 0.0)  # a tap may be NaN
    blurred += n * out_stride_n + channel * out_stride_c + row * out_stride_h + column * out_stride_w
    tl.store(blurred, total.to(blurred.dtype.element_ty), inside)


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Like image; on its device and current stream."""
    batch, channels, height, width = image.shape
    blurred = torch.empty_like(image)
    blocks = triton.cdiv(height * width, BLOCK)
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
            SIZE=kernels.shape[-1],
            INDEX=index_type(height * width, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return blurred
