"""The second kernel of `ssim`: a pixel's gradient sums what `sweep` kept of all windows that contain it.
The kernel goes down the rows of a strip of columns, as `sweep` does.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastgan.kernels._windows import REFLECT, filled, load_halves, mirrored_tap, moved_up, strip, within

# They follow from the images' sizes: those that happen to be multiples of 16 need no code of their own.
VARYING = ("bands", "blocks", "rows")
# What is kept of a window's derivatives: nothing, for the gradient of x, of y, or of both.
NONE, OF_X, OF_Y, OF_BOTH = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit(do_not_specialize=VARYING)
def gather(
    x,  # N C H W, any strides
    y,
    map0, map1, map2, map3,  # as `sweep` wrote them
    direction_x,  # N C H W, any strides; where SLOPES has it
    direction_y,
    channels,
    height,
    width,
    pitch,
    bands,
    blocks,
    rows,
    margin,
    factor,
    absolute_factor,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_c, y_stride_h, y_stride_w,
    dx_stride_n, dx_stride_c, dx_stride_h, dx_stride_w,
    dy_stride_n, dy_stride_c, dy_stride_h, dy_stride_w,
    TAPS: tl.constexpr,
    EXPONENT: tl.constexpr,  # a tap is TAPS[0] exp(EXPONENT distance^2)
    PADDING: tl.constexpr,
    SLOPES: tl.constexpr,
    INDEX: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    HALF: tl.constexpr = COLUMNS // 2
    MAPS: tl.constexpr = 4 if SLOPES == OF_BOTH else 3
    FIRST: tl.constexpr = RADIUS + RADIUS % 2  # even
    maps = (map0, map1, map2, map3)
    plane, n, channel, first_row, first_column = strip(channels, bands, blocks, rows, COLUMNS)
    left = first_column + 2 * tl.arange(0, HALF)
    column = first_column + tl.arange(0, COLUMNS)
    end_row = tl.minimum(first_row + rows, height)
    x += n * x_stride_n + channel * x_stride_c
    y += n * y_stride_n + channel * y_stride_c
    direction_x += n * dx_stride_n + channel * dx_stride_c
    direction_y += n * dy_stride_n + channel * dy_stride_c
    plane_place = plane.to(tl.int64) * height * pitch
    taps: tl.tuple = ()  # of the windows that contain a pixel, from left to right
    for k in tl.static_range(2 * SIZE):
        if PADDING == REFLECT:
            at = left + k // SIZE
            of_column = mirrored_tap(at, at + (k % SIZE - RADIUS), width, TAPS, EXPONENT)
            taps += (TAPS[(k % SIZE - RADIUS) % SIZE] + of_column,)
        else:
            taps += (TAPS[(k % SIZE - RADIUS) % SIZE],)
    sums = filled((0.0,), 2 * MAPS * SIZE, HALF)
    for step in range(rows + 2 * RADIUS):
        row = first_row - RADIUS + step
        in_rows = within(row - margin, height - 2 * margin)
        source = tl.minimum(tl.maximum(row, margin), height - 1 - margin)
        place = plane_place + source.to(tl.int64) * pitch + column
        filtered: tl.tuple = ()
        for i in tl.static_range(MAPS):
            value0, value1 = tl.zeros([HALF], tl.float32), tl.zeros([HALF], tl.float32)
            for k in tl.static_range(RADIUS - FIRST, RADIUS + FIRST + 1, 2):
                exist = (column + (k - RADIUS) >= 0) & (column + (k - RADIUS) < pitch)
                both = tl.load(maps[i] + place + (k - RADIUS), exist, 0.0)
                value, beside = tl.split(tl.reshape(both, [HALF, 2]))
                if k >= 0 and k < SIZE:
                    value0 += taps[k] * value
                    value1 += taps[SIZE + k] * beside
                if k >= 1:
                    value1 += taps[SIZE + k - 1] * value
                if k < SIZE - 1:
                    value0 += taps[k + 1] * beside
            filtered += (tl.where(in_rows, value0, 0.0), tl.where(in_rows, value1, 0.0))
        added: tl.tuple = ()
        for i in tl.static_range(2 * MAPS * SIZE):
            if PADDING == REFLECT:
                of_row = mirrored_tap(row + (i % SIZE - RADIUS), row, height, TAPS, EXPONENT)
                tap = TAPS[(i % SIZE - RADIUS) % SIZE] + of_row
                added += (sums[i] + tap * filtered[i // SIZE],)
            else:
                added += (sums[i] + TAPS[(i % SIZE - RADIUS) % SIZE] * filtered[i // SIZE],)
        sums = moved_up(added, SIZE, HALF)

        pixel = row - RADIUS
        exists = (pixel >= first_row) & (pixel < end_row) & (column < width)
        at_row, at_column = pixel.to(INDEX), column.to(INDEX)
        m, d = load_halves(
            x + at_row * x_stride_h + at_column * x_stride_w,
            y + at_row * y_stride_h + at_column * y_stride_w,
            exists,
        )
        absolute = tl.where(d > 0, absolute_factor, tl.where(d < 0, -absolute_factor, 0.0))
        windows: tl.tuple = ()
        for i in tl.static_range(MAPS):
            windows += (tl.interleave(added[2 * i * SIZE], added[(2 * i + 1) * SIZE]),)
        if SLOPES == OF_BOTH:
            of_m = windows[0] + m * windows[2]
            of_d = windows[1] + d * windows[3]
        else:
            of_m = windows[0] + m * windows[1]
            of_d = d * windows[2]
        if SLOPES != OF_Y:
            value = factor * (of_m + of_d) + absolute
            place = at_row * dx_stride_h + at_column * dx_stride_w
            tl.store(direction_x + place, value.to(direction_x.dtype.element_ty), exists)
        if SLOPES != OF_X:
            value = factor * (of_m - of_d) - absolute
            place = at_row * dy_stride_h + at_column * dy_stride_w
            tl.store(direction_y + place, value.to(direction_y.dtype.element_ty), exists)
