"""Activations of one number and their derivatives, for `fastgan.kernels.bias_act`."""

from __future__ import annotations

import triton
import triton.language as tl

# As `fastgan.ops.bias_act` numbers them. The last two are given the activation's value, not its argument.
LINEAR = tl.constexpr(0)
TANH = tl.constexpr(1)
SIGMOID = tl.constexpr(2)
ELU = tl.constexpr(3)
SELU = tl.constexpr(4)
SOFTPLUS = tl.constexpr(5)
SWISH = tl.constexpr(6)
OF_TANH = tl.constexpr(7)
OF_SIGMOID = tl.constexpr(8)
# Where swish has its limits: products of 0 and infinity would be NaN.
SWISH_BOUND = tl.constexpr(1e4)
SELU_SCALE = tl.constexpr(1.0507009873554805)
SELU_NEGATIVE = tl.constexpr(1.7580993408473766)


@triton.jit
def expm1_of_negative(x):
    """exp(x) - 1 for x <= 0: near 0 a series, since the difference would cancel."""
    series = 1 / 120 + x * (1 / 720 + x * (1 / 5040 + x * (1 / 40320)))
    series = x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * series))))
    return tl.where(x > -0.5, series, tl.exp(x) - 1.0)


@triton.jit
def log1p_of_unit(e):
    """log(1 + e) for e in [0, 1], as the series of 2 artanh s."""
    s = e / (2.0 + e)
    square = s * s
    series = 1 / 7 + square * (1 / 9 + square * (1 / 11 + square * (1 / 13)))
    series = 1 / 3 + square * (1 / 5 + square * series)
    return 2.0 * (s + s * square * series)


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x)), 1 minus that, and the second minus the first."""
    absolute = tl.abs(x)
    larger = 1.0 / (1.0 + tl.exp(-absolute))
    smaller = tl.exp(-absolute) * larger
    distance = expm1_of_negative(-absolute) * larger
    negative = x < 0.0
    return (
        tl.where(negative, smaller, larger),
        tl.where(negative, larger, smaller),
        tl.where(negative, -distance, distance),
    )


@triton.jit
def activated(x, ACT: tl.constexpr):
    if ACT == TANH:
        falling = expm1_of_negative(-2.0 * tl.abs(x))
        t = falling / (2.0 + falling)
        y = tl.where(x > 0.0, -t, t)
    elif ACT == LINEAR:
        y = x
    elif ACT == SIGMOID:
        y, _, _ = logistic(x)
    elif ACT == SWISH:
        slope, _, _ = logistic(x)
        y = tl.where(x < -SWISH_BOUND, -SWISH_BOUND, x) * slope
    elif ACT == SOFTPLUS:
        y = tl.where(x > 0.0, x, 0.0) + log1p_of_unit(tl.exp(-tl.abs(x)))
    else:
        scale: tl.constexpr = 1.0 if ACT == ELU else SELU_SCALE
        factor: tl.constexpr = 1.0 if ACT == ELU else SELU_NEGATIVE
        y = tl.where(x > 0.0, scale * x, factor * expm1_of_negative(tl.where(x > 0.0, 0.0, x)))
    return y


@triton.jit
def derivatives(x, ACT: tl.constexpr):
    """Of first and second order; at 0 as in torch."""
    if ACT == OF_TANH:
        first = 1.0 - x * x
        second = -2.0 * x
    elif ACT == OF_SIGMOID:
        first = x * (1.0 - x)
        second = 1.0 - 2.0 * x
    elif ACT == TANH:
        power = tl.exp(-2.0 * tl.abs(x))
        falling = expm1_of_negative(-2.0 * tl.abs(x))
        t = falling / (2.0 + falling)
        half = 1.0 / (1.0 + power)
        first = 4.0 * power * half * half
        second = tl.where(x > 0.0, 2.0 * t, -2.0 * t) * first
    elif ACT == SIGMOID:
        slope, complement, difference = logistic(x)
        first = slope * complement
        second = first * difference
    elif ACT == SOFTPLUS:
        first, complement, _ = logistic(x)
        second = first * complement
    elif ACT == SWISH:
        slope, complement, difference = logistic(x)
        bounded = tl.where(x < -SWISH_BOUND, -SWISH_BOUND, tl.where(x > SWISH_BOUND, SWISH_BOUND, x))
        first = slope * (1.0 + bounded * complement)
        second = slope * complement * (2.0 + bounded * difference)
    else:
        scale: tl.constexpr = 1.0 if ACT == ELU else SELU_SCALE
        factor: tl.constexpr = 1.0 if ACT == ELU else SELU_NEGATIVE
        power = factor * tl.exp(tl.where(x > 0.0, 0.0, x))
        first = tl.where(x > 0.0, scale, power)
        second = tl.where(x >= 0.0, 0.0, power)
    return first, second
