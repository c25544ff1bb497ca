"""What `ssim`'s kernels share: pixels beyond the border, windows' sums, strips of columns."""

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
def load_halves(x, y, exist):
    """The values of m and d, 0 where there is no pixel."""
    a, b = 0.5 * tl.load(x, exist, 0.0).to(tl.float32), 0.5 * tl.load(y, exist, 0.0).to(tl.float32)
    return a + b, a - b


@triton.jit
def filled(values, COUNT: tl.constexpr, LANES: tl.constexpr):
    """COUNT times each of the values."""
    blocks: tl.tuple = ()
    for i in tl.static_range(len(values) * COUNT):
        blocks += (tl.full([LANES], values[i // COUNT], tl.float32),)
    return blocks


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
