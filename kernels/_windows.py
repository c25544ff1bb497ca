"""What `ssim`'s kernels share: pixels beyond the border, windows' moments and sums, strips of columns."""

from __future__ import annotations

import triton
import triton.language as tl

VALID, ZEROS, REFLECT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # of the op's argument `padding`


@triton.jit
def within(index, size):
    """0 <= index < size, by one comparison."""
    return index.to(tl.uint32) < tl.full([], size, tl.int32).to(tl.uint32)


@triton.jit
def inside(index, size, PADDING: tl.constexpr):
    """The row or column that continues the image beyond its border, and whether there is one."""
    if PADDING == REFLECT:
        index = tl.where(index < 0, -index, index)
        index = tl.where(index >= size, 2 * (size - 1) - index, index)
    return index, within(index, size)


@triton.jit
def load_at(
    x_row, y_row, column, distance: tl.constexpr, x_stride_w, y_stride_w, in_rows, width,
    PADDING: tl.constexpr, RADIUS: tl.constexpr,
):  # fmt: skip
    """X and y at a distance from the columns."""
    if PADDING == REFLECT:
        place, exist = inside(column + distance, width, PADDING)
        a = tl.load(x_row + place * x_stride_w, in_rows & exist, 0.0)
        b = tl.load(y_row + place * y_stride_w, in_rows & exist, 0.0)
    else:
        x_place = x_row + column * x_stride_w + distance * x_stride_w
        y_place = y_row + column * y_stride_w + distance * y_stride_w
        if PADDING == ZEROS:
            exist = in_rows & within(column + distance, width)
            a, b = tl.load(x_place, exist, 0.0), tl.load(y_place, exist, 0.0)
        elif distance == -RADIUS or distance == RADIUS + 1:
            # Of a pair of columns with a window in one, only the outermost pixel may lie beyond the border.
            exist = column >= RADIUS if distance < 0 else column < width - distance
            a, b = tl.load(x_place, exist, 0.0), tl.load(y_place, exist, 0.0)
        else:
            a, b = tl.load(x_place), tl.load(y_place)
    return a.to(tl.float32), b.to(tl.float32)


@triton.jit
def with_row(
    # Of m and d in the left and in the right column, SIZE windows each: means, and variances that are not yet
    # divided by the weight of the window's rows.
    moments,
    x, y, row, left, height, width, x_stride_h, y_stride_h, x_stride_w, y_stride_w,
    TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr, PADDING: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The moments after one more row; slot k is the window around row + k - RADIUS.

    A window's variance is the mean of its rows' variances plus the variance of their means. A row's comes
    from differences from one of its pixels, that of the means from differences from the mean so far
    (Welford's update with weights: West, Communications of the ACM 1979). Mean squares would lose digits
    beside an edge.
    """
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    # A pixel without much of a window's weight may lie far from its mean, and is of no use to it.
    ONE_NEAR_BOTH: tl.constexpr = RADIUS > 0 and TAPS[1 % SIZE] > 0.05
    source, in_rows = inside(row, height, PADDING)
    if PADDING == VALID:  # rows beyond the border belong to no window
        source = tl.maximum(tl.minimum(row, height - 1), 0)
    x += source.to(INDEX) * x_stride_h
    y += source.to(INDEX) * y_stride_h
    left = left.to(INDEX)
    a, b = load_at(x, y, left, 0, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
    near = 0.5 * (a + b), 0.5 * (a - b)
    nears = near, near
    if not ONE_NEAR_BOTH:
        a, b = load_at(x, y, left, 1, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
        nears = near, (0.5 * (a + b), 0.5 * (a - b))
    filtered = zeros(8, left.shape[0])
    for k in tl.static_range(SIZE + 1):
        a, b = load_at(x, y, left, k - RADIUS, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
        summed: tl.tuple = ()
        for j in tl.static_range(2):
            if k - j >= 0 and k - j < SIZE:
                # The difference of nearly equal pixels is exact.
                m, d = 0.5 * (a + b) - nears[j][0], 0.5 * (a - b) - nears[j][1]
                terms = m, d, m * m, d * d
                for i in tl.static_range(4):
                    summed += (filtered[4 * j + i] + TAPS[(k - j - RADIUS) % SIZE] * terms[i],)
            else:
                summed += filtered[4 * j : 4 * j + 4]
        filtered = summed
    added: tl.tuple = ()
    for j in tl.static_range(2):
        means: tl.tuple = ()
        variances: tl.tuple = ()
        for i in tl.static_range(2):
            of_row, square_of_row = filtered[4 * j + i], filtered[4 * j + 2 + i]
            mean, variance = nears[j][i] + of_row, square_of_row - of_row * of_row
            for k in tl.static_range(SIZE):
                before, so_far = moments[(4 * j + i) * SIZE + k], moments[(4 * j + 2 + i) * SIZE + k]
                if ROW_WEIGHTS[k] == 1.0:  # the window's first row
                    means += (mean,)
                    variances += (so_far + TAPS[(k - RADIUS) % SIZE] * variance,)
                else:
                    difference = mean - before
                    means += (before + ROW_WEIGHTS[k] * difference,)
                    square = (1.0 - ROW_WEIGHTS[k]) * difference * difference
                    variances += (so_far + TAPS[(k - RADIUS) % SIZE] * (variance + square),)
        added += means + variances
    return added


@triton.jit
def load_halves(x, y, exist):
    """M and d, 0 where there is no pixel."""
    a, b = 0.5 * tl.load(x, exist, 0.0).to(tl.float32), 0.5 * tl.load(y, exist, 0.0).to(tl.float32)
    return a + b, a - b


@triton.jit
def zeros(COUNT: tl.constexpr, COLUMNS: tl.constexpr):
    sums: tl.tuple = ()
    for _ in tl.static_range(COUNT):
        sums += (tl.zeros([COLUMNS], tl.float32),)
    return sums


@triton.jit
def moved_up(sums, SIZE: tl.constexpr, LANES: tl.constexpr, start=(0.0,)):
    """Without the first of each SIZE sums, whose window is complete; those behind them begin at `start`."""
    moved: tl.tuple = ()
    for i in tl.static_range(len(sums)):
        if i % SIZE == SIZE - 1:
            moved += (tl.full([LANES], start[i // SIZE % len(start)], tl.float32),)
        else:
            moved += (sums[i + 1],)
    return moved


@triton.jit
def mirrored_tap(index, other, size, TAPS: tl.constexpr, EXPONENT: tl.constexpr):
    """The tap with which a window at `other` contains mirror images of the pixel at `index`."""
    above = (index + other).to(tl.float32)
    below = (2 * (size - 1) - index - other).to(tl.float32)
    has_above = (index >= 1) & (above >= 0.0) & (above <= len(TAPS) // 2)
    has_below = (index <= size - 2) & (below >= 0.0) & (below <= len(TAPS) // 2)
    tap = tl.where(has_above, TAPS[0] * tl.exp(EXPONENT * above * above), 0.0)
    return tap + tl.where(has_below, TAPS[0] * tl.exp(EXPONENT * below * below), 0.0)


@triton.jit
def strip(channels, bands, blocks, rows, COLUMNS: tl.constexpr):
    """The program's image, channel, first row and first column."""
    program = tl.program_id(0)
    plane, part = program // (bands * blocks), program % (bands * blocks)
    return (
        plane,
        (plane // channels).to(tl.int64),
        (plane % channels).to(tl.int64),
        part // blocks * rows,
        part % blocks * COLUMNS,
    )
