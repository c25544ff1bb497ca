"""Sobel's derivatives of the difference, the first launch of `fastgan.kernels.pixel_loss` with them."""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels import _pixels
from fastgan.kernels._pixel_terms import difference, gain_of, gained, mean_weight, read_weights, store_slopes


@triton.jit
def program_of(parts, channels, INDEX: tl.constexpr, BLOCK: tl.constexpr):
    """The image and channel of a program, and its first pixel there."""
    plane, first = _pixels.part_of_image(parts, INDEX, BLOCK)
    return plane // channels, plane % channels, plane, first


@triton.jit
def sobel(
    x,  # N C H W, any strides
    y,  # likewise
    weight,  # N K H W, any strides; not touched unless HAS_WEIGHT
    slopes,  # [N, K, 2, H, W] float32; not touched unless HAS_DIRECTION
    partial_sums,  # [programs, 4] float32, of which the second is written
    edge_gain,  # 0-d; not touched unless GAIN is 2
    weight_means,  # [3]; not touched unless HAS_MEANS
    edge_gain_number,
    threshold,
    scale_y,
    scale_u,
    scale_v,
    factor,
    height,
    width,
    pixels,  # H * W
    parts,  # programs per plane
    channels,  # planes per image
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    y_stride_n,
    y_stride_c,
    y_stride_h,
    y_stride_w,
    w_stride_n,
    w_stride_c,
    w_stride_h,
    w_stride_w,
    KIND: tl.constexpr,
    COLOR: tl.constexpr,
    GAIN: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_MEANS: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image, channel, plane, first = program_of(parts, channels, INDEX, BLOCK)
    pixel = first + tl.arange(0, BLOCK)
    inside = pixel < pixels
    row, column = tl.minimum(pixel // width, height - 1), pixel % width
    x += image * x_stride_n + channel * x_stride_c
    y += image * y_stride_n + channel * y_stride_c
    weight += image * w_stride_n + channel * w_stride_c
    gain = gain_of(edge_gain, edge_gain_number, GAIN)
    down0, down1, down2 = (
        tl.zeros([BLOCK], tl.float32),
        tl.zeros([BLOCK], tl.float32),
        tl.zeros([BLOCK], tl.float32),
    )
    right0, right1, right2 = down0, down1, down2
    for i in tl.static_range(9):
        if i != 4:
            near_row = tl.minimum(tl.maximum(row + (i // 3 - 1), 0), height - 1)
            near_column = tl.minimum(tl.maximum(column + (i % 3 - 1), 0), width - 1)
            here = x + near_row * x_stride_h + near_column * x_stride_w
            there = y + near_row * y_stride_h + near_column * y_stride_w
            value0, value1, value2 = difference(here, there, x_stride_c, y_stride_c, inside, COLOR)
            factor_here = gained(gain, near_row, near_column, height, width, GAIN)
            along_rows = (i // 3 - 1) * (2 - (i % 3 - 1) * (i % 3 - 1)) * 0.125
            along_columns = (i % 3 - 1) * (2 - (i // 3 - 1) * (i // 3 - 1)) * 0.125
            value0, value1, value2 = value0 * factor_here, value1 * factor_here, value2 * factor_here
            if i // 3 != 1:  # since zero times infinity is NaN
                down0 += along_rows * value0
                down1 += along_rows * value1
                down2 += along_rows * value2
            if i % 3 != 1:
                right0 += along_columns * value0
                right1 += along_columns * value1
                right2 += along_columns * value2
    weight0, weight1, weight2 = read_weights(
        weight, row, column, w_stride_c, w_stride_h, w_stride_w, inside, HAS_WEIGHT, COLOR
    )
    factor /= mean_weight(weight_means, 0, HAS_MEANS)
    outputs: tl.constexpr = 3 if COLOR == 2 else 1
    slopes += plane * (outputs * 2) * pixels + pixel
    total = store_slopes(
        down0, right0, weight0 * scale_y, factor, threshold, slopes, pixels, inside, KIND, HAS_DIRECTION
    )
    if COLOR == 2:
        slopes += pixels + pixels
        total += store_slopes(
            down1, right1, weight1 * scale_u, factor, threshold, slopes, pixels, inside, KIND,
            HAS_DIRECTION,
        )  # fmt: skip
        slopes += pixels + pixels
        total += store_slopes(
            down2, right2, weight2 * scale_v, factor, threshold, slopes, pixels, inside, KIND,
            HAS_DIRECTION,
        )  # fmt: skip
    tl.store(partial_sums + tl.program_id(0) * 4 + 1, tl.sum(total))
