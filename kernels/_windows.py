"""What `ssim`'s kernels share: pixels beyond the border, sums of windows, strips of columns."""

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
    """Halves of x and y at a distance from the columns."""
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
    return 0.5 * a.to(tl.float32), 0.5 * b.to(tl.float32)


@triton.jit
def with_row(
    moments,  # means of m and d and their variances in the left and in the right column, SIZE windows each
    x, y, row, left, height, width, x_stride_h, y_stride_h, x_stride_w, y_stride_w,
    TAPS: tl.constexpr, SHARES: tl.constexpr, PADDING: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The moments with a row more, in slot k those of the window around row + k - RADIUS.

    Variances are sums of squares of differences within the window: along the row from one of its pixels, down
    the column from the mean of the rows above (Welford). Mean squares would lose digits beside an edge.
    """
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    source, in_rows = inside(row, height, PADDING)
    if PADDING == VALID:  # rows beyond the border belong to no window
        source = tl.maximum(tl.minimum(row, height - 1), 0)
    x += source.to(INDEX) * x_stride_h
    y += source.to(INDEX) * y_stride_h
    left = left.to(INDEX)
    a, b = load_at(x, y, left, 0, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
    near_x, near_y = a, b
    if RADIUS == 0:  # else it is in the right column's window, too
        near_x, near_y = finite_or_zero(a), finite_or_zero(b)
    filtered = zeros(8, left.shape[0])
    for k in tl.static_range(SIZE + 1):
        a, b = load_at(x, y, left, k - RADIUS, x_stride_w, y_stride_w, in_rows, width, PADDING, RADIUS)
        a, b = a - near_x, b - near_y
        m, d = a + b, a - b
        terms = m, d, m * m, d * d
        summed: tl.tuple = ()
        for i in tl.static_range(8):
            if k - i // 4 >= 0 and k - i // 4 < SIZE:
                summed += (filtered[i] + TAPS[(k - i // 4 - RADIUS) % SIZE] * terms[i % 4],)
            else:
                summed += (filtered[i],)
        filtered = summed
    near = near_x + near_y, near_x - near_y
    means: tl.tuple = ()
    variances: tl.tuple = ()
    for j in tl.static_range(4):
        of_row, square_of_row = filtered[j + j // 2 * 2], filtered[j + j // 2 * 2 + 2]
        mean, variance = near[j % 2] + of_row, square_of_row - of_row * of_row
        for k in tl.static_range(SIZE):
            before, squares = moments[(j + j // 2 * 2) * SIZE + k], moments[(j + j // 2 * 2 + 2) * SIZE + k]
            if SHARES[k] == 1.0:  # the window's first row
                means += (mean,)
                variances += (squares + TAPS[(k - RADIUS) % SIZE] * variance,)
            else:
                difference = mean - before
                means += (before + SHARES[k] * difference,)
                square = (1.0 - SHARES[k]) * difference * difference
                variances += (squares + TAPS[(k - RADIUS) % SIZE] * (variance + square),)
    HALF: tl.constexpr = 2 * SIZE
    return means[:HALF] + variances[:HALF] + means[HALF:] + variances[HALF:]


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
def finite_or_zero(value):
    return tl.where(value - value == 0.0, value, 0.0)


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
