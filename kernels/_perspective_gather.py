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
# Output pixels of a row of the window at once; most warps need no more.
FOUR = tl.constexpr(4)


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
def reach(g0, g1, g2, p0, p1, p2, g20, g21, x, y, half_x, half_y, per_scale, per_near, doubt):
    """Along one axis of the output: where pixel (x, y) of the image comes to lie, how far from there those in the
    rectangle around it do, and how far from the middle of any 2 x 2 of these output pixels are that look at them;
    infinite or NaN, where that is not certain. And the slopes in (x, y), times the scale.

    The inverse's scale is 1 / `per_scale` at (x, y), 1 / `per_near` or more in the rectangle, and errs by `doubt`.
    """
    place = (g0 * x + (g1 * y + g2)) * per_scale
    slope_x, slope_y = g0 - place * g20, g1 - place * g21
    # Differences of a quotient are those of its numerator less what the denominator's make of it, exactly.
    spread = (tl.abs(slope_x) * half_x + tl.abs(slope_y) * half_y) * per_near
    steepest = tl.abs(slope_x) + tl.abs(slope_y) + spread * (tl.abs(g20) + tl.abs(g21))
    # 1.5: half a pixel to each of the four, one to the end of its weight.
    half = 1.5 * steepest * per_near
    far_x, far_y = x + half_x, y + half_y
    error = (ROUNDING * (p0 * far_x + p1 * far_y + p2) + (tl.abs(place) + spread) * doubt) * per_near
    half = tl.where(error <= 1.0 + half, half + error, float("inf"))
    return place, spread, half, slope_x, slope_y


@triton.jit
def counted(reach, size):
    """How many whole numbers at most lie within `reach` of any number, and in [0, size)."""
    return tl.minimum(2.0 * reach, size - 1.0).to(tl.int32) + 1


@triton.jit
def tents(shift, apart, i):
    """Weights of two neighbouring pixels for an output pixel that is `apart` + i from the first and looks `shift`
    further: 1 less the distance, or 0. NaN and infinities weigh nothing.
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
                added += (sums[4 * c + i] + tl.where(weights[i] != 0.0, weights[i] * value, 0.0),)
            else:
                added += (sums[4 * c + i] + weights[i] * value,)
    return added


@triton.jit
def channels_from(first, stride, GROUP: tl.constexpr):
    lines = ()
    for _ in tl.static_range(GROUP):
        lines += (first,)
        first += stride
    return lines


@triton.jit
def advanced(lines, by):
    moved = ()
    for c in tl.static_range(len(lines)):
        moved += (lines[c] + by,)
    return moved


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
    # Half of the rectangle, and one pixel around it.
    half_u, half_v = COLUMNS + 0.5, ROWS + 0.5
    middle_u, middle_v = left + (COLUMNS - 0.5), top + (ROWS - 0.5)
    scale = g20 * middle_u + (g21 * middle_v + g22)
    doubt = ROUNDING * (p20 * (middle_u + half_u) + p21 * (middle_v + half_v) + p22)
    near = tl.abs(scale) - (tl.abs(g20) * half_u + tl.abs(g21) * half_v) - doubt
    per_scale, per_near = 1.0 / scale, 1.0 / near
    x_middle, x_spread, x_reach, xu, xv = reach(
        g00, g01, g02, p00, p01, p02, g20, g21, middle_u, middle_v, half_u, half_v, per_scale, per_near, doubt
    )
    y_middle, y_spread, y_reach, yu, yv = reach(
        g10, g11, g12, p10, p11, p12, g20, g21, middle_u, middle_v, half_u, half_v, per_scale, per_near, doubt
    )
    x_spread, y_spread = x_spread + x_reach, y_spread + y_reach
    windowed = (near > 0.0) & (x_reach < float("inf")) & (y_reach < float("inf"))
    columns, rows = counted(x_reach, width), counted(y_reach, height)
    columns = (columns + (FOUR - 1)) // FOUR * FOUR
    # The output rows that may look here, if any does.
    begin = tl.maximum(tl.minimum(y_middle - y_spread, height * 1.0), 0.0)
    end = tl.maximum(tl.minimum(y_middle + y_spread, height - 1.0), -1.0)
    seen = (x_middle + x_spread >= 0.0) & (x_middle - x_spread < width)
    begin = tl.where(windowed, begin.to(tl.int32), 0)
    end = tl.where(windowed, tl.where(seen, end.to(tl.int32) + 1, 0), height)
    # A window much larger than what is in it costs more than to look everywhere. None reaches past the image, so
    # that all of its pixels can be read.
    within = tl.abs(xu * yv - xv * yu) * (512.0 * per_near * per_near) + (y_spread * width * 0.5 + 1024.0)
    windowed = windowed & (columns.to(tl.float32) * rows <= within) & (columns <= width) & (rows <= height)
    rows = tl.where(windowed & (begin < end), rows, 0)

    scale = 1.0 / (g20 * (u_float + 0.5) + (g21 * (v_float + 0.5) + g22))
    x_first = (g00 * (u_float + 0.5) + (g01 * (v_float + 0.5) + g02)) * scale - x_reach
    y = (g10 * (u_float + 0.5) + (g11 * (v_float + 0.5) + g12)) * scale - y_reach
    x_first = tl.maximum(tl.minimum(tl.ceil(x_first), (width - columns).to(tl.float32)), 0.0)
    y = tl.maximum(tl.minimum(tl.ceil(y), (height - rows).to(tl.float32)), 0.0)
    place = y.to(tl.int32).to(OFFSET) * stride_h + x_first.to(tl.int32).to(OFFSET) * stride_w

    nothing = tl.zeros([ROWS, COLUMNS], tl.float32)
    sums = ()
    for _ in tl.static_range(4 * GROUP):
        sums += (nothing,)
    for _ in range(rows):
        x, lines = x_first, channels_from(grad + place, grad_stride_c, GROUP)
        for _ in range(columns // FOUR):
            for i in tl.static_range(FOUR):
                shift_x, shift_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x + i, y)
                weights_x, weights_y = tents(shift_x, x - u_float, i), tents(shift_y, y - v_float, 0)
                sums = add(sums, lines, i * stride_w, weights_x, weights_y, False)
            x += FOUR
            lines = advanced(lines, FOUR * stride_w)
        y += 1.0
        place += stride_h

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
    lines = channels_from(grad, grad_stride_c, GROUP)
    for chunk in range(tl.full([], begin, INDEX) * width, last, CHUNK):
        pixel = chunk + tl.arange(0, CHUNK)
        x_all, y_all = (pixel % width).to(tl.float32), (pixel // width).to(tl.float32)
        all_x, all_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x_all, y_all)
        # A little more than pixels are wide: weights are rounded otherwise.
        found = (tl.abs(all_x + (x_all - middle_u)) < half_u + 0.01) & (pixel < last)
        found = found & (tl.abs(all_y + (y_all - middle_v)) < half_v + 0.01)
        place_in = tl.arange(0, CHUNK)
        first_found = tl.min(tl.where(found, place_in, CHUNK))
        last_found = tl.max(tl.where(found, place_in, -1))
        for one in range(first_found, last_found + 1):
            x_one, y_one = (chunk + one) % width, (chunk + one) // width
            offset = x_one.to(OFFSET) * stride_w + y_one.to(OFFSET) * stride_h
            x_far, y_far = nothing + x_one.to(tl.float32), nothing + y_one.to(tl.float32)
            far_x, far_y = shifts(m00, m01, m02, m10, m11, m12, m20, m21, m22, x_far, y_far)
            weights_x, weights_y = tents(far_x, x_far - u_float, 0), tents(far_y, y_far - v_float, 0)
            sums = add(sums, lines, offset, weights_x, weights_y, True)

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
