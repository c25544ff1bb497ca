"""Triton kernels of `fastgan.ops.pixel_loss`, which documents the formulas.

`sweep` reads x and y once and writes the gradient (if wanted) and partial sums of each program; `finish` adds
these in a fixed order, so the same input gives the same bits. Sobel's derivatives come from a launch of their
own before it, `sobel`, which writes their slopes: their transpose in `sweep` reads those of neighbours.

In RGB a program processes pixels of one channel, else of all three.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels import _pixels
from fastgan.kernels._pixel_sobel import program_of, sobel
from fastgan.kernels._pixel_terms import (
    difference,
    gain_of,
    gained,
    in_color,
    mean_weight,
    penalty,
    read_weights,
    transposed,
    variation,
)
from fastgan.kernels._pixels import place, walk
from fastgan.reference.pixel_loss import COLORS, KINDS

# Chosen by arithmetic, not yet by measurement: 16 bytes of each channel per thread, with at most 64
# registers.
WARPS = 8
THREADS = 32 * WARPS
# Of one channel without neighbours twice as much, for fewer partial sums; with the neighbours of three
# channels, or Sobel's, a quarter, since four pixels would take 255 registers.
ALONE, NEIGHBOURS = 2 * THREADS, THREADS // 4
# Partial sums that `finish` adds at once.
BLOCK = 1024


@triton.jit
def sweep(
    x,  # N C H W, any strides
    y,  # likewise; not touched unless HAS_Y
    weight,  # N K H W, any strides; not touched unless HAS_WEIGHT
    direction,  # like x; not touched unless HAS_DIRECTION
    slopes,  # [N, K, 2, H, W] float32, of `sobel`; not touched unless HAS_SLOPES
    partial_sums,  # [programs, 4] float32, of which the second is not written
    edge_gain,  # 0-d; not touched unless GAIN is 2
    weight_means,  # [3]; not touched unless HAS_MEANS
    edge_gain_number,
    threshold,
    tv_threshold,
    scale_y,
    scale_u,
    scale_v,
    factor,
    factor_down,
    factor_right,
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
    d_stride_n,
    d_stride_c,
    d_stride_h,
    d_stride_w,
    KIND: tl.constexpr,
    TV_KIND: tl.constexpr,
    COLOR: tl.constexpr,
    GAIN: tl.constexpr,
    HAS_Y: tl.constexpr,
    HAS_TV: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_MEANS: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    FLAT: tl.constexpr,
    X_LINE: tl.constexpr,
    Y_LINE: tl.constexpr,
    D_LINE: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 if N * H * W and the strides allow
    BLOCK: tl.constexpr,
):
    image, channel, plane, first = program_of(parts, channels, INDEX, BLOCK)
    pixel = first + tl.arange(0, BLOCK)
    inside = pixel < pixels
    row, column = tl.minimum(pixel // width, height - 1), pixel % width
    x += image * x_stride_n + channel * x_stride_c
    y += image * y_stride_n + channel * y_stride_c
    weight += image * w_stride_n + channel * w_stride_c
    partial_sums += tl.program_id(0) * 4
    weight0, weight1, weight2 = 1.0, 1.0, 1.0
    if HAS_WEIGHT:
        weight0, weight1, weight2 = read_weights(
            weight, row, column, w_stride_c, w_stride_h, w_stride_w, inside, True, COLOR
        )
    total = tl.zeros([BLOCK], tl.float32)
    gradient0, gradient1, gradient2 = total, total, total

    if HAS_Y:
        if COLOR == 0:
            value0 = tl.load(x + place(pixel, width, x_stride_h, x_stride_w, FLAT), inside, 0.0).to(
                tl.float32
            )
            value0 -= tl.load(y + place(pixel, width, y_stride_h, y_stride_w, FLAT), inside, 0.0).to(
                tl.float32
            )
            value1, value2 = value0, value0
        else:
            red, green, blue = _pixels.load(
                x, first, pixels, width, x_stride_c, x_stride_h, x_stride_w, inside, FLAT, X_LINE, BLOCK
            )
            red_y, green_y, blue_y = _pixels.load(
                y, first, pixels, width, y_stride_c, y_stride_h, y_stride_w, inside, FLAT, Y_LINE, BLOCK
            )
            value0, value1, value2 = in_color(red - red_y, green - green_y, blue - blue_y, COLOR)
        edge = gained(gain_of(edge_gain, edge_gain_number, GAIN), row, column, height, width, GAIN)
        factor /= mean_weight(weight_means, 0, HAS_MEANS)
        result, slope = penalty(edge * value0, threshold, KIND)
        total = weight0 * scale_y * result
        gradient0 = factor * weight0 * scale_y * slope
        if COLOR == 2:
            result, slope = penalty(edge * value1, threshold, KIND)
            total += weight1 * scale_u * result
            gradient1 = factor * weight1 * scale_u * slope
            result, slope = penalty(edge * value2, threshold, KIND)
            total += weight2 * scale_v * result
            gradient2 = factor * weight2 * scale_v * slope
        if HAS_SLOPES:
            outputs: tl.constexpr = 3 if COLOR == 2 else 1
            slopes += plane * (outputs * 2) * pixels
            gradient0 += transposed(slopes, row, column, height, width, pixels, inside, BLOCK)
            if COLOR == 2:
                slopes += pixels + pixels
                gradient1 += transposed(slopes, row, column, height, width, pixels, inside, BLOCK)
                slopes += pixels + pixels
                gradient2 += transposed(slopes, row, column, height, width, pixels, inside, BLOCK)
        gradient0 *= edge
        gradient1 *= edge
        gradient2 *= edge
    tl.store(partial_sums, tl.sum(tl.where(inside, total, 0.0)))

    if HAS_TV:
        factor_down /= mean_weight(weight_means, 1, HAS_MEANS)
        factor_right /= mean_weight(weight_means, 2, HAS_MEANS)
        above, below = tl.maximum(row - 1, 0), tl.minimum(row + 1, height - 1)
        left, right = tl.maximum(column - 1, 0), tl.minimum(column + 1, width - 1)
        has_below, has_above = inside & (row + 1 < height), inside & (row > 0)
        has_right, has_left = inside & (column + 1 < width), inside & (column > 0)
        here = x + row * x_stride_h + column * x_stride_w
        there = x + below * x_stride_h + column * x_stride_w
        down0, down1, down2 = difference(there, here, x_stride_c, x_stride_c, inside, COLOR)
        there = x + row * x_stride_h + right * x_stride_w
        right0, right1, right2 = difference(there, here, x_stride_c, x_stride_c, inside, COLOR)
        over0, over1, over2, left0, left1, left2 = down0, down1, down2, right0, right1, right2
        up0, up1, up2, back0, back1, back2 = weight0, weight1, weight2, weight0, weight1, weight2
        if HAS_DIRECTION:
            there = x + above * x_stride_h + column * x_stride_w
            over0, over1, over2 = difference(here, there, x_stride_c, x_stride_c, inside, COLOR)
            there = x + row * x_stride_h + left * x_stride_w
            left0, left1, left2 = difference(here, there, x_stride_c, x_stride_c, inside, COLOR)
            if HAS_WEIGHT:
                up0, up1, up2 = read_weights(
                    weight, above, column, w_stride_c, w_stride_h, w_stride_w, inside, True, COLOR
                )
                back0, back1, back2 = read_weights(
                    weight, row, left, w_stride_c, w_stride_h, w_stride_w, inside, True, COLOR
                )
        total_down, total_right, gradient = variation(
            down0, over0, right0, left0, weight0, up0, back0, has_below, has_above, has_right,
            has_left, tv_threshold, factor_down, factor_right, TV_KIND, HAS_DIRECTION,
        )  # fmt: skip
        total_down, total_right = scale_y * total_down, scale_y * total_right
        gradient0 += scale_y * gradient
        if COLOR == 2:
            of_rows, of_columns, gradient = variation(
                down1, over1, right1, left1, weight1, up1, back1, has_below, has_above, has_right,
                has_left, tv_threshold, factor_down, factor_right, TV_KIND, HAS_DIRECTION,
            )  # fmt: skip
            total_down, total_right = total_down + scale_u * of_rows, total_right + scale_u * of_columns
            gradient1 += scale_u * gradient
            of_rows, of_columns, gradient = variation(
                down2, over2, right2, left2, weight2, up2, back2, has_below, has_above, has_right,
                has_left, tv_threshold, factor_down, factor_right, TV_KIND, HAS_DIRECTION,
            )  # fmt: skip
            total_down, total_right = total_down + scale_v * of_rows, total_right + scale_v * of_columns
            gradient2 += scale_v * gradient
        tl.store(partial_sums + 2, tl.sum(total_down))
        tl.store(partial_sums + 3, tl.sum(total_right))

    if HAS_DIRECTION:
        direction += image * d_stride_n + channel * d_stride_c
        if COLOR == 0:
            there = direction + place(pixel, width, d_stride_h, d_stride_w, FLAT)
            tl.store(there, gradient0.to(direction.dtype.element_ty), inside)
        else:
            red, green, blue = 0.299 * gradient0, 0.587 * gradient0, 0.114 * gradient0
            if COLOR == 2:
                red += -0.14713 * gradient1 + 0.615 * gradient2
                green += -0.28886 * gradient1 - 0.51499 * gradient2
                blue += 0.436 * gradient1 - 0.10001 * gradient2
            _pixels.store(
                direction, red, green, blue, first, pixels, width, d_stride_c, d_stride_h, d_stride_w, inside,
                FLAT, D_LINE, BLOCK,
            )  # fmt: skip


@triton.jit
def finish(
    partial_sums,  # [programs, 4] float32
    parts,  # [3] float32
    loss,  # 0-d float32
    weight_means,  # [3]; not touched unless HAS_MEANS
    share,  # one divided by the number of pixels
    share_down,  # and by those of neighbours
    share_right,
    sobel_weight,
    tv_weight,
    loss_weight,
    programs,
    HAS_MEANS: tl.constexpr,
    HAS_SOBEL: tl.constexpr,
    HAS_TV: tl.constexpr,
    BLOCK: tl.constexpr,
):
    lane = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float64)
    sums_sobel = tl.zeros([BLOCK], tl.float64)
    sums_down = tl.zeros([BLOCK], tl.float64)
    sums_right = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, programs, BLOCK):
        here = partial_sums + (begin + lane) * 4
        inside = begin + lane < programs
        sums += tl.load(here, inside, 0.0).to(tl.float64)
        if HAS_SOBEL:
            sums_sobel += tl.load(here + 1, inside, 0.0).to(tl.float64)
        if HAS_TV:
            sums_down += tl.load(here + 2, inside, 0.0).to(tl.float64)
            sums_right += tl.load(here + 3, inside, 0.0).to(tl.float64)
    share /= mean_weight(weight_means, 0, HAS_MEANS)
    pixel_part = tl.sum(sums).to(tl.float32) * share
    sobel_part = tl.sum(sums_sobel).to(tl.float32) * share
    tv_part = 0.0
    if HAS_TV:
        tv_part = tl.sum(sums_down).to(tl.float32) * (share_down / mean_weight(weight_means, 1, HAS_MEANS))
        tv_part += tl.sum(sums_right).to(tl.float32) * (share_right / mean_weight(weight_means, 2, HAS_MEANS))
    tl.store(parts, pixel_part)
    tl.store(parts + 1, sobel_part)
    tl.store(parts + 2, tv_part)
    tl.store(loss, loss_weight * (pixel_part + sobel_weight * sobel_part + tv_weight * tv_part))


def pixel_loss(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    edge_gain: Tensor | None,
    weight_means: Tensor | None,
    edge_gain_number: float,
    kind: int,
    tv_kind: int,
    color: int,
    eps: float,
    delta: float,
    scale_y: float,
    scale_u: float,
    scale_v: float,
    sobel_weight: float,
    tv_weight: float,
    loss_weight: float,
    mean: bool,
    direction_sign: int,
    direction_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss 0-d, parts (3,), direction like x or empty), all on x's device and current stream."""
    batch, of_image, height, width = x.shape
    is_rgb, has_sobel, has_tv = COLORS[color] == "rgb", y is not None and sobel_weight != 0, tv_weight != 0
    counted = batch * (of_image if is_rgb else 1)
    share = 1 / (counted * height * width) if mean else 1.0
    # A direction without neighbours has a sum of 0.
    share_down = 1 / (counted * max(height - 1, 1) * width) if mean else 1.0
    share_right = 1 / (counted * height * max(width - 1, 1)) if mean else 1.0
    if COLORS[color] != "yuv":
        scale_y = scale_u = scale_v = 1.0
    gain = 2 if edge_gain is not None else int(edge_gain_number != 0)
    if y is None:
        gain = 0
    has_direction = direction_dtype is not None
    loss, parts = x.new_empty((), dtype=torch.float32), x.new_empty(3, dtype=torch.float32)
    saved = (
        torch.empty_like(x, dtype=direction_dtype) if has_direction else x.new_empty(0, dtype=torch.float32)
    )
    other, direction = x if y is None else y, saved if has_direction else x
    if is_rgb and y is not None and weight is None and not (gain or has_sobel or has_tv):
        x, other, direction = _as_numbers(x, y, direction)
        batch, of_image, height, width = x.shape
    images = [x, other, direction]
    if has_sobel or (has_tv and not is_rgb):
        threads = NEIGHBOURS
    else:
        threads = ALONE if is_rgb and not has_tv else THREADS
    plan = walk(threads, *images)
    channels = of_image if is_rgb else 1
    programs = batch * channels * plan.parts
    partial_sums = x.new_empty((programs, 4), dtype=torch.float32)
    outputs = 3 if COLORS[color] == "yuv" else channels
    has_slopes = has_sobel and has_direction
    slopes = x.new_empty((batch, outputs, 2, height, width) if has_slopes else 0, dtype=torch.float32)
    factors = [
        loss_weight * number * (-1 if direction_sign < 0 else 1) for number in (1, sobel_weight, tv_weight)
    ]
    thresholds = [delta if KINDS[of] == "huber" else eps for of in (kind, tv_kind)]
    weights = x if weight is None else weight
    shape = height, width, height * width, plan.parts, channels
    tensors = (x if edge_gain is None else edge_gain, x if weight_means is None else weight_means)
    options = dict(
        KIND=kind, COLOR=color, GAIN=gain, HAS_WEIGHT=weight is not None, HAS_MEANS=weight_means is not None,
        HAS_DIRECTION=has_direction, INDEX=plan.index, BLOCK=plan.block, num_warps=WARPS,
    )  # fmt: skip
    with torch.cuda.device_of(x):
        if has_sobel:
            sobel[(programs,)](
                x, other, weights, slopes, partial_sums, *tensors, edge_gain_number, thresholds[0],
                scale_y, scale_u, scale_v, factors[1] * share, *shape,
                *x.stride(), *other.stride(), *weights.stride(), **options,
            )  # fmt: skip
        sweep[(programs,)](
            x, other, weights, direction, slopes, partial_sums, *tensors, edge_gain_number, *thresholds,
            scale_y, scale_u, scale_v, factors[0] * share, factors[2] * share_down, factors[2] * share_right,
            *shape,
            *x.stride(), *other.stride(), *weights.stride(), *direction.stride(), **options,
            TV_KIND=tv_kind, HAS_Y=y is not None, HAS_TV=has_tv, HAS_SLOPES=has_slopes, FLAT=plan.flat,
            **{
                name: 0 if threads == NEIGHBOURS else plan.line(image)
                for name, image in zip(("X_LINE", "Y_LINE", "D_LINE"), images, strict=True)
            },
        )  # fmt: skip
        finish[(1,)](
            partial_sums, parts, loss, tensors[1], share, share_down, share_right, sobel_weight, tv_weight,
            loss_weight, programs, HAS_MEANS=weight_means is not None, HAS_SOBEL=has_sobel, HAS_TV=has_tv,
            BLOCK=BLOCK,
        )  # fmt: skip
    return loss, parts, saved


def _as_numbers(*images: Tensor) -> list[Tensor]:
    """Images whose elements all count the same, as rows of numbers if they fill memory in the same order."""
    strides = images[0].stride()
    if any(image.stride() != strides for image in images) or torch.empty_like(images[0]).stride() != strides:
        return list(images)
    count = images[0].numel()
    return [image.as_strided((1, 1, 1, count), (count, count, count, 1)) for image in images]
