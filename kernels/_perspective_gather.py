"""The backward kernel of `perspective_warp`: each pixel of the image sums the gradients of the output
pixels that sampled it. There are no atomics, and the order of each sum is fixed.

A thread computes 2 x 2 pixels of the image, which share the work per output pixel. Output pixels are searched
around the position to which the inverse homography maps the thread's pixels, in a window as large as any
thread of the program needs, and weighted by `shifts`, as in the forward kernel: too large a window only costs
time. Where no window is certain, because the inverse maps some pixels to infinity or does not exist, the
program scans all output pixels, which may take many times as long. If the window would cost more than that,
or its sum is not finite, the program scans the rows that the window covers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels._homography import coefficients, is_nan, shifts

# Chosen by arithmetic, not yet by measurement: 2 x 2 pixels per thread; twice that would take 128 registers.
ROWS, COLUMNS = 8, 16
GATHER_WARPS = 4
# For images whose columns are not adjacent, where Triton 3.8 would use 128. Otherwise it uses 64 by itself.
MAX_REGISTERS = 96
# Bound of the error in float32, relative to the sum of the terms' magnitudes: over 20 roundings.
ROUNDING = tl.constexpr(2.0**-19)
# Output pixels that are scanned together.
CHUNK = tl.constexpr(1024)
# Output pixels of a window's row that are processed at once; few warps need more.
FOUR = tl.constexpr(4)


@triton.jit
def adjugate(m00, m01, m02, m10, m11, m12, m20, m21, m22):
    """The inverse up to a factor, which does not matter for a homography."""
    return (
        m11 * m22 - m12 * m21, m02 * m21 - m01 * m22, m01 * m12 - m02 * m11,
        m12 * m20 - m10 * m22, m00 * m22 - m02 * m20, m02 * m10 - m00 * m12,
        m10 * m21 - m11 * m20, m01 * m20 - m00 * m21, m00 * m11 - m01 * m10,
    )  # fmt: skip


@triton.jit
def bounds(m, width, height):
    """Upper bounds of the magnitudes in the adjugate's entries, to bound the rounding errors of `shifts`."""
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
def reach(g0, g1, g2, p0, p1, p2, g20, g21, u, v, half_u, half_v, per_scale, per_near, scale_error):
    """Along one axis of the output, returns the position to which the inverse maps pixel (u, v) of the image;
    the largest distance from it of output pixels that sample the rectangle of half sizes `half_u` and
    `half_v` around (u, v); the largest distance of output pixels that sample 2 x 2 pixels in it from the
    position of their centre, infinite if uncertain; and the slopes of the position in u and v, times the
    scale.

    The inverse's scale is 1 / `per_scale` at (u, v), at least 1 / `per_near` in the rectangle, and has an
    error of up to `scale_error`.
    """
    place = (g0 * u + (g1 * v + g2)) * per_scale
    slope_u, slope_v = g0 - place * g20, g1 - place * g21
    # Two quotients differ by the difference of their numerators, minus the difference of their denominators
    # times the first quotient, all divided by the second denominator.
    spread = (tl.abs(slope_u) * half_u + tl.abs(slope_v) * half_v) * per_near
    steepest = tl.abs(slope_u) + tl.abs(slope_v) + spread * (tl.abs(g20) + tl.abs(g21))
    # 1.5: half a pixel from the centre to each of the four, and one pixel until its weight vanishes.
    half = 1.5 * steepest * per_near
    error = ROUNDING * (p0 * (u + half_u) + p1 * (v + half_v) + p2) + (tl.abs(place) + spread) * scale_error
    error *= per_near
    half = tl.where(error <= 1.0 + half, half + error, float("inf"))
    return place, spread + half, half, slope_u, slope_v


@triton.jit
def max_count(reach, size):
    """The most integers in [0, size) that can lie within a distance of `reach` from a number."""
    return tl.minimum(2.0 * reach, size - 1.0).to(tl.int32) + 1


@triton.jit
def window(m, inverse, left, top, half_u, half_v, width, height):
    """The window for the program whose pixels begin at (left, top). `half_u` and `half_v` are half the size
    of their rectangle, including one more pixel on every side.

    Returns how far to the left and above a thread's position its window begins; the window's columns and rows
    (no rows, if no output pixel samples these pixels or there is no window); whether there is a window; and
    the range of output rows that may sample these pixels.
    """
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = inverse
    p00, p01, p02, p10, p11, p12, p20, p21, p22 = bounds(m, width, height)
    u, v = left + (half_u - 1.0), top + (half_v - 1.0)
    scale = g20 * u + (g21 * v + g22)
    scale_error = ROUNDING * (p20 * (u + half_u) + p21 * (v + half_v) + p22)
    near = tl.abs(scale) - (tl.abs(g20) * half_u + tl.abs(g21) * half_v) - scale_error
    per_scale, per_near = 1.0 / scale, 1.0 / near
    x, x_far, x_reach, xu, xv = reach(
        g00, g01, g02, p00, p01, p02, g20, g21, u, v, half_u, half_v, per_scale, per_near, scale_error
    )
    y, y_far, y_reach, yu, yv = reach(
        g10, g11, g12, p10, p11, p12, g20, g21, u, v, half_u, half_v, per_scale, per_near, scale_error
    )
    certain = (near > 0.0) & (x_reach < float("inf")) & (y_reach < float("inf"))
    begin = tl.maximum(tl.minimum(y - y_far, height * 1.0), 0.0).to(tl.int32)
    end = tl.maximum(tl.minimum(y + y_far, height - 1.0), -1.0).to(tl.int32) + 1
    begin = tl.where(certain, begin, 0)
    end = tl.where(certain, tl.where((x + x_far >= 0.0) & (x - x_far < width), end, 0), height)
    columns, rows = max_count(x_reach, width), max_count(y_reach, height)
    columns = (columns + (FOUR - 1)) // FOUR * FOUR
    # The window must not be larger than the image, so that all of it can be read, nor cost more than a scan
    # of the rows, which happens if it is much larger than the pixels found in it.
    max_cost = tl.abs(xu * yv - xv * yu) * (512.0 * per_near * per_near) + (y_far * width * 0.5 + 1024.0)
    exists = certain & (columns <= width) & (rows <= height) & (columns.to(tl.float32) * rows <= max_cost)
    return x_reach, y_reach, columns, tl.where(exists & (begin < end), rows, 0), exists, begin, end


@triton.jit
def linear_weights(shift, apart, i):
    """Bilinear weights, max(1 - distance, 0), of two neighbouring pixels for an output pixel at a distance of
    `apart` + i from the first that samples `shift` further. NaN and infinite shifts have weight zero.
    """
    at = tl.clamp(shift + (apart + i), 0.0, 1.0)
    before = tl.clamp(shift + (apart + (i + 1)), 0.0, 1.0)
    return before - at, at - tl.clamp(shift + (apart + (i - 1)), 0.0, 1.0)


@triton.jit
def add(sums, lines, offset, weights_x, weights_y, CAREFUL: tl.constexpr):
    """Adds an output pixel's gradient to the four sums per channel. CAREFUL: ignores NaN of weight zero."""
    weights = (
        weights_x[0] * weights_y[0], weights_x[1] * weights_y[0],
        weights_x[0] * weights_y[1], weights_x[1] * weights_y[1],
    )  # fmt: skip
    new_sums = ()
    for c in tl.static_range(len(lines)):
        value = tl.load(lines[c] + offset).to(tl.float32)
        for i in tl.static_range(4):
            if CAREFUL:
                new_sums += (sums[4 * c + i] + tl.where(weights[i] != 0.0, weights[i] * value, 0.0),)  # type: ignore[assignment]
            else:
                new_sums += (sums[4 * c + i] + weights[i] * value,)  # type: ignore[assignment]
    return new_sums


@triton.jit
def repeated(value, COUNT: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values += (value,)  # type: ignore[assignment]
    return values


@triton.jit
def channel_pointers(first, stride, GROUP: tl.constexpr):
    """Pointers to the same pixel in each channel; `first` is that of the first channel."""
    found = ()
    for _ in tl.static_range(GROUP):
        found += (first,)  # type: ignore[assignment]
        first += stride
    return found


@triton.jit
def sum_window(m, grad, stride_c, stride_h, stride_w, x_first, y, columns, rows, u, v, GROUP: tl.constexpr):
    """The sums over each thread's window, which begins at output pixel (x_first, y)."""
    place = y.to(tl.int32).to(stride_h.dtype) * stride_h + x_first.to(tl.int32).to(stride_h.dtype) * stride_w
    sums = repeated(tl.zeros(x_first.shape, tl.float32), 4 * GROUP)
    for _ in range(rows):
        x, first = x_first, grad + place
        for _ in range(columns // FOUR):
            lines = channel_pointers(first, stride_c, GROUP)
            for i in tl.static_range(FOUR):
                shift_x, shift_y = shifts(m, x + i, y)
                weights_x, weights_y = linear_weights(shift_x, x - u, i), linear_weights(shift_y, y - v, 0)
                sums = add(sums, lines, i * stride_w, weights_x, weights_y, False)
            x += FOUR
            first += FOUR * stride_w
        y += 1.0
        place += stride_h
    return sums


@triton.jit
def add_scanned(
    sums, m, grad, stride_c, stride_h, stride_w, begin, end, width, left, top, u, v, GROUP: tl.constexpr
):
    """Adds the contributions of output pixels [begin, end), numbered row by row."""
    first_u, last_u = left - 1.01, left + (2 * u.shape[1] + 0.01)  # with a margin for rounding
    first_v, last_v = top - 1.01, top + (2 * u.shape[0] + 0.01)
    lines = channel_pointers(grad, stride_c, GROUP)
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
            weights_x, weights_y = linear_weights(shift_x, x - u, 0), linear_weights(shift_y, y - v, 0)
            sums = add(sums, lines, offset, weights_x, weights_y, True)
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
    sums = sum_window(
        m, grad, grad_stride_c, stride_h, stride_w, x, y, columns, rows, u_float, v_float, GROUP
    )
    # A sum that is not finite may come from a NaN at an output pixel of weight zero.
    total = tl.zeros_like(u_float)
    for i in tl.static_range(4 * GROUP):
        total += sums[i]
    rescan = ~exists | (tl.max(((total - total) != 0.0).to(tl.int32)) != 0)
    # With NaN in the matrix, the sampled positions are undefined: all of its gradient is NaN.
    start_sums = ()
    for i in tl.static_range(4 * GROUP):
        start_sums += (tl.where(rescan, poison, sums[i]),)  # type: ignore[assignment]
    last = tl.where(rescan & ~is_nan(poison), tl.full([], end, INDEX) * width, 0)
    sums = add_scanned(
        start_sums, m, grad, grad_stride_c, stride_h, stride_w, tl.full([], begin, INDEX) * width, last,
        width, left, top, u_float, v_float, GROUP,
    )  # fmt: skip
    write(
        sums, result, out_stride_c, tl.full([], out_stride_h, OFFSET), tl.full([], out_stride_w, OFFSET),
        u, v, width, height, GROUP,
    )  # fmt: skip
