"""Where output pixels of `perspective_warp` look, alike in its forward and its backward kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def is_nan(x):
    return x != x


@triton.jit
def coefficients(matrix):
    """What `shifts` takes, in float32, and 0: NaN, if the matrix holds any.

    Double precision ends here, once a program: GPUs for games and work stations have little of it.
    """
    m00, m11 = tl.load(matrix).to(tl.float64), tl.load(matrix + 4).to(tl.float64)
    m22 = tl.load(matrix + 8).to(tl.float64)
    m01, m02 = tl.load(matrix + 1).to(tl.float32), tl.load(matrix + 2).to(tl.float32)
    m10, m12 = tl.load(matrix + 3).to(tl.float32), tl.load(matrix + 5).to(tl.float32)
    m20, m21 = tl.load(matrix + 6).to(tl.float32), tl.load(matrix + 7).to(tl.float32)
    broken = is_nan(m00) | is_nan(m11) | is_nan(m22) | is_nan(m01) | is_nan(m02) | is_nan(m10) | is_nan(m12)
    broken = broken | is_nan(m20) | is_nan(m21)
    poison = tl.where(broken, float("nan"), 0.0)
    m00, m11 = (m00 - m22).to(tl.float32), (m11 - m22).to(tl.float32)
    return (m00, m01, m02, m10, m11, m12, m20, m21, m22.to(tl.float32)), poison


@triton.jit
def shifts(m, x, y):
    """How far from output pixel (x, y) itself the place is that it looks at; NaN or infinite for nowhere.

    `m` are `coefficients`, whose m00 and m11 are less m22. In float32, without losing the digits behind the
    point to a coordinate in the thousands: for small warps a shift is a small number.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    bend = m20 * x + m21 * y
    scale = bend + m22
    root = tl.math.rsqrt(tl.abs(scale))  # one instruction, where a division takes eight
    inverse = tl.where(scale < 0.0, -(root * root), root * root)
    over_x = (m00 * x + (m01 * y + m02)) - x * bend
    over_y = (m10 * x + (m11 * y + m12)) - y * bend
    shift_x, shift_y = over_x * inverse, over_y * inverse
    # What is left over corrects the last digits, so that whole pixels stay whole.
    shift_x = tl.fma(inverse, tl.fma(-shift_x, scale, over_x), shift_x)
    shift_y = tl.fma(inverse, tl.fma(-shift_y, scale, over_y), shift_y)
    return shift_x, shift_y
