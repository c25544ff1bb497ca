"""What `pixel_loss`'s kernels compute for each pixel: penalties, channels, weights, terms of neighbours."""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels.yuv_l2 import border_ramp


@triton.jit
def penalty(value, threshold, KIND: tl.constexpr):
    """The penalty and its derivative; the threshold is eps or delta."""
    if KIND == 0:
        result, slope = tl.abs(value), (value > 0).to(tl.float32) - (value < 0).to(tl.float32)
    elif KIND == 1:
        result, slope = value * value, 2.0 * value
    elif KIND == 2:
        result = tl.sqrt_rn(value * value + threshold)
        slope = tl.div_rn(value, result)
    else:
        size = tl.abs(value)
        bounded = tl.where(size > threshold, threshold, size)
        result = bounded * (size - 0.5 * bounded)
        slope = tl.where(value > threshold, threshold, tl.where(value < -threshold, -threshold, value))
    return result, slope


@triton.jit
def in_color(red, green, blue, COLOR: tl.constexpr):
    """The channels that are compared: one in RGB (the first) and in luma."""
    if COLOR == 0:
        first, second, third = red, red, red
    else:
        first = 0.299 * red + 0.587 * green + 0.114 * blue
        second = -0.14713 * red - 0.28886 * green + 0.436 * blue
        third = 0.615 * red - 0.51499 * green - 0.10001 * blue
    return first, second, third


@triton.jit
def difference(x, y, x_stride_c, y_stride_c, inside, COLOR: tl.constexpr):
    """The channels that are compared, of the difference of the pixels at two places."""
    red = tl.load(x, inside, 0.0).to(tl.float32) - tl.load(y, inside, 0.0).to(tl.float32)
    green, blue = red, red
    if COLOR != 0:
        x, y = x + x_stride_c, y + y_stride_c
        green = tl.load(x, inside, 0.0).to(tl.float32) - tl.load(y, inside, 0.0).to(tl.float32)
        x, y = x + x_stride_c, y + y_stride_c
        blue = tl.load(x, inside, 0.0).to(tl.float32) - tl.load(y, inside, 0.0).to(tl.float32)
    return in_color(red, green, blue, COLOR)


@triton.jit
def read_weights(
    weight, row, column, stride_c, stride_h, stride_w, inside, HAS_WEIGHT: tl.constexpr, COLOR: tl.constexpr
):
    """The weights of the compared channels at any pixels of the image."""
    first, second, third = 1.0, 1.0, 1.0
    if HAS_WEIGHT:
        here = weight + row * stride_h + column * stride_w
        first = tl.load(here, inside, 0.0).to(tl.float32)
        second, third = first, first
        if COLOR == 2:
            second = tl.load(here + stride_c, inside, 0.0).to(tl.float32)
            third = tl.load(here + 2 * stride_c, inside, 0.0).to(tl.float32)
    return first, second, third


@triton.jit
def gain_of(edge_gain, number, GAIN: tl.constexpr):
    """0 without one, a number (GAIN 1) or what a tensor holds (2)."""
    gain = number
    if GAIN == 2:
        gain = tl.load(edge_gain).to(tl.float32)
    return gain


@triton.jit
def gained(gain, row, column, height, width, GAIN: tl.constexpr):
    """The factor of a difference."""
    factor = 1.0
    if GAIN != 0:
        factor = 1.0 + gain * (1.0 - border_ramp(row, height) * border_ramp(column, width))
    return factor


@triton.jit
def mean_weight(weight_means, index, HAS_MEANS: tl.constexpr):
    mean = 1.0
    if HAS_MEANS:
        mean = tl.load(weight_means + index).to(tl.float32)
    return mean


@triton.jit
def store_slopes(
    down,
    right,
    weight,
    factor,
    threshold,
    slopes,
    pixels,
    inside,
    KIND: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
):
    """The weighed penalties of both derivatives."""
    result_down, slope_down = penalty(down, threshold, KIND)
    result_right, slope_right = penalty(right, threshold, KIND)
    if HAS_DIRECTION:
        tl.store(slopes, factor * weight * slope_down, inside)
        tl.store(slopes + pixels, factor * weight * slope_right, inside)
    return tl.where(inside, weight * (result_down + result_right), 0.0)


@triton.jit
def transposed(slopes, row, column, height, width, pixels, inside, BLOCK: tl.constexpr):
    """What Sobel's slopes at the neighbours contribute to a pixel's gradient.

    A border that is repeated contributes to itself: the same again across a derivative, the opposite along
    it.
    """
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(9):
        if i != 4:
            beyond_row, beyond_column = row + (i // 3 - 1), column + (i % 3 - 1)
            near_row = tl.minimum(tl.maximum(beyond_row, 0), height - 1)
            near_column = tl.minimum(tl.maximum(beyond_column, 0), width - 1)
            here = slopes + near_row * width + near_column
            along_rows = (1 - i // 3) * (2 - (i % 3 - 1) * (i % 3 - 1)) * 0.125
            along_columns = (1 - i % 3) * (2 - (i // 3 - 1) * (i // 3 - 1)) * 0.125
            if i // 3 != 1:
                down = tl.load(here, inside, 0.0)
                total += along_rows * tl.where(beyond_row == near_row, down, -down)
            if i % 3 != 1:
                right = tl.load(here + pixels, inside, 0.0)
                total += along_columns * tl.where(beyond_column == near_column, right, -right)
    return total


@triton.jit
def variation(
    down, up, right, left, weight, weight_above, weight_left, has_below, has_above, has_right, has_left,
    threshold, factor_down, factor_right, KIND: tl.constexpr, HAS_DIRECTION: tl.constexpr,
):  # fmt: skip
    """The weighed penalties of the differences from the pixels below and on the right, and the gradient.

    `up` and `left` are the differences that the pixels above and on the left have from this one.
    """
    result_down, slope = penalty(down, threshold, KIND)
    gradient = -factor_down * tl.where(has_below, weight * slope, 0.0)
    result_right, slope = penalty(right, threshold, KIND)
    gradient -= factor_right * tl.where(has_right, weight * slope, 0.0)
    if HAS_DIRECTION:
        _, slope = penalty(up, threshold, KIND)
        gradient += factor_down * tl.where(has_above, weight_above * slope, 0.0)
        _, slope = penalty(left, threshold, KIND)
        gradient += factor_right * tl.where(has_left, weight_left * slope, 0.0)
    total_down = tl.where(has_below, weight * result_down, 0.0)
    total_right = tl.where(has_right, weight * result_right, 0.0)
    return total_down, total_right, gradient
