"""The backward kernel of `perspective_warp`: each pixel of the image sums what the output pixels got that
looked at it. No atomics, and one order of each sum.

A thread has 2 x 2 pixels of the image, which share what is computed of an output pixel. It looks for output
pixels where the inverse homography sends its own, in a window as large as any thread of the program needs,
and weighs those it finds there by `shifts`, as the forward kernel does: a window too large costs time alone.
Programs for whose pixels no window is certain, because the inverse sends some to infinity or does not exist,
look through all output pixels, which may take many times as long; those whose window would cost more than
that, or whose sum is not finite, through the rows that it reaches.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels._homography import coefficients, is_nan, shifts

# Chosen by arithmetic, not yet by measurement: 2 x 2 pixels a thread. With two of these, 128 registers.
ROWS, COLUMNS = 8, 16
GATHER_WARPS = 4
# Where columns are no neighbours, for which Triton 3.8 takes 128; where they are it takes 64 by itself.
MAX_REGISTERS = 96
# How far float32 may be off, of the sum of what is added up without signs: over 20 roundings.
ROUNDING = tl.constexpr(2.0**-19)
# Output pixels that are looked through together.
CHUNK = tl.constexpr(1024)
# Output pixels of a row of the window at once; few warps need more.
FOUR = tl.constexpr(4)


@triton.jit
def adjugate(m00, m01, m02, m10, m11, m12, m20, m21, m22):
    """The inverse, but for a factor, which homographies do without."""
    return (
        m11 * m22 - m12 * m21, m02 * m21 - m01 * m22, m01 * m12 - m02 * m11,
        m12 * m20 - m10 * m22, m00 * m22 - m02 * m20, m02 * m10 - m00 * m12,
        m10 * m21 - m11 * m20, m01 * m20 - m00 * m21, m00 * m11 - m01 * m10,
    )  # fmt: skip


@triton.jit
def bounds(m, width, height):
    """What the adjugate's entries would be without signs, and more: `shifts` is rounded relative to it."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    m20, m21, m22 = tl.abs(m20), tl.abs(m21), tl.abs(m22)
    largest_scale = m22 + (m20 * width + m21 * height)
    m00, m01, m02 = tl.abs(m00) + largest_scale, tl.abs(m01), tl.abs(m02)
    m10, m11, m12 = tl.abs(m10), tl.abs(m11) + largest_scale, tl.abs(m12)
    return (
        m11 * m22 + m12 * m21, m02 * m21 + m01 * m22, m01 * m12 + m02 * m11,
        m12 * m20 + m10 * m22, m00 * m22 + m02 * m20, m02 * m10 + m00 * m12,
        m10 * m21 + m11 * m20, m01 * m20 + m00 * m21, m00 * m11 + m01 * m10,
    )  # fmt: skip


@triton.jit
def reach(g0, g1, g2, p0, p1, p2, g20, g21, u, v, half_u, half_v, per_scale, per_near, doubt):
    """Along one axis of the output: where pixel (u, v) of the image comes to lie; how far from there output
    pixels are that look at the rectangle around it, and how far those that look at 2 x 2 of its pixels are
    from the middle of these: infinitely, where that is uncertain. And the slopes in (u, v), times the scale.

    The inverse's scale is 1 / `per_scale` at (u, v), at least 1 / `per_near` in the rectangle, and errs by
    `doubt`.
    """
    place = (g0 * u + (g1 * v + g2)) * per_scale
    slope_u, slope_v = g0 - place * g20, g1 - place * g21
    # Quotients differ by what their numerators do, less the denominators' difference times one quotient, over
    # the other's denominator.
    spread = (tl.abs(slope_u) * half_u + tl.abs(slope_v) * half_v) * per_near
    steepest = tl.abs(slope_u) + tl.abs(slope_v) + spread * (tl.abs(g20) + tl.abs(g21))
    # 1.5: half a pixel to each of the four, one to the end of its weight.
    half = 1.5 * steepest * per_near
    error = ROUNDING * (p0 * (u + half_u) + p1 * (v + half_v) + p2) + (tl.abs(place) + spread) * doubt
    error *= per_near
    half = tl.where(error <= 1.0 + half, half + error, float("inf"))
    return place, spread + half, half, slope_u, slope_v


@triton.jit
def counted(reach, size):
    """How many whole numbers at most lie within `reach` of any number, and in [0, size)."""
    return tl.minimum(2.0 * reach, size - 1.0).to(tl.int32) + 1


@triton.jit
def window(m, inverse, left, top, half_u, half_v, width, height):
    """For the pixels of the image from (left, top), up to `half` from their middle, one more around included:
    how far to the left and above the output pixels begin that look at 2 x 2 of them, and in how many columns
    and rows all of these are; in no row, if nothing looks here or there is no window. Whether there is one,
    and the output rows in which whatever looks here is.
    """
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = inverse
    p00, p01, p02, p10, p11, p12, p20, p21, p22 = bounds(m, width, height)
    u, v = left + (half_u - 1.0), top + (half_v - 1.0)
    scale = g20 * u + (g21 * v + g22)
    doubt = ROUNDING * (p20 * (u + half_u) + p21 * (v + half_v) + p22)
    near = tl.abs(scale) - (tl.abs(g20) * half_u + tl.abs(g21) * half_v) - doubt
    per_scale, per_near = 1.0 / scale, 1.0 / near
    x, x_far, x_reach, xu, xv = reach(
        g00, g01, g02, p00, p01, p02, g20, g21, u, v, half_u, half_v, per_scale, per_near, doubt
    )
    y, y_far, y_reach, yu, yv = reach(
        g10, g11, g12, p10, p11, p12, g20, g21, u, v, half_u, half_v, per_scale, per_near, doubt
    )
    certain = (near > 0.0) & (x_reach < float("inf")) & (y_reach < float("inf"))
    begin = tl.maximum(tl.minimum(y - y_far, height * 1.0), 0.0).to(tl.int32)
    end = tl.maximum(tl.minimum(y + y_far, height - 1.0), -1.0).to(tl.int32) + 1
    begin = tl.where(certain, begin, 0)
    end = tl.where(certain, tl.where((x + x_far >= 0.0) & (x - x_far < width), end, 0), height)
    columns, rows = counted(x_reach, width), counted(y_reach, height)
    columns = (columns + (FOUR - 1)) // FOUR * FOUR
    # Not larger than the image, so that all of the window can be read, and not much larger than what is in
    # it, which would cost more than to look everywhere.
    dear = tl.abs(xu * yv - xv * yu) * (512.0 * per_near * per_near) + (y_far * width * 0.5 + 1024.0)
    exists = certain & (columns <= width) & (rows <= height) & (columns.to(tl.float32) * rows <= dear)
    return x_reach, y_reach, columns, tl.where(exists & (begin < end), rows, 0), exists, begin, end


@triton.jit
def tents(shift, apart, i):
    """Weights of two neighbouring pixels for an output pixel that is `apart` + i from the first and looks
    `shift` further: 1 less the distance, or 0. NaN and infinities weigh nothing.
    """
    at = tl.clamp(shift + (apart + i), 0.0, 1.0)
    before = tl.clamp(shift + (apart + (i + 1)), 0.0, 1.0)
    return before - at, at - tl.clamp(shift + (apart + (i - 1)), 0.0, 1.0)


@triton.jit
def add(sums, lines, offset, weights_x, weights_y, CAREFUL: tl.constexpr):
    """What an output pixel got, to each channel's four sums. Careful: of what has no weight not even NaN."""
    weights = (
        weights_x[0] * weights_y[0], weights_x[1] * weights_y[0],
        weights_x[0] * weights_y[1], weights_x[1] * weights_y[1],
    )  # fmt: skip
    added = ()
    for c in tl.static_range(len(lines)):
        value = tl.load(lines[c] + offset).to(tl.float32)
        for i in tl.static_range(4):
            if CAREFUL:
                added += (sums[4 * c + i] + tl.where(weights[i] != 0.0, weights[i] * value, 0.0),)  # type: ignore[assignment]
            else:
                added += (sums[4 * c + i] + weights[i] * value,)  # type: ignore[assignment]
    return added


@triton.jit
def each(value, COUNT: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values += (value,)  # type: ignore[assignment]
    return values


@triton.jit
def planes(first, stride, GROUP: tl.constexpr):
    """Of each channel, what is `first` of the first."""
    found = ()
    for _ in tl.static_range(GROUP):
        found += (first,)  # type: ignore[assignment]
        first += stride
    return found


@triton.jit
def gathered(m, grad, stride_c, stride_h, stride_w, x_first, y, columns, rows, u, v, GROUP: tl.constexpr):
    """The sums over the window that begins at output pixels (x_first, y)."""
    place = y.to(tl.int32).to(stride_h.dtype) * stride_h + x_first.to(tl.int32).to(stride_h.dtype) * stride_w
    sums = each(tl.zeros(x_first.shape, tl.float32), 4 * GROUP)
    for _ in range(rows):
        x, first = x_first, grad + place
        for _ in range(columns // FOUR):
            lines = planes(first, stride_c, GROUP)
            for i in tl.static_range(FOUR):
                shift_x, shift_y = shifts(m, x + i, y)
                weights_x, weights_y = tents(shift_x, x - u, i), tents(shift_y, y - v, 0)
                sums = add(sums, lines, i * stride_w, weights_x, weights_y, False)
            x += FOUR
            first += FOUR * stride_w
        y += 1.0
        place += stride_h
    return sums


@triton.jit
def looked_through(
    sums, m, grad, stride_c, stride_h, stride_w, begin, end, width, left, top, u, v, GROUP: tl.constexpr
):
    """Adds to the sums what output pixels [begin, end) give, numbered row by row."""
    first_u, last_u = left - 1.01, left + (2 * u.shape[1] + 0.01)  # weights are rounded otherwise
    first_v, last_v = top - 1.01, top + (2 * u.shape[0] + 0.01)
    lines = planes(grad, stride_c, GROUP)
    number = tl.arange(0, CHUNK)
    for chunk in range(begin, end, CHUNK):
        x_all, y_all = ((chunk + number) % width).to(tl.float32), ((chunk + number) // width).to(tl.float32)
        all_x, all_y = shifts(m, x_all, y_all)
        all_x, all_y = all_x + x_all, all_y + y_all
        found = (all_x > first_u) & (all_x < last_u) & (all_y > first_v) & (all_y < last_v)
        found = found & (chunk + number < end)
        first, last = tl.min(tl.where(found, number, CHUNK)), tl.max(tl.where(found, number, -1))
        for i in range(first, last + 1):
            column, row = (chunk + i) % width, (chunk + i) // width
            offset = column.to(stride_h.dtype) * stride_w + row.to(stride_h.dtype) * stride_h
            x, y = tl.zeros_like(sums[0]) + column.to(tl.float32), tl.zeros_like(sums[0]) + row.to(tl.float32)
            shift_x, shift_y = shifts(m, x, y)
            sums = add(sums, lines, offset, tents(shift_x, x - u, 0), tents(shift_y, y - v, 0), True)
    return sums


@triton.jit
def write(sums, result, stride_c, stride_h, stride_w, u, v, width, height, GROUP: tl.constexpr):
    column, row = u[:, :, None] + tl.arange(0, 2)[None, None, :], v[:, :, None]
    upper = result + (column.to(stride_h.dtype) * stride_w + row.to(stride_h.dtype) * stride_h)
    in_upper, in_lower = (column < width) & (row < height), (column < width) & (row + 1 < height)
    for c in tl.static_range(GROUP):
        pair = tl.join(sums[4 * c], sums[4 * c + 1])
        tl.store(upper, pair.to(result.dtype.element_ty), in_upper)
        pair = tl.join(sums[4 * c + 2], sums[4 * c + 3])
        tl.store(upper + stride_h, pair.to(result.dtype.element_ty), in_lower)
        upper += stride_c


@triton.jit
def backward(
    grad,  # N C H W, any strides
    result,  # N C H W, any strides
    matrix,  # N 3 3
    groups,  # of GROUP channels each
    height,
    width,
    grad_stride_n,
    grad_stride_c,
    grad_stride_h,
    grad_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    GROUP: tl.constexpr,
    INDEX: tl.constexpr,
    OFFSET: tl.constexpr,  # tl.int32 while the strides of a channel allow
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    n, channel = (tl.program_id(2) // groups).to(tl.int64), (tl.program_id(2) % groups * GROUP).to(tl.int64)
    m, poison = coefficients(matrix + n * 9)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    inverse = adjugate(m00 + m22, m01, m02, m10, m11 + m22, m12, m20, m21, m22)
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = inverse
    grad += n * grad_stride_n + channel * grad_stride_c
    result += n * out_stride_n + channel * out_stride_c
    stride_h, stride_w = tl.full([], grad_stride_h, OFFSET), tl.full([], grad_stride_w, OFFSET)
    left, top = tl.program_id(0) * (2 * COLUMNS), tl.program_id(1) * (2 * ROWS)
    x_reach, y_reach, columns, rows, exists, begin, end = window(
        m, inverse, left, top, COLUMNS + 0.5, ROWS + 0.5, width, height
    )
    u = left + 2 * (tl.arange(0, COLUMNS)[None, :] + tl.zeros([ROWS, 1], tl.int32))
    v = top + 2 * (tl.arange(0, ROWS)[:, None] + tl.zeros([1, COLUMNS], tl.int32))
    u_float, v_float = u.to(tl.float32), v.to(tl.float32)
    scale = 1.0 / (g20 * (u_float + 0.5) + (g21 * (v_float + 0.5) + g22))
    x = (g00 * (u_float + 0.5) + (g01 * (v_float + 0.5) + g02)) * scale - x_reach
    y = (g10 * (u_float + 0.5) + (g11 * (v_float + 0.5) + g12)) * scale - y_reach
    x = tl.maximum(tl.minimum(tl.ceil(x), (width - columns).to(tl.float32)), 0.0)
    y = tl.maximum(tl.minimum(tl.ceil(y), (height - rows).to(tl.float32)), 0.0)
    sums = gathered(m, grad, grad_stride_c, stride_h, stride_w, x, y, columns, rows, u_float, v_float, GROUP)
    # A sum that is not finite may be NaN of an output pixel without weight.
    total = tl.zeros_like(u_float)
    for i in tl.static_range(4 * GROUP):
        total += sums[i]
    again = ~exists | (tl.max(((total - total) != 0.0).to(tl.int32)) != 0)
    # Of a matrix that is NaN nobody knows where output pixels look: all of its gradient is NaN.
    from_new = ()
    for i in tl.static_range(4 * GROUP):
        from_new += (tl.where(again, poison, sums[i]),)  # type: ignore[assignment]
    last = tl.where(again & ~is_nan(poison), tl.full([], end, INDEX) * width, 0)
    sums = looked_through(
        from_new, m, grad, grad_stride_c, stride_h, stride_w, tl.full([], begin, INDEX) * width, last, width,
        left, top, u_float, v_float, GROUP,
    )  # fmt: skip
    write(
        sums, result, out_stride_c, tl.full([], out_stride_h, OFFSET), tl.full([], out_stride_w, OFFSET),
        u, v, width, height, GROUP,
    )  # fmt: skip
