"""The backward kernel of `perspective_warp`: each pixel of the image sums what the output pixels that looked at
it got. No atomics, and one order of each sum.

A thread has 2 x 2 pixels of the image, which share what is computed of an output pixel. It looks for output
pixels where the inverse homography sends its pixels, in a window that is as large as any of the program needs,
and weighs those it finds there by `shifts`, as the forward kernel does: a window too large costs time alone.
Programs for whose pixels no window is safe, because the inverse sends some to infinity or does not exist, look
at every output pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl
from fastgan.kernels._homography import coefficients, is_nan, shifts

# Chosen by arithmetic, not yet by measurement: one place of 2 x 2 pixels a thread.
ROWS, COLUMNS = 8, 16
GATHER_WARPS = 4
# How far float32 may be off, of the sum of what is added up: some ten roundings, and as many once more.
ROUNDING = tl.constexpr(2.0**-19)
# Output pixels that are looked at together where there is no window.
CHUNK = tl.constexpr(1024)


@triton.jit
def adjugate(m00, m01, m02, m10, m11, m12, m20, m21, m22):
    """Nine entries of the adjugate: the inverse, but for a factor, which homographies do without."""
    return (
        m11 * m22 - m12 * m21, m02 * m21 - m01 * m22, m01 * m12 - m02 * m11,
        m12 * m20 - m10 * m22, m00 * m22 - m02 * m20, m02 * m10 - m00 * m12,
        m10 * m21 - m11 * m20, m01 * m20 - m00 * m21, m00 * m11 - m01 * m10,
    )  # fmt: skip


@triton.jit
def bounds(m00, m01, m02, m10, m11, m12, m20, m21, m22):
    """Bounds of the adjugate's entries and of all that its roundings are relative to."""
    return (
        m11 * m22 + m12 * m21, m02 * m21 + m01 * m22, m01 * m12 + m02 * m11,
        m12 * m20 + m10 * m22, m00 * m22 + m02 * m20, m02 * m10 + m00 * m12,
        m10 * m21 + m11 * m20, m01 * m20 + m00 * m21, m00 * m11 + m01 * m10,
    )  # fmt: skip


@triton.jit
def smallest(a, b, c, d):
    return tl.minimum(tl.minimum(a, b), tl.minimum(c, d))


@triton.jit
def largest(a, b, c, d):
    return tl.maximum(tl.maximum(a, b), tl.maximum(c, d))


@triton.jit
def steepness(g0, g1, low, high, g20, g21):
    """Of a coordinate of the inverse between `low` and `high`: bounds its change by one pixel, times the scale."""
    at_low = tl.abs(g0 - low * g20) + tl.abs(g1 - low * g21)
    return tl.maximum(at_low, tl.abs(g0 - high * g20) + tl.abs(g1 - high * g21))


@triton.jit
def reach(g0, g1, g2, p0, p1, p2, g20, g21, d00, d01, d10, d11, near, doubt, left, right, top, bottom):
    """Along one axis of the output: between which numbers the pixels [left, right] x [top, bottom] come to lie,
    how far from the middle of 2 x 2 pixels those are that look at them, and whether that is certain.

    The scale of the inverse is d00 ... d11 in the corners, `near` at least, and errs by `doubt`.
    """
    c00, c01 = (g0 * left + (g1 * top + g2)) / d00, (g0 * right + (g1 * top + g2)) / d01
    c10, c11 = (g0 * left + (g1 * bottom + g2)) / d10, (g0 * right + (g1 * bottom + g2)) / d11
    low, high = smallest(c00, c01, c10, c11), largest(c00, c01, c10, c11)
    # 1.5: half a pixel to each of the four, one to the end of its weight.
    half = 1.5 * steepness(g0, g1, low, high, g20, g21) / near
    error = (ROUNDING * (p0 * right + p1 * bottom + p2) + tl.maximum(tl.abs(low), tl.abs(high)) * doubt) / near
    return low, high, half + error, error <= 1.0 + half


@triton.jit
def counted(reach, size):
    """How many whole numbers at most lie within `reach` of any number, and in [0, size)."""
    return tl.minimum(2.0 * reach, size - 1.0).to(tl.int32) + 1


@triton.jit
def tents(shift, apart):
    """Weights of two neighbouring pixels for an output pixel `apart` from the first, which looks `shift` further."""
    past = shift + apart
    return tl.maximum(1.0 - tl.abs(past), 0.0), tl.maximum(1.0 - tl.abs(past - 1.0), 0.0)


@triton.jit
def add(sums, grad, offset, stride_c, mask, weights_x, weights_y, CAREFUL: tl.constexpr):
    """What an output pixel got, to each channel's four sums. Careful: of what has no weight not even NaN."""
    w0, w1 = weights_x[0] * weights_y[0], weights_x[1] * weights_y[0]
    w2, w3 = weights_x[0] * weights_y[1], weights_x[1] * weights_y[1]
    added = ()
    for c in tl.static_range(len(sums) // 4):
        value = tl.load(grad + offset, mask, 0.0).to(tl.float32)
        if CAREFUL:
            added += (
                sums[4 * c] + tl.where(w0 != 0.0, w0 * value, 0.0),
                sums[4 * c + 1] + tl.where(w1 != 0.0, w1 * value, 0.0),
                sums[4 * c + 2] + tl.where(w2 != 0.0, w2 * value, 0.0),
                sums[4 * c + 3] + tl.where(w3 != 0.0, w3 * value, 0.0),
            )
        else:
            added += (
                sums[4 * c] + w0 * value, sums[4 * c + 1] + w1 * value,
                sums[4 * c + 2] + w2 * value, sums[4 * c + 3] + w3 * value,
            )  # fmt: skip
        grad += stride_c
    return added


@triton.jit
def backward(
    grad,  # N C H W, any strides
    result,  # N C H W, any strides
    matrix,  # N 3 3 float64
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
    m00, m01, m02, m10, m11, m12, m20, m21, m22, poison = coefficients(matrix + n * 9)
    grad += n * grad_stride_n + channel * grad_stride_c
    result += n * out_stride_n + channel * out_stride_c
    stride_h, stride_w = tl.full([], grad_stride_h, OFFSET), tl.full([], grad_stride_w, OFFSET)
    left, top = tl.program_id(0) * (2 * COLUMNS), tl.program_id(1) * (2 * ROWS)
    u = left + 2 * tl.arange(0, COLUMNS)[None, :]
    v = top + 2 * tl.arange(0, ROWS)[:, None]
    u_float, v_float = u.to(tl.float32), v.to(tl.float32)

    # The inverse, and the window, from the corners of all that is looked at for this program's pixels.
    r00, r11 = m00 + m22, m11 + m22
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = adjugate(r00, m01, m02, m10, r11, m12, m20, m21, m22)
    bend = tl.abs(m20) * width + tl.abs(m21) * height
    p00, p01, p02, p10, p11, p12, p20, p21, p22 = bounds(
        tl.abs(m00) + (tl.abs(m22) + bend), tl.abs(m01), tl.abs(m02),
        tl.abs(m10), tl.abs(m11) + (tl.abs(m22) + bend), tl.abs(m12),
        tl.abs(m20), tl.abs(m21), tl.abs(m22),
    )  # fmt: skip
    first_u, first_v = (left - 1).to(tl.float32), (top - 1).to(tl.float32)
    last_u, last_v = (left + 2 * COLUMNS).to(tl.float32), (top + 2 * ROWS).to(tl.float32)
    d00, d01 = g20 * first_u + (g21 * first_v + g22), g20 * last_u + (g21 * first_v + g22)
    d10, d11 = g20 * first_u + (g21 * last_v + g22), g20 * last_u + (g21 * last_v + g22)
    doubt = ROUNDING * (p20 * last_u + p21 * last_v + p22)
    lowest, highest = smallest(d00, d01, d10, d11), largest(d00, d01, d10, d11)
    near = tl.maximum(lowest, -highest) - doubt
    first_x, last_x, reach_x, certain_x = reach(
        g00, g01, g02, p00, p01, p02, g20, g21, d00, d01, d10, d11, near, doubt, first_u, last_u, first_v, last_v
    )
    first_y, last_y, reach_y, certain_y = reach(
        g10, g11, g12, p10, p11, p12, g20, g21, d00, d01, d10, d11, near, doubt, first_u, last_u, first_v, last_v
    )
    columns, rows = counted(reach_x, width), counted(reach_y, height)
    first_x, last_x, first_y, last_y = first_x - reach_x, last_x + reach_x, first_y - reach_y, last_y + reach_y
    # A window much larger than what is in it costs more than to look everywhere.
    turned = tl.abs((g00 - first_x * g20) * (g11 - first_y * g21) - (g01 - first_x * g21) * (g10 - first_y * g20))
    within = 512.0 * turned / (near * near) + (last_y - first_y) * width * 0.25 + 1024.0
    windowed = (near > 0.0) & certain_x & certain_y
    begin, end = 0, height
    if windowed:
        begin = tl.minimum(tl.maximum(first_y, 0.0), height * 1.0).to(tl.int32)
        end = tl.maximum(tl.minimum(last_y, height - 1.0), -1.0).to(tl.int32) + 1
        seen = (last_x >= 0.0) & (first_x < width) & (begin < end)
        end = tl.where(seen, end, begin)
    windowed = windowed & (columns.to(tl.float32) * rows <= within)
    rows = tl.where(windowed & (begin < end), rows, 0)

    scale = 1.0 / (g20 * (u_float + 0.5) + (g21 * (v_float + 0.5) + g22))
    x_begin = (g00 * (u_float + 0.5) + (g01 * (v_float + 0.5) + g02)) * scale - reach_x
    y_begin = (g10 * (u_float + 0.5) + (g11 * (v_float + 0.5) + g12)) * scale - reach_y
    x_begin = tl.ceil(tl.minimum(tl.maximum(x_begin, 0.0), width * 1.0))
    y_begin = tl.ceil(tl.minimum(tl.maximum(y_begin, 0.0), height * 1.0))
    x_first, y_first = x_begin.to(tl.int32), y_begin.to(tl.int32)
    place = y_first.to(OFFSET) * stride_h + x_first.to(OFFSET) * stride_w

    nothing = tl.zeros([ROWS, COLUMNS], tl.float32)
    sums = ()
    for _ in tl.static_range(4 * GROUP):
        sums += (nothing,)
    for row in range(rows):
        y = y_begin + row
        line = grad + (place + tl.full([], row, OFFSET) * stride_h)
        for four in range((columns + 3) // 4):
            for i in tl.static_range(4):
                ahead = four * 4 + i
                x = x_begin + ahead
                exists = (x < width) & (y < height)
                shift_x, shift_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x, y)
                weights_x, weights_y = tents(shift_x, x - u_float), tents(shift_y, y - v_float)
                sums = add(
                    sums, line, tl.full([], ahead, OFFSET) * stride_w, grad_stride_c, exists,
                    weights_x, weights_y, False,
                )  # fmt: skip

    # A sum that is not finite may be NaN of a pixel without weight.
    total = nothing
    for i in tl.static_range(4 * GROUP):
        total += sums[i]
    spoiled = tl.max(((total - total) != 0.0).to(tl.int32)) != 0
    again = ~windowed | spoiled
    broken = is_nan(poison)
    last = tl.where(again & ~broken, tl.full([], end, INDEX) * width, 0)
    blank = ()
    for i in tl.static_range(4 * GROUP):
        blank += (tl.where(again, poison, sums[i]),)
    sums = blank
    for chunk in range(tl.full([], begin, INDEX) * width, last, CHUNK):
        pixel = chunk + tl.arange(0, CHUNK)
        x_all, y_all = (pixel % width).to(tl.float32), (pixel // width).to(tl.float32)
        all_x, all_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x_all, y_all)
        # A little more than pixels are wide: weights are rounded otherwise.
        found = (all_x + (x_all - first_u) > -0.01) & (all_x + (x_all - last_u) < 0.01) & (pixel < last)
        found = found & (all_y + (y_all - first_v) > -0.01) & (all_y + (y_all - last_v) < 0.01)
        place_in = tl.arange(0, CHUNK)
        first_found = tl.min(tl.where(found, place_in, CHUNK))
        last_found = tl.max(tl.where(found, place_in, -1))
        for one in range(first_found, last_found + 1):
            x_one, y_one = (chunk + one) % width, (chunk + one) // width
            offset = x_one.to(OFFSET) * stride_w + y_one.to(OFFSET) * stride_h
            x_far, y_far = nothing + x_one.to(tl.float32), nothing + y_one.to(tl.float32)
            far_x, far_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x_far, y_far)
            weights_x, weights_y = tents(far_x, x_far - u_float), tents(far_y, y_far - v_float)
            sums = add(sums, grad, offset, grad_stride_c, True, weights_x, weights_y, True)

    two = tl.arange(0, 2)[None, None, :]
    columns_of = u[:, :, None] + two
    target = columns_of.to(OFFSET) * tl.full([], out_stride_w, OFFSET)
    target += v[:, :, None].to(OFFSET) * tl.full([], out_stride_h, OFFSET)
    upper = (columns_of < width) & (v[:, :, None] < height)
    lower = (columns_of < width) & (v[:, :, None] + 1 < height)
    for c in tl.static_range(GROUP):
        pair = tl.join(sums[4 * c], sums[4 * c + 1])
        tl.store(result + target, pair.to(result.dtype.element_ty), upper)
        pair = tl.join(sums[4 * c + 2], sums[4 * c + 3])
        tl.store(result + (target + out_stride_h), pair.to(result.dtype.element_ty), lower)
        result += out_stride_c
