"""The positions that output pixels of `perspective_warp` sample, for its forward and its backward kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_nan(x):
    return x != x


@triton.jit
def coefficients(matrix):
    """The coefficients for `shifts`, in float32, and a number that is NaN if the matrix has NaN, else 0.

    Only this part uses double precision, once per program: GPUs for games and workstations have little of it.
    """
    m00, m11 = tl.load(matrix).to(tl.float64), tl.load(matrix + 4).to(tl.float64)
    m22 = tl.load(matrix + 8).to(tl.float64)
    m01, m02 = tl.load(matrix + 1).to(tl.float32), tl.load(matrix + 2).to(tl.float32)
    m10, m12 = tl.load(matrix + 3).to(tl.float32), tl.load(matrix + 5).to(tl.float32)
    m20, m21 = tl.load(matrix + 6).to(tl.float32), tl.load(matrix + 7).to(tl.float32)
    has_nan = is_nan(m00) | is_nan(m11) | is_nan(m22) | is_nan(m01) | is_nan(m02) | is_nan(m10) | is_nan(m12)
    has_nan = has_nan | is_nan(m20) | is_nan(m21)
    poison = tl.where(has_nan, float("nan"), 0.0)
    m00, m11 = (m00 - m22).to(tl.float32), (m11 - m22).to(tl.float32)
    return (m00, m01, m02, m10, m11, m12, m20, m21, m22.to(tl.float32)), poison


@triton.jit
def shifts(m, x, y):
    """The position that output pixel (x, y) samples, relative to (x, y); NaN or infinite where there is none.

    `m` are the `coefficients`, in which m22 is subtracted from m00 and m11. A shift is small for small warps,
    so that float32 keeps its fractional digits, which a coordinate in the thousands would lose.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    bend = m20 * x + m21 * y
    scale = bend + m22
    root = tl.math.rsqrt(tl.abs(scale))  # one instruction, where a division takes eight
    inverse = tl.where(scale < 0.0, -(root * root), root * root)
    over_x = (m00 * x + (m01 * y + m02)) - x * bend
    over_y = (m10 * x + (m11 * y + m12)) - y * bend
    shift_x, shift_y = over_x * inverse, over_y * inverse
    # The remainder corrects the last digits, so that integer shifts stay integers.
    shift_x = tl.fma(inverse, tl.fma(-shift_x, scale, over_x), shift_x)
    shift_y = tl.fma(inverse, tl.fma(-shift_y, scale, over_y), shift_y)
    return shift_x, shift_y
