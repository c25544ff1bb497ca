"""Triton kernels of `fastgan.ops.upfirdn2d`, which documents the formula. One launch.

A thread computes some rows of one column. It reads each row within their reach once, at the places where the
column's taps meet pixels, and adds what they give to all output rows that it contributes to. With few taps
(`written_out`) the compiler knows which taps those are: that depends on the number of a row within the thread
alone, since its rows begin at the same place relative to inserted zeros. With more, as for downsampling by 12
taps, a loop over the rows reads the taps along y anew (`row_by_row`): written out, its loads would be issued
all at once, and their results not fit into registers. Other filters go tap by tap.

The same kernels serve `fastgan.ops.filtered_lrelu`, with a bias before the filter and an activation, or a
multiplication by what its codes stand for, after it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels._fir_rows import row_by_row, tap_by_tap, written_out
from fastgan.kernels._indexing import cdiv, index_type

# Chosen by arithmetic, not yet by measurement. A warp reads and writes whole lines of 128 bytes.
LANES = 128
WARPS = 4
ROWS = 8
# Of row_by_row: a program is one warp, so that a row's sum is in the thread that adds it to the results.
LOOP_LANES, LOOP_WARPS = 32, 1
# The most products that are written out per thread, of the taps of a filter of two axes, and taps along x.
MOST_PRODUCTS, MOST_WEIGHTS, MOST_COLUMNS = 128, 25, 32
# What follows the filter.
FILTER, ACTIVATE, MULTIPLY = 0, 1, 2


def plan(
    up: int, down: int, taps: int, columns: int, phase: int, separable: bool
) -> tuple[Any, dict[str, int]]:
    """The kernel for so many taps along y, and `columns` along x that meet pixels, and its constants."""
    unit = up // math.gcd(up, down)
    for rows in range(max(1, ROWS // unit) * unit, 0, -unit):
        reach = ((rows - 1) * down - phase + taps - 1) // up + 1
        fits = separable or taps * columns <= MOST_WEIGHTS
        if fits and reach * columns + rows * cdiv(taps, up) <= MOST_PRODUCTS:
            constants = {"ROWS": rows, "REACH": reach, "SEPARABLE": separable, "LANES": LANES}
            return written_out, constants | {"num_warps": WARPS}
    # An arange has a power of two of elements, in which inserted zeros must begin at the same place.
    if separable and columns <= MOST_COLUMNS and ROWS * down % up == 0:
        reach = ((ROWS - 1) * down - phase + taps - 1) // up + 1
        constants = {"ROWS": ROWS, "REACH": reach, "LANES": LOOP_LANES}
        return row_by_row, constants | {"num_warps": LOOP_WARPS}
    return tap_by_tap, {"SEPARABLE": separable, "LANES": LANES, "num_warps": WARPS}


def launch(
    x: Tensor,
    f: Tensor,
    y: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    flip: bool,
    gain: float,
    *,
    mode: int = FILTER,
    b: Tensor | None = None,
    codes: Tensor | None = None,
    activation: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> None:
    """Filters x into y, on their device and current stream.

    Args:
        up, down, pad: along x and y.
        codes: stored if `mode` is ACTIVATE, read if MULTIPLY; None: none.
        activation: slope, gain and limit.
    """
    batch, channels, in_h, in_w = x.shape
    out_h, out_w = y.shape[2:]
    if y.numel() == 0:
        return
    taps_x, taps_y = f.shape[-1], f.shape[0]
    phase, lift = pad[1] % up[1], tuple(cdiv(max(pad[i], 0), up[i]) for i in (0, 1))
    kernel, constants = plan(up[1], down[1], taps_y, cdiv(taps_x, up[0]), phase, f.dim() == 1)
    groups = cdiv(out_h, constants.get("ROWS", 1))
    threads, lanes = batch * channels * groups * out_w, constants["LANES"]
    if kernel is tap_by_tap:
        sizes = taps_x, taps_y, *pad, *lift
    else:
        sizes = groups, pad[0], lift[0], (pad[1] - phase) // up[1]
        constants |= {"TAPS_X": taps_x, "TAPS_Y": taps_y, "PHASE": phase}
    with torch.cuda.device_of(x):
        kernel[(cdiv(threads, lanes),)](
            x,
            f if b is None else b,
            f,
            f if codes is None else codes,
            y,
            batch * channels,
            channels,
            in_h,
            in_w,
            out_h,
            out_w,
            *sizes,
            gain,
            *activation,
            UP_X=up[0],
            UP_Y=up[1],
            DOWN_X=down[0],
            DOWN_Y=down[1],
            TURNED=not flip,
            MODE=mode,
            HAS_BIAS=b is not None,
            HAS_CODES=codes is not None,
            INDEX=index_type(threads, lanes),
            **constants,
        )


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x: int,
    pad_y: int,
    out_h: int,
    out_w: int,
    flip: bool,
    gain: float,
) -> Tensor:
    """N C out_h out_w; on x's device and current stream."""
    y = x.new_empty(x.shape[0], x.shape[1], out_h, out_w)
    launch(x, f, y, (up_x, up_y), (down_x, down_y), (pad_x, pad_y), flip, gain)
    return y
