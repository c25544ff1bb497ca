"""Triton kernels of `fastgan.ops.photometric`, which documents the formula. One launch each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._pixels import in_turn, line, load, part_of_image, store, walk

# Chosen by arithmetic, not yet by measurement: 16 bytes of each channel per thread.
WARPS = 4
THREADS = 32 * WARPS


@triton.jit
def philox(seed, low, high, stream: tl.constexpr):
    """Philox 4x32 with 10 rounds, as `fastgan.reference.philox`.

    tl.philox gives the same words, but computes the 64-bit products with two multiplications instead of one.
    """
    word0, word1, word2, word3 = low, high, low * 0 + stream, low * 0
    key0, key1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        product0 = word0.to(tl.uint64) * 0xD2511F53
        product1 = word2.to(tl.uint64) * 0xCD9E8D57
        word0 = (product1 >> 32).to(tl.uint32) ^ word1 ^ key0
        word2 = (product0 >> 32).to(tl.uint32) ^ word3 ^ key1
        word1, word3 = product1.to(tl.uint32), product0.to(tl.uint32)
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return word0, word1, word2, word3


@triton.jit
def radius(word):
    """sqrt(-2 ln u), u in (0, 1] from the word's upper 24 bits.

    With u = 2^e m, m in [sqrt(1/2), sqrt(2)): ln m = 2 artanh s, s = (m - 1) / (m + 1), as in
    csrc/math/photometric.h; near 1, tl.log has an error as large as the result. The series'
    coefficients have the least relative error, 1.5e-7.
    """
    last = 5.9604644775390625e-8  # 2^-24
    bits = ((word >> 8).to(tl.float32) * last + last).to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) & -0x800000  # 2^23 e; bits of sqrt(1/2)
    m = (bits - exponent).to(tl.float32, bitcast=True)
    root = tl.math.rsqrt(m + 1.0)  # one instruction, where a division takes eight
    s = (m - 1.0) * (root * root)
    square = s * s
    series = s * (-4.0 + square * (-1.333112 + square * -0.82405828))
    return tl.sqrt(exponent.to(tl.float32) * (-2 * 0.69314718056 / 2**23) + series)


@triton.jit
def direction(word):
    """Cosine and sine of 2 pi t, t in [0, 1) from the word's upper 24 bits, up to their sign; the sign's bit.

    t is reduced to [-1/4, 1/4] exactly, followed by series of least error, 5e-8. tl.cos and tl.sin include a
    range reduction that needs local memory.
    """
    rest = ((word << 1) & 0xFFFFFE00).to(tl.int32, bitcast=True)  # 2^33 t, from the nearest half turn
    angle = rest.to(tl.float32) * (2 * 3.14159265359 / 2**33)
    square = angle * angle
    sine = -0.166666605 + square * (8.33308817e-3 + square * (-1.98111128e-4 + square * 2.60893267e-6))
    cosine = -0.499999323 + square * (4.16639895e-2 + square * (-1.38559272e-3 + square * 2.31943865e-5))
    return 1.0 + square * cosine, angle * (1.0 + square * sine), (word + 0x40000000) & 0x80000000


@triton.jit
def point(radius_word, angle_word):
    """Two standard normal numbers by the Box-Muller transform."""
    cosine, sine, sign = direction(angle_word)
    signed = (radius(radius_word).to(tl.uint32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)
    return signed * cosine, signed * sine


@triton.jit
def normals(seed, quad, channel: tl.constexpr):
    """A channel's noise for the four pixels of each quad."""
    low = quad.to(tl.uint32)
    high = low * 0 if quad.dtype == tl.int32 else (quad >> 32).to(tl.uint32)
    word0, word1, word2, word3 = philox(seed, low, high, channel)
    normal0, normal1 = point(word0, word1)
    normal2, normal3 = point(word2, word3)
    return line(normal0, normal1, normal2, normal3)


@triton.jit
def noise(seed, first, channel: tl.constexpr, RUN: tl.constexpr, BLOCK: tl.constexpr):
    """A channel's noise for the program's pixels, from quad `first` on."""
    quad = first + RUN // 4 * tl.arange(0, BLOCK // RUN)
    normal = normals(seed, quad, channel)
    if RUN == 8:
        normal = in_turn(normal, normals(seed, quad + 1, channel))
    return tl.reshape(normal, [BLOCK])


@triton.jit
def clamp_unit(value):
    """Clamps to [0, 1]; NaN stays NaN."""
    return tl.clamp(value, 0.0, 1.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def distort_channel(value, normal, strength, contrast, offset):
    """The channel after both clamps, and whether they left it unchanged."""
    noisy = value + strength * normal
    clamped = clamp_unit(noisy)
    lit = contrast * clamped + offset
    result = clamp_unit(lit)
    return result, (clamped == noisy) & (result == lit)


@triton.jit
def passed(mask, bit: tl.constexpr, grad):
    """The gradient where both clamps left the channel unchanged, NaN where it is NaN, else 0."""
    return tl.where((mask & (8 * bit)) != 0, float("nan"), tl.where((mask & bit) != 0, grad, 0.0))


@triton.jit
def forward(
    image,  # N 3 H W, any strides
    distorted,  # N 3 H W, any strides
    masks,  # N H W uint8; not touched unless HAS_MASKS
    parameters,  # N 6 float32: strength, contrast, three offsets, desaturation
    seed,  # 0-d int64
    width,
    pixels,  # H * W
    parts,  # programs per image
    image_stride_n,
    image_stride_c,
    image_stride_h,
    image_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    HAS_MASKS: tl.constexpr,
    WHOLE_QUADS: tl.constexpr,  # whether H * W is a multiple of 4
    FLAT: tl.constexpr,
    IMAGE_LINE: tl.constexpr,
    OUT_LINE: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 if N * H * W and the strides allow
    RUN: tl.constexpr,  # consecutive pixels per thread, 4 or 8
    BLOCK: tl.constexpr,
):
    n, first = part_of_image(parts, INDEX, BLOCK)
    if not WHOLE_QUADS:  # the image may begin in the middle of a quad
        first -= (n * pixels & 3).to(INDEX)
    pixel = first + tl.arange(0, BLOCK)
    inside = pixel < pixels if WHOLE_QUADS else (pixel < pixels) & (pixel >= 0)
    red, green, blue = load(
        image + n * image_stride_n, first, pixels, width, image_stride_c, image_stride_h, image_stride_w,
        inside, FLAT, IMAGE_LINE, BLOCK,
    )  # fmt: skip
    parameters += n * 6
    strength = tl.load(parameters)
    contrast = tl.load(parameters + 1)
    desaturation = tl.load(parameters + 5)
    key = tl.load(seed)
    quad = ((n * pixels + first) >> 2).to(INDEX)
    red_noise = noise(key, quad, 0, RUN, BLOCK)
    green_noise = noise(key, quad, 1, RUN, BLOCK)
    blue_noise = noise(key, quad, 2, RUN, BLOCK)
    red, red_within = distort_channel(red, red_noise, strength, contrast, tl.load(parameters + 2))
    green, green_within = distort_channel(green, green_noise, strength, contrast, tl.load(parameters + 3))
    blue, blue_within = distort_channel(blue, blue_noise, strength, contrast, tl.load(parameters + 4))
    if HAS_MASKS:
        mask = tl.where(red_within, 1, 0) + tl.where(green_within, 2, 0) + tl.where(blue_within, 4, 0)
        mask += tl.where(red != red, 8, 0) + tl.where(green != green, 16, 0) + tl.where(blue != blue, 32, 0)
        # Written as 4 * quad, so that the compiler knows vectors to be whole quads, and one thread stores
        # each.
        tl.store(masks + 4 * quad.to(tl.int64) + tl.arange(0, BLOCK), mask.to(tl.uint8), inside)

    grey = desaturation * (0.3 * red + 0.6 * green + 0.1 * blue)
    colour = 1.0 - desaturation
    red, green, blue = colour * red + grey, colour * green + grey, colour * blue + grey
    store(
        distorted + n * out_stride_n, red, green, blue, first, pixels, width,
        out_stride_c, out_stride_h, out_stride_w, inside, FLAT, OUT_LINE, BLOCK,
    )  # fmt: skip


@triton.jit
def backward(
    grad,  # N 3 H W, any strides
    result,  # N 3 H W, any strides
    masks,  # N H W uint8
    parameters,  # N 6 float32
    width,
    pixels,
    parts,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    FLAT: tl.constexpr,
    GRAD_LINE: tl.constexpr,
    OUT_LINE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n, first = part_of_image(parts, INDEX, BLOCK)
    pixel = first + tl.arange(0, BLOCK)
    inside = pixel < pixels
    red, green, blue = load(
        grad + n * grad_stride_n, first, pixels, width, grad_stride_c, grad_stride_h, grad_stride_w, inside,
        FLAT, GRAD_LINE, BLOCK,
    )  # fmt: skip
    mask = tl.load(masks + n * pixels + pixel, inside, 0).to(tl.int32)

    parameters += n * 6
    contrast = tl.load(parameters + 1)
    desaturation = tl.load(parameters + 5)
    grey = contrast * desaturation * (red + green + blue)
    colour = contrast * (1.0 - desaturation)
    red = passed(mask, 1, colour * red + 0.3 * grey)
    green = passed(mask, 2, colour * green + 0.6 * grey)
    blue = passed(mask, 4, colour * blue + 0.1 * grey)
    store(
        result + n * out_stride_n, red, green, blue, first, pixels, width,
        out_stride_c, out_stride_h, out_stride_w, inside, FLAT, OUT_LINE, BLOCK,
    )  # fmt: skip


def photometric(image: Tensor, parameters: Tensor, seed: Tensor, with_masks: bool) -> tuple[Tensor, Tensor]:
    """(distorted like image, masks (N, H, W) or empty), all on the image's device and current stream."""
    batch, _, height, width = image.shape
    distorted = torch.empty_like(image)
    masks = image.new_empty((batch, height, width) if with_masks else (0,), dtype=torch.uint8)
    plan = walk(THREADS, image, distorted)
    with torch.cuda.device_of(image):
        forward[(batch * plan.parts,)](
            image,
            distorted,
            masks,
            parameters,
            seed,
            width,
            height * width,
            plan.parts,
            *image.stride(),
            *distorted.stride(),
            HAS_MASKS=with_masks,
            WHOLE_QUADS=height * width % 4 == 0,
            FLAT=plan.flat,
            IMAGE_LINE=plan.line(image),
            OUT_LINE=plan.line(distorted),
            INDEX=plan.index,
            RUN=plan.run,
            BLOCK=plan.block,
            num_warps=WARPS,
        )
    return distorted, masks


def photometric_backward(grad: Tensor, parameters: Tensor, masks: Tensor) -> Tensor:
    """The gradient of the image, like grad."""
    batch, _, height, width = grad.shape
    result = torch.empty_like(grad)
    plan = walk(THREADS, grad, result)
    with torch.cuda.device_of(grad):
        backward[(batch * plan.parts,)](
            grad,
            result,
            masks,
            parameters,
            width,
            height * width,
            plan.parts,
            *grad.stride(),
            *result.stride(),
            FLAT=plan.flat,
            GRAD_LINE=plan.line(grad),
            OUT_LINE=plan.line(result),
            INDEX=plan.index,
            BLOCK=plan.block,
            num_warps=WARPS,
        )
    return result
