"""What the launches of `fastgan.kernels.upfirdn2d` run, which tells of the ways to go through taps."""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels.blur import in_range


@triton.jit
def after_filter(
    value, place, exists, codes, slope, act_gain, limit, MODE: tl.constexpr, HAS_CODES: tl.constexpr
):
    """The value itself, its activation, whose code is stored, or its product with a code's factor."""
    if MODE == 1:
        # With slope 0, minus infinity gives 0 as any negative number does, not 0 times infinity.
        negative = tl.where((slope == 0.0) & (value == float("-inf")), 0.0, slope * value)
        scaled = act_gain * tl.where(value > 0.0, value, negative)
        beyond = (scaled < -limit) | (scaled > limit)
        if HAS_CODES:
            code = tl.where(beyond, 2, tl.where(value > 0.0, 1, 0))
            tl.store(codes + place, tl.where(value == value, code, 3).to(tl.uint8), exists)
        value = tl.where(scaled < -limit, -limit, tl.where(scaled > limit, limit, scaled))
    if MODE == 2:
        code = tl.load(codes + place, exists, 0)
        factor = tl.where(code == 2, 0.0, tl.where(code == 1, act_gain, act_gain * slope))
        value *= tl.where(code == 3, float("nan"), factor)
    return value


@triton.jit
def pixels(pointers, bias, exist, HAS_BIAS: tl.constexpr):
    """Pixels with their channel's bias, and zeros where there are none."""
    values = tl.load(pointers, exist, 0.0).to(tl.float32)
    return tl.where(exist, values + bias, 0.0) if HAS_BIAS else values


@triton.jit
def place_of(index, out_w, groups, channels, b, planes, HAS_BIAS: tl.constexpr):
    """A thread's plane, number of its group of rows, and column; whether they exist; its channel's bias."""
    column = (index % out_w).to(tl.int32)
    group = (index // out_w % groups).to(tl.int32)
    plane = (index // out_w // groups).to(tl.int64)
    exists = plane < planes
    bias = 0.0
    if HAS_BIAS:
        bias = tl.load(b + plane % channels, exists, 0.0).to(tl.float32)
    return plane, group, column, exists, bias


@triton.jit
def along_x(column, pad_x, lift_x, UP: tl.constexpr, DOWN: tl.constexpr):
    """A column's first tap, and the first pixel that it reads. `lift_x` pixels make positions positive."""
    position = (column * DOWN - pad_x + lift_x * UP).to(tl.int32)
    tap = (UP - position % UP) % UP
    return tap, ((position + tap) // UP - lift_x).to(tl.int32)


@triton.jit
def written_out(
    x,  # [planes, in_h, in_w]
    b,  # [channels]; not touched unless HAS_BIAS
    f,  # [TAPS_Y, TAPS_X], or [TAPS_X] if SEPARABLE
    codes,  # uint8, like y; touched according to MODE
    y,  # [planes, out_h, out_w]
    planes,
    channels,
    in_h,
    in_w,
    out_h,
    out_w,
    groups,  # of ROWS rows
    pad_x,
    lift_x,
    pad_rows,  # whole rows of the source that padding adds
    gain,
    slope,
    act_gain,
    limit,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    TAPS_Y: tl.constexpr,
    PHASE: tl.constexpr,  # padding along y beyond whole rows of the source
    REACH: tl.constexpr,  # rows of the source that a thread reads
    SEPARABLE: tl.constexpr,
    TURNED: tl.constexpr,  # whether the last tap meets the first pixel, as in a convolution
    MODE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CODES: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    COLUMNS: tl.constexpr = (TAPS_X + UP_X - 1) // UP_X  # taps along x that meet pixels
    WEIGHTS: tl.constexpr = 1 if SEPARABLE else TAPS_Y
    index = tl.program_id(0).to(INDEX) * LANES + tl.arange(0, LANES)
    plane, group, column, exists, bias = place_of(index, out_w, groups, channels, b, planes, HAS_BIAS)
    tap, first = along_x(column, pad_x, lift_x, UP_X, DOWN_X)

    weights: tl.tuple = ()  # along x, of each row of taps
    for row in tl.static_range(WEIGHTS):
        for j in tl.static_range(COLUMNS):
            k = tap + j * UP_X
            at = row * TAPS_X + k
            if TURNED:
                at = WEIGHTS * TAPS_X - 1 - at
            weights += (tl.load(f + at, k < TAPS_X, 0.0).to(tl.float32),)
    heights: tl.tuple = ()  # along y
    for k in tl.static_range(TAPS_Y if SEPARABLE else 0):
        heights += (tl.load(f + (TAPS_Y - 1 - k if TURNED else k)).to(tl.float32),)

    totals: tl.tuple = ()
    for _ in tl.static_range(ROWS):
        totals += (tl.zeros([LANES], tl.float32),)
    top = (group * (ROWS * DOWN_Y // UP_Y) - pad_rows).to(tl.int32)
    line = x + (plane * in_h + top) * in_w + first
    for source in tl.static_range(REACH):
        in_row = exists & in_range(top + source, in_h)
        values: tl.tuple = ()
        for j in tl.static_range(COLUMNS):
            exist = in_row & in_range(first + j, in_w)
            values += (pixels(line + j, bias, exist, HAS_BIAS),)
        along: tl.tuple = ()  # sums along x, of each row of taps
        for row in tl.static_range(WEIGHTS):
            total = weights[row * COLUMNS] * values[0]
            for j in tl.static_range(1, COLUMNS):
                total += weights[row * COLUMNS + j] * values[j]
            along += (total,)
        sums: tl.tuple = ()
        for target in tl.static_range(ROWS):
            # The tap with which that output reads this row.
            if (
                source * UP_Y + PHASE - target * DOWN_Y >= 0
                and source * UP_Y + PHASE - target * DOWN_Y < TAPS_Y
            ):
                if SEPARABLE:
                    sums += (totals[target] + heights[source * UP_Y + PHASE - target * DOWN_Y] * along[0],)
                else:
                    sums += (totals[target] + along[source * UP_Y + PHASE - target * DOWN_Y],)
            else:
                sums += (totals[target],)
        totals = sums
        line += in_w

    row = group * ROWS
    place = (plane * out_h + row) * out_w + column
    for target in tl.static_range(ROWS):
        inside = exists & (row < out_h - target)
        value = after_filter(
            gain * totals[target], place, inside, codes, slope, act_gain, limit, MODE, HAS_CODES
        )
        tl.store(y + place, value.to(y.dtype.element_ty), inside)
        place += out_w


@triton.jit
def row_by_row(
    x,
    b,
    f,  # [TAPS_X], along both axes
    codes,
    y,
    planes,
    channels,
    in_h,
    in_w,
    out_h,
    out_w,
    groups,
    pad_x,
    lift_x,
    pad_rows,
    gain,
    slope,
    act_gain,
    limit,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    TAPS_Y: tl.constexpr,
    PHASE: tl.constexpr,
    REACH: tl.constexpr,
    TURNED: tl.constexpr,
    MODE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CODES: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    COLUMNS: tl.constexpr = (TAPS_X + UP_X - 1) // UP_X
    index = tl.program_id(0).to(INDEX) * LANES + tl.arange(0, LANES)
    plane, group, column, exists, bias = place_of(index, out_w, groups, channels, b, planes, HAS_BIAS)
    tap, first = along_x(column, pad_x, lift_x, UP_X, DOWN_X)
    weights: tl.tuple = ()
    for j in tl.static_range(COLUMNS):
        k = tap + j * UP_X
        weights += (tl.load(f + (TAPS_X - 1 - k if TURNED else k), k < TAPS_X, 0.0).to(tl.float32),)
    targets = tl.arange(0, ROWS)[:, None]
    totals = tl.zeros([ROWS, LANES], tl.float32)
    top = (group * (ROWS * DOWN_Y // UP_Y) - pad_rows).to(tl.int32)
    line = x + (plane * in_h + top) * in_w + first
    for source in range(REACH):
        in_row = exists & in_range(top + source, in_h)
        along = tl.zeros([LANES], tl.float32)
        for j in tl.static_range(COLUMNS):
            exist = in_row & in_range(first + j, in_w)
            along += weights[j] * pixels(line + j, bias, exist, HAS_BIAS)
        number = source * UP_Y + PHASE - targets * DOWN_Y
        at = TAPS_Y - 1 - number if TURNED else number
        heights = tl.load(f + at, in_range(number, TAPS_Y), 0.0)
        totals += heights.to(tl.float32) * along[None, :]
        line += in_w

    row = group[None, :] * ROWS + targets
    inside = exists[None, :] & (row < out_h)
    place = (plane[None, :] * out_h + row) * out_w + column[None, :]
    value = after_filter(gain * totals, place, inside, codes, slope, act_gain, limit, MODE, HAS_CODES)
    tl.store(y + place, value.to(y.dtype.element_ty), inside)


@triton.jit
def tap_by_tap(
    x,
    b,
    f,
    codes,
    y,
    planes,
    channels,
    in_h,
    in_w,
    out_h,
    out_w,
    taps_x,
    taps_y,
    pad_x,
    pad_y,
    lift_x,
    lift_y,
    gain,
    slope,
    act_gain,
    limit,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    SEPARABLE: tl.constexpr,
    TURNED: tl.constexpr,
    MODE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CODES: tl.constexpr,
    INDEX: tl.constexpr,
    LANES: tl.constexpr,
):
    index = tl.program_id(0).to(INDEX) * LANES + tl.arange(0, LANES)
    plane, row, column, exists, bias = place_of(index, out_w, out_h, channels, b, planes, HAS_BIAS)
    tap_x, first_x = along_x(column, pad_x, lift_x, UP_X, DOWN_X)
    tap_y, first_y = along_x(row, pad_y, lift_y, UP_Y, DOWN_Y)
    line = x + (plane * in_h + first_y) * in_w + first_x
    total = tl.zeros([LANES], tl.float32)
    for i in range((taps_y + UP_Y - 1) // UP_Y):
        k_y = tap_y + i * UP_Y
        in_row = exists & (k_y < taps_y) & in_range((first_y + i).to(tl.int32), in_h)
        along = tl.zeros([LANES], tl.float32)
        for j in range((taps_x + UP_X - 1) // UP_X):
            k_x = tap_x + j * UP_X
            exist = in_row & (k_x < taps_x) & in_range((first_x + j).to(tl.int32), in_w)
            at = k_x
            if not SEPARABLE:
                at += k_y * taps_x
            if TURNED:
                at = (taps_x if SEPARABLE else taps_x * taps_y) - 1 - at
            weight = tl.load(f + at, exist, 0.0).to(tl.float32)
            along += weight * pixels(line + j, bias, exist, HAS_BIAS)
        if SEPARABLE:
            along *= tl.load(f + (taps_y - 1 - k_y if TURNED else k_y), in_row, 0.0).to(tl.float32)
        total += along
        line += in_w
    place = (plane * out_h + row) * out_w + column
    value = after_filter(gain * total, place, exists, codes, slope, act_gain, limit, MODE, HAS_CODES)
    tl.store(y + place, value.to(y.dtype.element_ty), exists)
