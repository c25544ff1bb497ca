"""Triton kernels of `fastgan.ops.ssim`, which documents the formulas.

`sweep` goes down the rows of a strip of columns, a thread in every two of them, whose windows share all but
two of the pixels that it loads. It filters each row along its columns and adds it to the moments of all
windows that contain it, which lie in registers; from those of a complete window it computes the loss and its
derivatives. `gather` filters the derivatives in the same way, and writes the gradients. A program has one
partial sum, and `finish` adds a channel's in a fixed order: no atomics, the same bits for the same input.
Three launches, two without a gradient; backward is one, `scale`.
"""

from __future__ import annotations

import functools
import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type
from fastgan.kernels._samples import finish
from fastgan.kernels._ssim_gather import NONE, OF_BOTH, OF_X, VARYING, gather
from fastgan.kernels._ssim_moments import (
    complete,
    load_at,
    reciprocal,
    row_of,
    usable,
    with_row,
    with_shift,
)
from fastgan.kernels._windows import VALID, filled, load_halves, moved_up, strip, within
from fastgan.reference.ssim import window_taps

# Columns of a program, two of a thread: the moments of four alone would take 176 registers.
COLUMNS, WARPS = 64, 1
# The limit for a thread of `sweep`. Without it, mirrored borders with a shift for each row would take 188.
MAX_REGISTERS = 184
# Values of a program of `scale` and `finish`.
BLOCK, SCALE_WARPS = 1024, 4
# The rows of derivatives lie as far apart as a multiple of this, so that accesses are of 64 bits.
ALIGNED = 16
# Rows of a program. It reads 2 R rows more, which its neighbours read, too: with 240 rows, a 24th. Rows are
# halved, down to 15, while there are fewer than 8 programs for each of 132 multiprocessors; then they are
# spread evenly. What the last, partial wave of few tall programs costs is to be measured on a GPU.
MOST_ROWS, LEAST_ROWS, ENOUGH_PROGRAMS = 240, 15, 1056
# See rows_per_shift. More rows would save less than 2% of `sweep`'s instructions. The squares that are summed
# may be so many times as large as the variance (for a flat window, c2 / 2 for a data_range of 1): rounding to
# 6e-8 of them is then to 2e-5 of it.
MOST_ROWS_PER_SHIFT, MOST_GROWTH, FLAT = 4, 350.0, 4.5e-4
# Smaller windows would gain little: in float32, those of 9 spend 84% as long on memory as on instructions,
# and those of 7 more on memory. Windows with more weight in their outermost row would have larger errors
# beside stripes.
LEAST_SIZE, MOST_OUTERMOST = 11, 0.01


@triton.jit(do_not_specialize=VARYING)
def sweep(
    x,  # N C H W, any strides
    y,
    map0, map1, map2, map3,  # derivatives, [N C, H, pitch] float32, as many as SLOPES has; 0 outside windows
    partial_sums,  # [programs] float32
    channels,
    height,
    width,
    pitch,
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
    ROW_WEIGHTS: tl.constexpr,  # see row_weights_of
    ROWS_PER_SHIFT: tl.constexpr,
    PADDING: tl.constexpr,
    SLOPES: tl.constexpr,
    HAS_L1: tl.constexpr,
    INDEX: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    SIZE: tl.constexpr = len(TAPS)
    RADIUS: tl.constexpr = SIZE // 2
    HALF: tl.constexpr = COLUMNS // 2
    plane, n, channel, first_row, first_column = strip(channels, bands, blocks, rows, COLUMNS)
    left = first_column + 2 * tl.arange(0, HALF)
    column = first_column + tl.arange(0, COLUMNS)
    end_row = tl.minimum(first_row + rows, height)
    x += n * x_stride_n + channel * x_stride_c
    y += n * y_stride_n + channel * y_stride_c
    stride_h, y_stride = tl.full([], x_stride_h, INDEX), tl.full([], y_stride_h, INDEX)

    in_window = within(left - margin, width - 2 * margin), within(left + 1 - margin, width - 2 * margin)
    centres = left
    if PADDING == VALID:
        centres = tl.maximum(tl.minimum(left, width - 1 - RADIUS), RADIUS - 1 if RADIUS else 0)
    first_window = tl.maximum(first_row, margin)
    window_rows = tl.maximum(tl.minimum(end_row, height - margin) - first_window, 0)
    start = 0.0, 0.0, half_c2, 0.0  # what follows needs the variance of m with it alone
    moments = filled(start + start, SIZE, HALF)
    shift = filled((0.0, 0.0), 1, HALF)
    mean = shift
    if ROWS_PER_SHIFT > 1:
        x_row, y_row, in_rows = row_of(x, y, first_row - RADIUS, height, stride_h, y_stride, PADDING, INDEX)
        mean = load_at(
            x_row, y_row, in_rows, centres.to(INDEX), 0, width, x_stride_w, y_stride_w, RADIUS, PADDING
        )  # fmt: skip
    double_luminance = 2.0 * luminance
    total, absolute = tl.zeros([HALF], tl.float32), tl.zeros([HALF], tl.float32)
    plane_place = plane.to(tl.int64) * height * pitch
    maps = map0 + plane_place, map1 + plane_place, map2 + plane_place, map3 + plane_place
    for group in range(tl.cdiv(end_row - first_row + 2 * RADIUS, ROWS_PER_SHIFT)):
        if ROWS_PER_SHIFT > 1:
            new = usable(mean[0]), usable(mean[1])
            moments = with_shift(moments, shift, new, TAPS, ROW_WEIGHTS)
            shift = new
        for step in range(ROWS_PER_SHIFT):
            centre = first_row - 2 * RADIUS + group * ROWS_PER_SHIFT + step
            if HAS_L1:
                at_row, is_ours = centre.to(INDEX), within(centre - first_row, end_row - first_row)
                for j in tl.static_range(2):
                    at = (left + j).to(INDEX)
                    _, d = load_halves(
                        x + at_row * stride_h + at * x_stride_w, y + at_row * y_stride + at * y_stride_w,
                        (left + j < width) & is_ours,
                    )  # fmt: skip
                    absolute += 2.0 * absolute_factor * tl.abs(d)
            added, mean = with_row(
                moments, shift, x, y, centre + RADIUS, centres, height, width, stride_h, y_stride, x_stride_w,
                y_stride_w, TAPS, ROW_WEIGHTS, ROWS_PER_SHIFT, PADDING, INDEX,
            )  # fmt: skip
            moments = moved_up(added, SIZE, HALF, start)

            # See csrc/math/ssim.h.
            exists = within(centre - first_window, window_rows)
            slopes: tl.tuple = ()
            for j in tl.static_range(2):
                m, d, variance_m, variance_d = complete(added, shift, j, SIZE, ROWS_PER_SHIFT)
                exist = exists & in_window[j]
                # Scales of 0 make the loss and all derivatives 0 where there is no window.
                luminance_scale = tl.where(exist, reciprocal(m * m + (d * d + half_c1)), 0.0)
                contrast_scale = tl.where(
                    exist, reciprocal(tl.maximum(variance_m + variance_d, half_c2)), 0.0
                )
                slope = double_luminance * d * luminance_scale
                lost_luminance, half_lost_contrast = slope * d, variance_d * contrast_scale
                kept_luminance = 1.0 - lost_luminance
                half_lost_beside = kept_luminance * half_lost_contrast
                total += lost_luminance + 2.0 * half_lost_beside
                if SLOPES != NONE:
                    # Of slope_mm and slope_dd half, and of slope_m and slope_d a quarter: one half is in the
                    # formula of the gradient, where both meet, the other in `gather`'s factor.
                    half_contrast_slope = (0.5 - half_lost_contrast) * slope
                    slope_mm = -half_lost_beside * contrast_scale
                    slope_dd = (kept_luminance - half_lost_beside) * contrast_scale
                    # With respect to the means themselves: there is no offset.
                    slope_m = -m * (half_contrast_slope * d * luminance_scale + slope_mm)
                    slope_d = half_contrast_slope * (1.0 - 0.5 * lost_luminance) - d * slope_dd
                    if SLOPES == OF_BOTH:
                        slopes += (slope_m, slope_d, slope_mm, slope_dd)
                    elif SLOPES == OF_X:
                        slopes += (slope_m + slope_d, slope_mm, slope_dd)
                    else:
                        slopes += (slope_m - slope_d, slope_mm, slope_dd)
            if SLOPES != NONE:
                MAPS: tl.constexpr = 4 if SLOPES == OF_BOTH else 3
                place = centre.to(INDEX) * pitch + column
                for i in tl.static_range(MAPS):
                    both = tl.interleave(slopes[i], slopes[MAPS + i])
                    tl.store(maps[i] + place, both, exists & (column < pitch))
    tl.store(partial_sums + tl.program_id(0), tl.sum(loss_factor * total + absolute))


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
    pitch = cdiv(width, ALIGNED) * ALIGNED
    maps = [x.new_empty((planes, height, pitch), dtype=torch.float32) for _ in range((0, 3, 3, 4)[slopes])]
    maps += [maps[0] if maps else x] * (4 - len(maps))
    partial_sums = x.new_empty(programs, dtype=torch.float32)
    loss = x.new_empty((batch, channels), dtype=torch.float32)
    walk = channels, height, width, pitch, bands, blocks, rows, margin
    direction_x, direction_y = (
        torch.empty_like(image, dtype=_saved(image)) if wanted else image.new_empty(0, dtype=_saved(image))
        for image, wanted in ((x, with_x), (y, with_y))
    )
    planes_of = [image.stride()[2:] for image in (x, y, direction_x, direction_y) if image.numel()]
    furthest = max(
        (height + 2 * radius) * stride_h + (width + COLUMNS + 2 * radius) * stride_w
        for stride_h, stride_w in (*planes_of, (pitch, 1))
    )
    options = {"TAPS": taps, "PADDING": padding, "SLOPES": slopes, "COLUMNS": COLUMNS}
    options |= {"INDEX": index_type(furthest, 0), "num_warps": WARPS}
    with torch.cuda.device_of(x):
        sweep[(programs,)](
            x, y, *maps, partial_sums, *walk, c1 / 2, c2 / 2, 0.0 if contrast else 1.0, weight / windows,
            l1_weight / pixels, *x.stride(), *y.stride(), ROW_WEIGHTS=row_weights_of(taps),
            ROWS_PER_SHIFT=rows_per_shift(taps), HAS_L1=l1_weight != 0, **options, maxnreg=MAX_REGISTERS,
        )  # fmt: skip
        finish[(planes,)](partial_sums, loss, bands * blocks, 1.0, BLOCK=BLOCK)
        if slopes:
            strides = (
                direction.stride() if wanted else (0, 0, 0, 0)
                for direction, wanted in ((direction_x, with_x), (direction_y, with_y))
            )  # fmt: skip
            of_x, of_y = strides
            gather[(programs,)](
                x, y, *maps, direction_x, direction_y, *walk, 2 * weight / windows / planes,
                l1_weight / pixels / planes, *x.stride(), *y.stride(), *of_x, *of_y,
                EXPONENT=-0.5 / sigma / sigma if sigma else 0.0, **options,
            )  # fmt: skip
    return loss, direction_x, direction_y


def taps_of(window_size: int, sigma: float) -> tuple[float, ...]:
    """That of distance k at k modulo the size."""
    half = window_taps(window_size, sigma)
    return (*half, *half[:0:-1])


@functools.cache
def row_weights_of(taps: tuple[float, ...]) -> tuple[float, ...]:
    """The weight of a window's newest row among its rows so far, by the window's slot: its last row in slot
    0, its first in the last slot. 1 where the rows above weigh nothing.
    """
    radius, total, weights = len(taps) // 2, 0.0, []
    for distance in range(-radius, radius + 1):
        total += taps[distance]
        weights.append(taps[distance] / total if total > taps[distance] else 1.0)
    return tuple(weights[::-1])


@functools.cache
def rows_per_shift(taps: tuple[float, ...]) -> int:
    """How many rows share a shift, the mean of the row above them; 1: each row has its own.

    Let an edge of height h lie between two rows. Those below it are h away from a shift taken above it: a
    window that begins k rows above the edge sums squares of up to (above[k + rows] - above[k]) h^2, while its
    variance may be no more than above[k] (1 - above[k]) h^2. If a shift is taken in the first row below the
    edge, all rows but two of the window that is complete with the next row are h away from it. With several
    edges more windows come close to that, the more the larger the weight of the outermost rows.
    """
    size, radius = len(taps), len(taps) // 2
    # The weight of a window's first rows.
    above = [0.0, *itertools.accumulate(taps[distance] for distance in range(-radius, radius + 1))]

    def growth(far: float, rows: int) -> float:
        return far / (above[rows] * (1 - above[rows]) + FLAT)

    def worst(rows: int) -> float:
        begun = (growth(above[k + rows] - above[k], k) for k in range(size - rows + 1))
        return max(growth(1 - above[2], 2), *begun)

    if size < LEAST_SIZE or above[1] > MOST_OUTERMOST:
        return 1
    return next((rows for rows in range(MOST_ROWS_PER_SHIFT, 1, -1) if worst(rows) <= MOST_GROWTH), 1)


def _saved(image: Tensor) -> torch.dtype:
    return torch.float32 if image.dtype == torch.float16 else image.dtype


def rows_of(height: int, strips: int) -> int:
    """Rows of each program."""
    rows = MOST_ROWS
    while rows > LEAST_ROWS and strips * cdiv(height, rows) < ENOUGH_PROGRAMS:
        rows //= 2
    return cdiv(height, cdiv(height, rows))


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
            num_warps=SCALE_WARPS,
        )  # fmt: skip
