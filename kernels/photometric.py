"""Triton kernels of `fastgan.ops.photometric`, which tells what is computed. One launch each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels._indexing import index_type
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: 4 warps give each thread 4 pixels, one 16-byte access per
# channel in float32.
BLOCK = 512
WARPS = 4
# Five programs of 128 threads to a multiprocessor. For 64-bit indices Triton 3.8 takes 99 where 96 do, too.
MAX_REGISTERS = 96


@triton.jit
def natural_logarithm(x):
    """The natural logarithm of a normal x > 0, as in csrc/math/photometric.h.

    Near 1, tl.log errs by as much as the result.
    """
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    m = (bits - (exponent << 23)).to(tl.float32, bitcast=True)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    series = 1.0 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9))))
    return exponent.to(tl.float32) * 0.69314718056 + 2.0 * s * series


@triton.jit
def direction(t):
    """Cosine and sine of 2 pi t, t in [0, 1): brought to [-1/8, 1/8], then Taylor's series.

    tl.cos and tl.sin would bring a range reduction along that needs local memory.
    """
    quarters = 4.0 * t
    quadrant = (quarters + 0.5).to(tl.int32)
    angle = (quarters - quadrant.to(tl.float32)) * 1.57079632679
    square = angle * angle
    sine = square * (-1 / 6 + square * (1 / 120 + square * (-1 / 5040 + square * (1 / 362880))))
    sine = angle * (1.0 + sine)
    cosine = square * (-1 / 2 + square * (1 / 24 + square * (-1 / 720 + square * (1 / 40320))))
    cosine = 1.0 + cosine
    odd = (quadrant & 1) == 1
    x = tl.where(odd, sine, cosine)
    y = tl.where(odd, cosine, sine)
    return tl.where(((quadrant + 1) & 2) == 2, -x, x), tl.where((quadrant & 2) == 2, -y, y)


@triton.jit
def uniform(word):
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-8


@triton.jit
def normals(seed, quad, channel: tl.constexpr):
    """The noise of a channel for four neighbours of each quad, in the pixels' order."""
    low = (quad & 0xFFFFFFFF).to(tl.uint32)
    high = (quad >> 32).to(tl.uint32)
    zero = low * 0
    word0, word1, word2, word3 = tl.philox(seed, low, high, zero + channel, zero)
    last = 5.9604644775390625e-8
    radius0 = tl.sqrt(-2.0 * natural_logarithm(uniform(word0) + last))
    radius1 = tl.sqrt(-2.0 * natural_logarithm(uniform(word2) + last))
    cosine0, sine0 = direction(uniform(word1))
    cosine1, sine1 = direction(uniform(word3))
    even = tl.interleave(radius0 * cosine0, radius1 * cosine1)
    odd = tl.interleave(radius0 * sine0, radius1 * sine1)
    return tl.interleave(even, odd)


@triton.jit
def clamp_unit(value):
    """NaN stays NaN."""
    value = tl.where(value < 0.0, 0.0, value)
    return tl.where(value > 1.0, 1.0, value)


@triton.jit
def distort_channel(value, normal, strength, contrast, offset):
    """The channel after both clamps, and whether it passed them unchanged."""
    noisy = value + strength * normal
    within = (noisy >= 0.0) & (noisy <= 1.0)
    lit = contrast * clamp_unit(noisy) + offset
    within = within & (lit >= 0.0) & (lit <= 1.0)
    return clamp_unit(lit), within


@triton.jit
def passed(mask, bit: tl.constexpr, grad):
    """The gradient of a channel that passed both clamps, 0 of one that did not, NaN of one that is NaN."""
    return tl.where((mask & (8 * bit)) != 0, float("nan"), tl.where((mask & bit) != 0, grad, 0.0))


@triton.jit
def pixels_of_program(height, width, pixels, INDEX: tl.constexpr, BLOCK: tl.constexpr):
    """This program's pixels, numbered through all images; whether they exist; image, row and column."""
    pixel = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    column = (pixel % width).to(tl.int64)
    row = ((pixel // width) % height).to(tl.int64)
    return pixel, pixel < pixels, (pixel // width // height).to(tl.int64), row, column


@triton.jit
def forward(
    image,  # N 3 H W, any strides
    distorted,  # N 3 H W, any strides
    masks,  # N H W uint8; not touched unless HAS_MASKS
    parameters,  # N 6 float32: strength, contrast, three offsets, desaturation
    seed,  # 0-d int64
    height,
    width,
    pixels,  # N * H * W
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    HAS_MASKS: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 while N * H * W allows: 64-bit division is slow
    BLOCK: tl.constexpr,
):
    pixel, inside, n, row, column = pixels_of_program(height, width, pixels, INDEX, BLOCK)
    image += n * image_stride_n + row * image_stride_h + column * image_stride_w
    red = tl.load(image, inside, 0.0).to(tl.float32)
    green = tl.load(image + image_stride_c, inside, 0.0).to(tl.float32)
    blue = tl.load(image + 2 * image_stride_c, inside, 0.0).to(tl.float32)

    parameters += n * 6
    strength = tl.load(parameters, inside, 0.0)
    contrast = tl.load(parameters + 1, inside, 0.0)
    desaturation = tl.load(parameters + 5, inside, 0.0)
    offset_r = tl.load(parameters + 2, inside, 0.0)
    offset_g = tl.load(parameters + 3, inside, 0.0)
    offset_b = tl.load(parameters + 4, inside, 0.0)
    key = tl.load(seed)
    quad = tl.program_id(0).to(tl.int64) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    red, red_within = distort_channel(red, normals(key, quad, 0), strength, contrast, offset_r)
    green, green_within = distort_channel(green, normals(key, quad, 1), strength, contrast, offset_g)
    blue, blue_within = distort_channel(blue, normals(key, quad, 2), strength, contrast, offset_b)
    if HAS_MASKS:
        mask = tl.where(red_within, 1, 0) + tl.where(green_within, 2, 0) + tl.where(blue_within, 4, 0)
        mask += tl.where(red != red, 8, 0) + tl.where(green != green, 16, 0) + tl.where(blue != blue, 32, 0)
        tl.store(masks + pixel, mask.to(tl.uint8), inside)

    grey = desaturation * (0.3 * red + 0.6 * green + 0.1 * blue)
    colour = 1.0 - desaturation
    distorted += n * out_stride_n + row * out_stride_h + column * out_stride_w
    dtype = distorted.dtype.element_ty
    tl.store(distorted, (colour * red + grey).to(dtype), inside)
    tl.store(distorted + out_stride_c, (colour * green + grey).to(dtype), inside)
    tl.store(distorted + 2 * out_stride_c, (colour * blue + grey).to(dtype), inside)


@triton.jit
def backward(
    grad,  # N 3 H W, any strides
    result,  # N 3 H W, any strides
    masks,  # N H W uint8
    parameters,  # N 6 float32
    height,
    width,
    pixels,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pixel, inside, n, row, column = pixels_of_program(height, width, pixels, INDEX, BLOCK)
    grad += n * grad_stride_n + row * grad_stride_h + column * grad_stride_w
    red = tl.load(grad, inside, 0.0).to(tl.float32)
    green = tl.load(grad + grad_stride_c, inside, 0.0).to(tl.float32)
    blue = tl.load(grad + 2 * grad_stride_c, inside, 0.0).to(tl.float32)
    mask = tl.load(masks + pixel, inside, 0).to(tl.int32)

    parameters += n * 6
    contrast = tl.load(parameters + 1, inside, 0.0)
    desaturation = tl.load(parameters + 5, inside, 0.0)
    grey = contrast * desaturation * (red + green + blue)
    colour = contrast * (1.0 - desaturation)
    result += n * out_stride_n + row * out_stride_h + column * out_stride_w
    dtype = result.dtype.element_ty
    red = passed(mask, 1, colour * red + 0.3 * grey)
    green = passed(mask, 2, colour * green + 0.6 * grey)
    blue = passed(mask, 4, colour * blue + 0.1 * grey)
    tl.store(result, red.to(dtype), inside)
    tl.store(result + out_stride_c, green.to(dtype), inside)
    tl.store(result + 2 * out_stride_c, blue.to(dtype), inside)


def photometric(image: Tensor, parameters: Tensor, seed: Tensor, with_masks: bool) -> tuple[Tensor, Tensor]:
    """(distorted like image, masks (N, H, W) or empty), all on the image's device and current stream."""
    batch, _, height, width = image.shape
    pixels = batch * height * width
    distorted = torch.empty_like(image)
    masks = image.new_empty((batch, height, width) if with_masks else (0,), dtype=torch.uint8)
    with torch.cuda.device_of(image):
        forward[(triton.cdiv(pixels, BLOCK),)](
            image,
            distorted,
            masks,
            parameters,
            seed,
            height,
            width,
            pixels,
            *image.stride(),
            *distorted.stride(),
            HAS_MASKS=with_masks,
            INDEX=index_type(pixels, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
            maxnreg=MAX_REGISTERS,
        )
    return distorted, masks


def photometric_backward(grad: Tensor, parameters: Tensor, masks: Tensor) -> Tensor:
    """The gradient of the image, like grad."""
    batch, _, height, width = grad.shape
    pixels = batch * height * width
    result = torch.empty_like(grad)
    with torch.cuda.device_of(grad):
        backward[(triton.cdiv(pixels, BLOCK),)](
            grad,
            result,
            masks,
            parameters,
            height,
            width,
            pixels,
            *grad.stride(),
            *result.stride(),
            INDEX=index_type(pixels, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return result
