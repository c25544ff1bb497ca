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
def source_of(row, height, PADDING: tl.constexpr):
    """`inside` of a row."""
    source, in_rows = inside(row, height, PADDING)
    if PADDING == VALID:  # rows beyond the border belong to no window
        source = tl.maximum(tl.minimum(row, height - 1), 0)
    return source, in_rows


@triton.jit
def load_at(
    x_row, y_row, column, distance: tl.constexpr, x_stride_w, y_stride_w, in_rows, width,
    PADDING: tl.constexpr, RADIUS: tl.constexpr,
):  # fmt: skip
    """M and d at a distance from the columns."""
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
    a, b = a.to(tl.float32), b.to(tl.float32)
    return 0.5 * (a + b), 0.5 * (a - b)


@triton.jit
def with_row(
    # Two of m and two of d in the left and in the right column, of SIZE windows each, slot k around row + k -
    # RADIUS: if TOGETHER is 1, the mean, and the variance times the weight of the window's rows so far; else
    # weighted sums of values, and of squares of differences from `near`.
    moments,
    near,  # of m and d; unused if TOGETHER is 1
    x, y, row, left, height, width, x_stride_h, y_stride_h, x_stride_w, y_stride_w,
    TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr, TOGETHER: tl.constexpr, PADDING: tl.constexpr,
    INDEX: tl.constexpr,
):  # fmt: skip
    """The moments after one more row, and this row's means around the left column.

    Mean squares would lose digits beside an edge: squares are those of differences from a number near the
    pixels. Some rows of a large window, whose outermost rows weigh little, share one (see `brought_near`). A
    row of another window has its own, one of its pixels, and the variance of the rows' means comes from their
    differences from the mean so far (Welford's update with weights: West, Communications of the ACM 1979).
    """
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    source, in_rows = source_of(row, height, PADDING)
    x += source.to(INDEX) * x_stride_h
    y += source.to(INDEX) * y_stride_h
    left = left.to(INDEX)
    nears = near, near
    if TOGETHER == 1:
        pixel = load_at(x, y, left, 0, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
        nears = pixel, pixel
        # A pixel without much of a window's weight may lie far from its mean, and is of no use to it.
        if RADIUS == 0 or TAPS[1 % SIZE] <= 0.05:
            beside = load_at(x, y, left, 1, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
            nears = pixel, beside
    filtered = zeros(8, left.shape[0])
    for k in tl.static_range(SIZE + 1):
        m_and_d = load_at(x, y, left, k - RADIUS, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
        summed: tl.tuple = ()
        for j in tl.static_range(2):
            if k - j >= 0 and k - j < SIZE:
                # The difference of nearly equal pixels is exact.
                m, d = m_and_d[0] - nears[j][0], m_and_d[1] - nears[j][1]
                terms = m, d, m * m, d * d
                for i in tl.static_range(4):
                    summed += (filtered[4 * j + i] + TAPS[(k - j - RADIUS) % SIZE] * terms[i],)
            else:
                summed += filtered[4 * j : 4 * j + 4]
        filtered = summed
    added: tl.tuple = ()
    means_of_row: tl.tuple = ()
    for j in tl.static_range(2):
        firsts: tl.tuple = ()
        seconds: tl.tuple = ()
        for i in tl.static_range(2):
            of_row, square_of_row = filtered[4 * j + i], filtered[4 * j + 2 + i]
            mean = nears[j][i] + of_row
            means_of_row += (mean,)
            variance = square_of_row - of_row * of_row
            for k in tl.static_range(SIZE):
                first, second = moments[(4 * j + i) * SIZE + k], moments[(4 * j + 2 + i) * SIZE + k]
                if TOGETHER > 1:
                    firsts += (first + TAPS[(k - RADIUS) % SIZE] * mean,)
                    seconds += (second + TAPS[(k - RADIUS) % SIZE] * square_of_row,)
                elif ROW_WEIGHTS[k] == 1.0:  # the window's first row
                    firsts += (mean,)
                    seconds += (second + TAPS[(k - RADIUS) % SIZE] * variance,)
                else:
                    difference = mean - first
                    firsts += (first + ROW_WEIGHTS[k] * difference,)
                    square = (1.0 - ROW_WEIGHTS[k]) * difference * difference
                    seconds += (second + TAPS[(k - RADIUS) % SIZE] * (variance + square),)
        added += firsts + seconds
    return added, means_of_row[:2]


@triton.jit
def brought_near(moments, old, new, TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr):
    """`with_row`'s sums, with squares of differences from `new` in place of `old`."""
    SIZE: tl.constexpr = len(TAPS)
    brought: tl.tuple = ()
    for i in tl.static_range(8 * SIZE):
        if i // SIZE % 4 < 2 or ROW_WEIGHTS[i % SIZE] == 1.0:
            brought += (moments[i],)
        else:
            before, after = old[i // SIZE % 2], new[i // SIZE % 2]
            # The weight of the rows that the window has before the next comes in.
            weight = TAPS[(i % SIZE - SIZE // 2) % SIZE] * (1.0 / ROW_WEIGHTS[i % SIZE] - 1.0)
            difference = moments[i - 2 * SIZE] - weight * (0.5 * (before + after))
            brought += (moments[i] + 2.0 * (before - after) * difference,)
    return brought


@triton.jit
def complete(moments, near, j: tl.constexpr, SIZE: tl.constexpr, TOGETHER: tl.constexpr):
    """Means and variances of m and d of the complete window in the left or right column."""
    m, d = moments[4 * j * SIZE], moments[(4 * j + 1) * SIZE]
    variance_m, variance_d = moments[(4 * j + 2) * SIZE], moments[(4 * j + 3) * SIZE]
    if TOGETHER > 1:
        variance_m -= (m - near[0]) * (m - near[0])
        variance_d -= (d - near[1]) * (d - near[1])
    return m, d, variance_m, variance_d


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
def begun(start, SIZE: tl.constexpr, LANES: tl.constexpr):
    """SIZE moments for each start."""
    moments: tl.tuple = ()
    for i in tl.static_range(len(start) * SIZE):
        moments += (tl.full([LANES], start[i // SIZE], tl.float32),)
    return moments


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


@triton.jit
def finite_or_zero(value):
    return tl.where(value - value == 0.0, value, 0.0)


@triton.jit
def reciprocal(value):
    """Of a number that is not negative, in two instructions. A division takes nine, most of them for numbers
    beyond 1e-38 and 1e38.
    """
    root = tl.rsqrt(tl.abs(value))  # rounding may have made it negative
    return root * root
