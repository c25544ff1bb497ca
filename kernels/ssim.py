"""Triton kernels of `fastgan.ops.ssim`, which documents the formulas.

`sweep` goes down the rows of a strip of columns, a thread in each column. It filters each row along its
columns, from loads that neighbours share in the first-level cache, and adds it to the sums of all windows
that contain it, which lie in registers; from the sums of a window that is complete it computes the loss and
its derivatives. `gather` filters the derivatives in the same way, and writes the gradients. A program has one
partial sum, and `finish` adds a channel's in a fixed order: no atomics, the same bits for the same input.
Three launches, two without a gradient; backward is one, `scale`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type
from fastgan.kernels._samples import finish
from fastgan.kernels._windows import (
    REFLECT,
    VALID,
    ZEROS,
    finite_or_zero,
    inside,
    load_at,
    load_halves,
    mirrored_tap,
    moved_up,
    strip,
    within,
    zeros,
)
from fastgan.reference.ssim import window_taps

# Columns of a program, a thread each, and of `scale` and `finish` values.
COLUMNS, WARPS = 64, 2
BLOCK = 1024
# Rows of a program. It reads 2 R more, for windows that its neighbours have, too: of 120 rows a twelfth. Half
# as many, and again, where that gives programs for all multiprocessors.
MOST_ROWS, LEAST_ROWS, ENOUGH_PROGRAMS = 120, 15, 1056
# What is kept of a window's derivatives: nothing, for the gradient of x, of y, or of both.
NONE, OF_X, OF_Y, OF_BOTH = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def sweep(
    x,  # N C H W, any strides
    y,
    map0, map1, map2, map3,  # derivatives, [N C, H, W] float32; as many as SLOPES has
    partial_sums,  # [programs] float32
    channels,
    height,
    width,
    bands,
    blocks,
    rows,
    margin,
    half_c1,
    half_c2,
    luminance,
    loss_factor,
    absolute_factor,
    x_stride_n, x_stride_c, x_stride_h, x_stride_w,
    y_stride_n, y_stride_c, y_stride_h, y_stride_w,
    TAPS: tl.constexpr,  # that of distance k at k modulo SIZE
    PADDING: tl.constexpr,
    SLOPES: tl.constexpr,
    HAS_L1: tl.constexpr,
    INDEX: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    plane, n, channel, first_row, column = strip(channels, bands, blocks, rows, COLUMNS)
    end_row = tl.minimum(first_row + rows, height)
    x += n * x_stride_n + channel * x_stride_c
    y += n * y_stride_n + channel * y_stride_c
    stride_h, y_stride = tl.full([], x_stride_h, INDEX), tl.full([], y_stride_h, INDEX)

    # Moments relative to a pixel of the strip lose fewer digits.
    across = tl.minimum(tl.max(column) - COLUMNS // 2, width - 1).to(INDEX)
    down = tl.minimum(first_row + rows // 2, height - 1).to(INDEX)
    half_x = finite_or_zero(0.5 * tl.load(x + down * stride_h + across * x_stride_w).to(tl.float32))
    half_y = finite_or_zero(0.5 * tl.load(y + down * y_stride + across * y_stride_w).to(tl.float32))
    if PADDING == ZEROS:  # windows that are mostly zeros beyond the border are best left as they are
        is_small = tl.minimum(height, width) < SIZE
        half_x, half_y = tl.where(is_small, 0.0, half_x), tl.where(is_small, 0.0, half_y)
    offset_m, offset_d = half_x + half_y, half_x - half_y

    in_window = (column >= margin) & (column < width - margin)
    centres = column.to(INDEX)
    if PADDING == VALID:
        centres = tl.maximum(tl.minimum(centres, width - 1 - RADIUS), RADIUS)
    map_place = plane.to(tl.int64) * height * width + column
    sums = zeros(4 * SIZE, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for step in range(rows + 2 * RADIUS):
        row = first_row - RADIUS + step
        source, in_rows = inside(row, height, PADDING)
        if PADDING == VALID:  # rows beyond the border belong to no window
            source = tl.maximum(tl.minimum(row, height - 1), 0)
        x_row, y_row = x + source.to(INDEX) * stride_h, y + source.to(INDEX) * y_stride
        if HAS_L1:
            own = (row >= first_row) & (row < end_row) & (column < width)
            at_column = column.to(INDEX)
            _, d = load_halves(x_row + at_column * x_stride_w, y_row + at_column * y_stride_w, own)
            total += 2.0 * absolute_factor * tl.abs(d)
        m, d = load_at(
            x_row, y_row, centres, 0, x_stride_w, y_stride_w, in_rows, width, half_x, half_y, PADDING
        )
        mean_m, mean_d = TAPS[0] * m, TAPS[0] * d
        square_m, square_d = TAPS[0] * (m * m), TAPS[0] * (d * d)
        for distance in tl.static_range(1, RADIUS + 1):
            m0, d0 = load_at(
                x_row, y_row, centres, -distance, x_stride_w, y_stride_w, in_rows, width, half_x, half_y,
                PADDING,
            )  # fmt: skip
            m1, d1 = load_at(
                x_row, y_row, centres, distance, x_stride_w, y_stride_w, in_rows, width, half_x, half_y,
                PADDING,
            )  # fmt: skip
            mean_m += TAPS[distance] * (m0 + m1)
            mean_d += TAPS[distance] * (d0 + d1)
            square_m += TAPS[distance] * (m0 * m0 + m1 * m1)
            square_d += TAPS[distance] * (d0 * d0 + d1 * d1)
        filtered = (mean_m, mean_d, square_m, square_d)
        # The windows around this row: in slot k that around row + k - RADIUS.
        added: tl.tuple = ()
        for i in tl.static_range(4 * SIZE):
            added += (sums[i] + TAPS[(i % SIZE - RADIUS) % SIZE] * filtered[i // SIZE],)
        mean_m, mean_d, square_m, square_d = added[0], added[SIZE], added[2 * SIZE], added[3 * SIZE]
        sums = moved_up(added, SIZE, COLUMNS)

        # See csrc/math/ssim.h.
        centre = row - RADIUS
        m, d = mean_m + offset_m, mean_d + offset_d
        luminance_scale = 1.0 / (m * m + d * d + half_c1)
        variance_m, variance_d = square_m - mean_m * mean_m, square_d - mean_d * mean_d
        contrast_scale = 1.0 / (variance_m + variance_d + half_c2)
        slope = 2.0 * luminance * d * luminance_scale
        lost_luminance, lost_contrast = slope * d, 2.0 * variance_d * contrast_scale
        kept_luminance, contrast = 1.0 - lost_luminance, 1.0 - lost_contrast
        exists = in_window & (centre >= first_row) & (centre < end_row)
        exists = exists & (centre >= margin) & (centre < height - margin)
        total += tl.where(exists, loss_factor * (lost_luminance + kept_luminance * lost_contrast), 0.0)
        if SLOPES != NONE:
            slope_mm = -kept_luminance * lost_contrast * contrast_scale
            slope_dd = kept_luminance * (1.0 + contrast) * contrast_scale
            # Relative to 0, not to the offset, which `gather` does not know.
            slope_m = -2.0 * m * (contrast * lost_luminance * luminance_scale + slope_mm)
            slope_d = contrast * slope * (1.0 + kept_luminance) - 2.0 * d * slope_dd
            place = map_place + centre.to(tl.int64) * width
            if SLOPES == OF_BOTH:
                tl.store(map0 + place, 0.5 * slope_m, exists)
                tl.store(map1 + place, 0.5 * slope_d, exists)
                tl.store(map2 + place, slope_mm, exists)
                tl.store(map3 + place, slope_dd, exists)
            else:
                if SLOPES == OF_Y:
                    slope_d = -slope_d
                tl.store(map0 + place, 0.5 * (slope_m + slope_d), exists)
                tl.store(map1 + place, slope_mm, exists)
                tl.store(map2 + place, slope_dd, exists)
    tl.store(partial_sums + tl.program_id(0), tl.sum(total))


@triton.jit
def gather(
    x,  # N C H W, any strides
    y,
    map0, map1, map2, map3,  # as `sweep` wrote them
    direction_x,  # N C H W, any strides; where SLOPES has it
    direction_y,
    channels,
    height,
    width,
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
    MAPS: tl.constexpr = 4 if SLOPES == OF_BOTH else 3
    maps = (map0, map1, map2, map3)
    plane, n, channel, first_row, column = strip(channels, bands, blocks, rows, COLUMNS)
    end_row = tl.minimum(first_row + rows, height)
    x += n * x_stride_n + channel * x_stride_c
    y += n * y_stride_n + channel * y_stride_c
    direction_x += n * dx_stride_n + channel * dx_stride_c
    direction_y += n * dy_stride_n + channel * dy_stride_c
    map_place = plane.to(tl.int64) * height * width + column
    taps: tl.tuple = ()  # of the windows that contain a pixel, from left to right
    for k in tl.static_range(SIZE):
        if PADDING == REFLECT:
            of_column = mirrored_tap(column, column + (k - RADIUS), width, TAPS, EXPONENT)
            taps += (TAPS[(k - RADIUS) % SIZE] + of_column,)
        else:
            taps += (TAPS[(k - RADIUS) % SIZE],)
    sums = zeros(MAPS * SIZE, COLUMNS)
    for step in range(rows + 2 * RADIUS):
        row = first_row - RADIUS + step
        in_rows = within(row - margin, height - 2 * margin)
        place = map_place + row.to(tl.int64) * width
        filtered: tl.tuple = ()
        for i in tl.static_range(MAPS):
            value = tl.zeros([COLUMNS], tl.float32)
            for k in tl.static_range(SIZE):
                exist = in_rows & within(column + (k - RADIUS) - margin, width - 2 * margin)
                value += taps[k] * tl.load(maps[i] + place + (k - RADIUS), exist, 0.0)
            filtered += (value,)
        added: tl.tuple = ()
        for i in tl.static_range(MAPS * SIZE):
            if PADDING == REFLECT:
                of_row = mirrored_tap(row + (i % SIZE - RADIUS), row, height, TAPS, EXPONENT)
                tap = TAPS[(i % SIZE - RADIUS) % SIZE] + of_row
                added += (sums[i] + tap * filtered[i // SIZE],)
            else:
                added += (sums[i] + TAPS[(i % SIZE - RADIUS) % SIZE] * filtered[i // SIZE],)
        sums = moved_up(added, SIZE, COLUMNS)

        pixel = row - RADIUS
        exists = (pixel >= first_row) & (pixel < end_row) & (column < width)
        at_row, at_column = pixel.to(INDEX), column.to(INDEX)
        m, d = load_halves(
            x + at_row * x_stride_h + at_column * x_stride_w,
            y + at_row * y_stride_h + at_column * y_stride_w,
            exists,
        )
        absolute = tl.where(d > 0, absolute_factor, tl.where(d < 0, -absolute_factor, 0.0))
        if SLOPES == OF_BOTH:
            of_m = added[0] + m * added[2 * SIZE]
            of_d = added[SIZE] + d * added[3 * SIZE]
        else:
            of_m = added[0] + m * added[SIZE]
            of_d = d * added[2 * SIZE]
        if SLOPES != OF_Y:
            value = factor * (of_m + of_d) + absolute
            place = at_row * dx_stride_h + at_column * dx_stride_w
            tl.store(direction_x + place, value.to(direction_x.dtype.element_ty), exists)
        if SLOPES != OF_X:
            value = factor * (of_m - of_d) - absolute
            place = at_row * dy_stride_h + at_column * dy_stride_w
            tl.store(direction_y + place, value.to(direction_y.dtype.element_ty), exists)


@triton.jit
def scale(
    source,  # N C H W, any strides
    target,  # N C H W, the same strides; may be source itself
    grad,  # [N C]
    channels,
    width,
    pixels,
    parts,  # programs per channel
    factor,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    IN_PLACE: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    plane = tl.program_id(0) // parts
    pixel = (tl.program_id(0) % parts) * BLOCK + tl.arange(0, BLOCK)
    factor *= tl.load(grad + plane).to(tl.float32)
    if IN_PLACE:  # a factor of 1, which is only known on the device, must not cost a pass over memory
        pixels = tl.where(factor == 1.0, 0, pixels)
    place = (plane // channels).to(tl.int64) * stride_n + (plane % channels).to(tl.int64) * stride_c
    place += (pixel // width).to(INDEX) * stride_h + (pixel % width).to(INDEX) * stride_w
    exist = pixel < pixels
    values = factor * tl.load(source + place, exist, 0.0).to(tl.float32)
    tl.store(target + place, values.to(target.dtype.element_ty), exist)


def ssim(
    x: Tensor,
    y: Tensor,
    window_size: int,
    sigma: float,
    c1: float,
    c2: float,
    padding: int,
    contrast: bool,
    weight: float,
    l1_weight: float,
    with_x: bool,
    with_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (N, C), directions like x and y or empty), all on x's device and current stream."""
    batch, channels, height, width = x.shape
    planes = batch * channels
    taps, radius = taps_of(window_size, sigma), window_size // 2
    margin = radius if padding == VALID.value else 0
    windows, pixels = (height - 2 * margin) * (width - 2 * margin), height * width
    slopes = with_x + 2 * with_y
    blocks = cdiv(width, COLUMNS)
    rows = rows_of(height, planes * blocks)
    bands = cdiv(height, rows)
    programs = planes * bands * blocks
    maps = [x.new_empty((planes, height, width), dtype=torch.float32) for _ in range((0, 3, 3, 4)[slopes])]
    maps += [maps[0] if maps else x] * (4 - len(maps))
    partial_sums = x.new_empty(programs, dtype=torch.float32)
    loss = x.new_empty((batch, channels), dtype=torch.float32)
    walk = channels, height, width, bands, blocks, rows, margin
    furthest = max(
        (height + 2 * radius) * image.stride(2) + (width + COLUMNS + 2 * radius) * image.stride(3)
        for image in (x, y)
    )
    options = {"TAPS": taps, "PADDING": padding, "SLOPES": slopes, "COLUMNS": COLUMNS}
    options |= {"INDEX": index_type(furthest, 0), "num_warps": WARPS}
    with torch.cuda.device_of(x):
        sweep[(programs,)](
            x, y, *maps, partial_sums, *walk, c1 / 2, c2 / 2, 0.0 if contrast else 1.0, weight / windows,
            l1_weight / pixels, *x.stride(), *y.stride(), HAS_L1=l1_weight != 0, **options,
        )  # fmt: skip
        finish[(planes,)](partial_sums, loss, bands * blocks, 1.0, BLOCK=BLOCK)
        direction_x, direction_y = (
            torch.empty_like(image, dtype=_saved(image))
            if wanted
            else image.new_empty(0, dtype=_saved(image))
            for image, wanted in ((x, with_x), (y, with_y))
        )
        if slopes:
            strides = (
                direction.stride() if wanted else (0, 0, 0, 0)
                for direction, wanted in ((direction_x, with_x), (direction_y, with_y))
            )  # fmt: skip
            of_x, of_y = strides
            gather[(programs,)](
                x, y, *maps, direction_x, direction_y, *walk, weight / windows / planes,
                l1_weight / pixels / planes, *x.stride(), *y.stride(), *of_x, *of_y,
                EXPONENT=-0.5 / sigma / sigma if sigma else 0.0, **options,
            )  # fmt: skip
    return loss, direction_x, direction_y


def taps_of(window_size: int, sigma: float) -> tuple[float, ...]:
    """That of distance k at k modulo the size."""
    half = window_taps(window_size, sigma)
    return (*half, *half[:0:-1])


def _saved(image: Tensor) -> torch.dtype:
    return torch.float32 if image.dtype == torch.float16 else image.dtype


def rows_of(height: int, strips: int) -> int:
    """Rows of each program."""
    rows = MOST_ROWS
    while rows > LEAST_ROWS and strips * cdiv(height, rows) < ENOUGH_PROGRAMS:
        rows //= 2
    return rows


def ssim_backward(direction: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
    """N C grad of each channel times the direction, like the direction, in that dtype."""
    result = torch.empty_like(direction, dtype=dtype)
    scale_into(result, direction, grad)
    return result


def ssim_backward_(direction: Tensor, grad: Tensor) -> None:
    """The same in place."""
    scale_into(direction, direction, grad)


def scale_into(out: Tensor, direction: Tensor, grad: Tensor) -> None:
    """Writes the scaled direction to `out`; both are dense and have equal strides."""
    batch, channels, height, width = direction.shape
    planes, parts = batch * channels, cdiv(height * width, BLOCK)
    _, _, stride_h, stride_w = direction.stride()
    with torch.cuda.device_of(direction):
        scale[(planes * parts,)](
            direction, out, grad, channels, width, height * width, parts, float(planes), *direction.stride(),
            IN_PLACE=out is direction,
            INDEX=index_type((height + BLOCK) * stride_h + width * stride_w, 0),
            BLOCK=BLOCK,
            num_warps=WARPS * 2,
        )  # fmt: skip
