"""The moments of `ssim`'s windows, to which its kernel `sweep` adds one row of the images after another.

A window has two moments of m and two of d. Mean squares would lose digits beside an edge: what is squared is
the difference from a shift, a number near the pixels. ROWS_PER_SHIFT says which moments a window has:

- 1: a row has a shift of its own, one of its pixels. The moments are the mean, and the variance times the
  weight of the window's rows so far. The variance of the rows' means comes from their differences from the
  mean so far (Welford's update with weights: West, Communications of the ACM 1979). That takes five
  instructions for a row of a window.
- more: so many rows share a shift. The moments are weighted sums, of v and of (v - shift)^2. That takes two
  instructions, and two each time that the shift moves, from a to b: with the sum W of the weights w,
  sum w (v - b)^2 = sum w (v - a)^2 + 2 (a - b) (sum w v - W (a + b) / 2)
  (shifted data: Chan, Golub and LeVeque, The American Statistician 1983).

Moments are tuples: of each of a thread's two columns the first of m, that of d, the second of m and that of
d, each of SIZE windows. After row r was added, that in slot k is the window around row r + k - RADIUS.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels._windows import REFLECT, VALID, ZEROS, filled, inside, within


@triton.jit
def row_of(
    x, y, row, height, x_stride_h, y_stride_h, PADDING: tl.constexpr, INDEX: tl.constexpr
):  # fmt: skip
    """Where a row of the images begins, and whether there is one."""
    source, in_rows = inside(row, height, PADDING)
    if PADDING == VALID:  # rows beyond the border belong to no window
        source = tl.maximum(tl.minimum(row, height - 1), 0)
    return x + source.to(INDEX) * x_stride_h, y + source.to(INDEX) * y_stride_h, in_rows


@triton.jit
def load_at(
    x_row, y_row, in_rows, column, distance: tl.constexpr, width, x_stride_w, y_stride_w,
    RADIUS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """The values of m and d at a distance from the columns."""
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
    moments,
    shift,  # of m and d; unused if ROWS_PER_SHIFT is 1
    x, y, row, left, height, width, x_stride_h, y_stride_h, x_stride_w, y_stride_w,
    TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr, ROWS_PER_SHIFT: tl.constexpr, PADDING: tl.constexpr,
    INDEX: tl.constexpr,
):  # fmt: skip
    """The moments after one more row; and this row's means around the left column, if it has no shift of its
    own.
    """
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    x_row, y_row, in_rows = row_of(x, y, row, height, x_stride_h, y_stride_h, PADDING, INDEX)
    left = left.to(INDEX)
    shifts = shift, shift
    if ROWS_PER_SHIFT == 1:
        pixel = load_at(x_row, y_row, in_rows, left, 0, width, x_stride_w, y_stride_w, RADIUS, PADDING)
        shifts = pixel, pixel
        # A pixel without much of a window's weight may lie far from its mean, and is of no use to it.
        if RADIUS == 0 or TAPS[1 % SIZE] <= 0.05:
            beside = load_at(x_row, y_row, in_rows, left, 1, width, x_stride_w, y_stride_w, RADIUS, PADDING)
            shifts = pixel, beside
    filtered = filled((0.0,), 8, left.shape[0])
    for k in tl.static_range(SIZE + 1):
        loaded = load_at(
            x_row, y_row, in_rows, left, k - RADIUS, width, x_stride_w, y_stride_w, RADIUS, PADDING
        )  # fmt: skip
        summed: tl.tuple = ()
        for j in tl.static_range(2):
            if k - j >= 0 and k - j < SIZE:
                # The difference of nearly equal pixels is exact.
                m, d = loaded[0] - shifts[j][0], loaded[1] - shifts[j][1]
                terms = m, d, m * m, d * d
                for i in tl.static_range(4):
                    summed += (filtered[4 * j + i] + TAPS[(k - j - RADIUS) % SIZE] * terms[i],)
            else:
                summed += filtered[4 * j : 4 * j + 4]
        filtered = summed
    mean = shift
    if ROWS_PER_SHIFT == 1:
        added = with_means(moments, shifts, filtered, TAPS, ROW_WEIGHTS)
    else:
        added = with_sums(moments, shift, filtered, TAPS)
        mean = shift[0] + filtered[0], shift[1] + filtered[1]
    return added, mean


@triton.jit
def with_means(moments, shifts, filtered, TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr):
    """`with_row` of a row with shifts of its own."""
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    added: tl.tuple = ()
    for j in tl.static_range(2):
        means: tl.tuple = ()
        variances: tl.tuple = ()
        for i in tl.static_range(2):
            shifted, square = filtered[4 * j + i], filtered[4 * j + 2 + i]
            mean, variance = shifts[j][i] + shifted, square - shifted * shifted
            for k in tl.static_range(SIZE):
                before, so_far = moments[(4 * j + i) * SIZE + k], moments[(4 * j + 2 + i) * SIZE + k]
                if ROW_WEIGHTS[k] == 1.0:  # the window's first row
                    means += (mean,)
                    variances += (so_far + TAPS[(k - RADIUS) % SIZE] * variance,)
                else:
                    difference = mean - before
                    means += (before + ROW_WEIGHTS[k] * difference,)
                    of_means = (1.0 - ROW_WEIGHTS[k]) * difference * difference
                    variances += (so_far + TAPS[(k - RADIUS) % SIZE] * (variance + of_means),)
        added += means + variances
    return added


@triton.jit
def with_sums(moments, shift, filtered, TAPS: tl.constexpr):
    """`with_row` of one of the rows that share a shift."""
    SIZE: tl.constexpr = len(TAPS)
    added: tl.tuple = ()
    for i in tl.static_range(8 * SIZE):
        of_row = filtered[i // SIZE]
        if i // SIZE % 4 < 2:
            of_row += shift[i // SIZE % 2]
        added += (moments[i] + TAPS[(i % SIZE - SIZE // 2) % SIZE] * of_row,)
    return added


@triton.jit
def with_shift(sums, old, new, TAPS: tl.constexpr, ROW_WEIGHTS: tl.constexpr):
    """The sums with another shift."""
    SIZE: tl.constexpr = len(TAPS)
    moved: tl.tuple = ()
    for i in tl.static_range(8 * SIZE):
        if i // SIZE % 4 < 2 or ROW_WEIGHTS[i % SIZE] == 1.0:
            moved += (sums[i],)
        else:
            a, b = old[i // SIZE % 2], new[i // SIZE % 2]
            # Of the rows that the window has, from what the next one will be of them.
            weight = TAPS[(i % SIZE - SIZE // 2) % SIZE] * (1.0 / ROW_WEIGHTS[i % SIZE] - 1.0)
            moved += (sums[i] + 2.0 * (a - b) * (sums[i - 2 * SIZE] - weight * (0.5 * (a + b))),)
    return moved


@triton.jit
def complete(moments, shift, j: tl.constexpr, SIZE: tl.constexpr, ROWS_PER_SHIFT: tl.constexpr):
    """Means and variances of m and d of column j's complete window, that in slot 0."""
    m, d = moments[4 * j * SIZE], moments[(4 * j + 1) * SIZE]
    variance_m, variance_d = moments[(4 * j + 2) * SIZE], moments[(4 * j + 3) * SIZE]
    if ROWS_PER_SHIFT > 1:
        variance_m -= (m - shift[0]) * (m - shift[0])
        variance_d -= (d - shift[1]) * (d - shift[1])
    return m, d, variance_m, variance_d


@triton.jit
def usable(shift):
    """0 in place of a shift that is not finite or whose square would overflow: it would reach windows that do
    not contain its row.
    """
    return tl.where(tl.abs(shift) < 1e18, shift, 0.0)  # false for NaN, too


@triton.jit
def reciprocal(value):
    """Of a number that is not negative, with a relative error of at most 4e-7 (that of CUDA's rsqrt.approx is
    2^-22.9), in two instructions. A division takes nine, most of them for numbers beyond 1e-38 and 1e38.
    """
    root = tl.rsqrt(value)
    return root * root
