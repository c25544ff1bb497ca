"""Triton kernels of `fastgan.ops.bias_act`, which documents the formulas. One launch forward.

Tensors are traversed as by `fastgan.kernels.bias_leaky_relu`: in memory order, or with a bias gradient by
rows (contiguous tensors) or columns (channels last), one program for a whole channel or partial sums that are
added in a fixed order. The same kernels compute backward and, with tangents, double backward. No atomics.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type, next_power_of_2
from fastgan.kernels.bias_leaky_relu import (
    ALONE,
    ALONE_TILE,
    ALONE_WARPS,
    BLOCK,
    TILE_CHANNELS,
    WARPS,
    row_length,
)

# Half as many rows of a tile as there, since an element takes about twice the registers: with 32, double
# backward in bfloat16 spills.
TILE_ROWS, ALONE_ROWS = 16, 128

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


# --- one number ----------------------------------------------------------------------------------------


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


@triton.jit
def activate(
    x,
    bias,  # [channels]; not touched unless HAS_BIAS
    y,
    gain,
    clamp,
    length,
    channels,
    count,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 if the count allows: 64-bit division is slow
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    value = tl.load(x + index, inside, 0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + (index // length) % channels, inside, 0.0).to(tl.float32)
    scaled = gain * activated(value, ACT)
    bounded = tl.where(scaled < -clamp, -clamp, tl.where(scaled > clamp, clamp, scaled))
    tl.store(y + index, bounded.to(y.dtype.element_ty), inside)


# --- gradients ---------------------------------------------------------------------------------------------


@triton.jit
def multiplied(
    grad,
    tangent,
    tangent_bias,
    saved,
    bias,
    target,
    grad_saved,
    index,
    channel,  # of each element, or one of all
    inside,
    gain,
    clamp,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLAMP: tl.constexpr,
    HAS_TANGENT: tl.constexpr,
    HAS_TANGENT_BIAS: tl.constexpr,
    HAS_GRAD_SAVED: tl.constexpr,
):
    """Stores backward's or double backward's results at the indices; returns those that a bias' sum takes."""
    upstream = tl.load(grad + index, inside, 0.0).to(tl.float32)
    if ACT == LINEAR:
        first = tl.zeros_like(upstream) + gain
        second = tl.zeros_like(upstream)
    else:
        point = tl.load(saved + index, inside, 0.0).to(tl.float32)
        if HAS_BIAS:
            point += tl.load(bias + channel).to(tl.float32)
        first, second = derivatives(point, ACT)
        first *= gain
        second *= gain
        if HAS_CLAMP:
            clamped = tl.abs(gain * activated(point, ACT)) > clamp
            first = tl.where(clamped, 0.0, first)
            second = tl.where(clamped, 0.0, second)
    if HAS_TANGENT:
        along = tl.load(tangent + index, inside, 0.0).to(tl.float32)
        if HAS_TANGENT_BIAS:
            along += tl.load(tangent_bias + channel).to(tl.float32)
        tl.store(target + index, (first * along).to(target.dtype.element_ty), inside)
        summed = second * (upstream * along)
        if HAS_GRAD_SAVED:
            tl.store(grad_saved + index, summed.to(grad_saved.dtype.element_ty), inside)
    else:
        summed = first * upstream
        tl.store(target + index, summed.to(target.dtype.element_ty), inside)
    return tl.where(inside, summed, 0.0)


@triton.jit
def multiply(
    grad,
    tangent,  # not touched unless HAS_TANGENT
    tangent_bias,  # [channels]; not touched unless HAS_TANGENT_BIAS
    saved,  # not touched if ACT is LINEAR
    bias,  # [channels]; not touched unless HAS_BIAS
    target,
    grad_saved,  # not touched unless HAS_GRAD_SAVED
    gain,
    clamp,
    length,
    channels,
    count,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLAMP: tl.constexpr,
    HAS_TANGENT: tl.constexpr,
    HAS_TANGENT_BIAS: tl.constexpr,
    HAS_GRAD_SAVED: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    multiplied(
        grad, tangent, tangent_bias, saved, bias, target, grad_saved, index,
        (index // length) % channels if HAS_BIAS or HAS_TANGENT_BIAS else index, index < count, gain, clamp,
        ACT, HAS_BIAS, HAS_CLAMP, HAS_TANGENT, HAS_TANGENT_BIAS, HAS_GRAD_SAVED,
    )  # fmt: skip


@triton.jit
def multiply_rows(
    grad,  # [samples, channels, length]
    tangent,
    tangent_bias,
    saved,
    bias,
    target,
    grad_saved,
    sums,  # [parts, channels]; each part covers `share` samples
    gain,
    clamp,
    samples,
    channels,
    length,
    share,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLAMP: tl.constexpr,
    HAS_TANGENT: tl.constexpr,
    HAS_TANGENT_BIAS: tl.constexpr,
    HAS_GRAD_SAVED: tl.constexpr,
    SAMPLES: tl.constexpr,
    LENGTH: tl.constexpr,
):
    channel = tl.program_id(0) % channels
    begin_share = (tl.program_id(0) // channels) * share
    total = tl.zeros([SAMPLES, LENGTH], tl.float32)
    for top in range(begin_share, tl.minimum(begin_share + share, samples), SAMPLES):
        sample = top + tl.arange(0, SAMPLES)[:, None]
        row = (sample * tl.full([], channels, tl.int64) + channel) * length
        for begin in range(0, length, LENGTH):
            column = begin + tl.arange(0, LENGTH)[None, :]
            total += multiplied(
                grad, tangent, tangent_bias, saved, bias, target, grad_saved, row + column, channel,
                (sample < samples) & (column < length), gain, clamp,
                ACT, HAS_BIAS, HAS_CLAMP, HAS_TANGENT, HAS_TANGENT_BIAS, HAS_GRAD_SAVED,
            )  # fmt: skip
    tl.store(sums + tl.program_id(0), tl.sum(total).to(sums.dtype.element_ty))


@triton.jit
def multiply_columns(
    grad,  # [rows, channels]
    tangent,
    tangent_bias,
    saved,
    bias,
    target,
    grad_saved,
    sums,  # [programs along the rows, channels]
    gain,
    clamp,
    rows,
    channels,
    tiles_across,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_CLAMP: tl.constexpr,
    HAS_TANGENT: tl.constexpr,
    HAS_TANGENT_BIAS: tl.constexpr,
    HAS_GRAD_SAVED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    across = tl.program_id(0) % tiles_across
    down = tl.program_id(0) // tiles_across
    channel = across * CHANNELS + tl.arange(0, CHANNELS)
    row = down.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    index = row[:, None] * channels + channel[None, :]
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    summed = multiplied(
        grad, tangent, tangent_bias, saved, bias, target, grad_saved, index,
        tl.minimum(channel, channels - 1)[None, :], inside, gain, clamp,
        ACT, HAS_BIAS, HAS_CLAMP, HAS_TANGENT, HAS_TANGENT_BIAS, HAS_GRAD_SAVED,
    )  # fmt: skip
    total = tl.sum(summed, axis=0).to(sums.dtype.element_ty)
    tl.store(sums + down.to(tl.int64) * channels + channel, total, channel < channels)


# --- launches ----------------------------------------------------------------------------------------------


def bias_act(x: Tensor, bias: Tensor | None, act: int, gain: float, clamp: float) -> Tensor:
    """Y like x, on x's device and current stream."""
    y, count = torch.empty_like(x), x.numel()
    with torch.cuda.device_of(x):
        activate[(cdiv(count, BLOCK),)](
            x, x if bias is None else bias.contiguous(), y, gain, clamp, row_length(x), x.shape[1], count,
            ACT=act, HAS_BIAS=bias is not None, INDEX=index_type(count, BLOCK), BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return y


def bias_act_backward(
    grad: Tensor,
    saved: Tensor | None,
    bias: Tensor | None,
    act: int,
    gain: float,
    clamp: float,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """(gradient of x, gradient of the bias or empty)."""
    result, _, grad_bias = _launch(grad, None, None, saved, bias, act, gain, clamp, False, bias_dtype)
    return result, grad_bias


def bias_act_double_backward(
    grad: Tensor,
    tangent_x: Tensor,
    tangent_bias: Tensor | None,
    saved: Tensor | None,
    bias: Tensor | None,
    act: int,
    gain: float,
    clamp: float,
    with_saved: bool,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of backward's arguments: of its gradient, what is saved or empty, and the bias or empty."""
    return _launch(grad, tangent_x, tangent_bias, saved, bias, act, gain, clamp, with_saved, bias_dtype)


def _launch(
    grad: Tensor,
    tangent: Tensor | None,
    tangent_bias: Tensor | None,
    saved: Tensor | None,
    bias: Tensor | None,
    act: int,
    gain: float,
    clamp: float,
    with_saved: bool,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    result, channels, length = torch.empty_like(grad), grad.shape[1], row_length(grad)
    grad_saved = torch.empty_like(grad) if with_saved else grad.new_empty(0)
    tensors = (
        grad,
        grad if tangent is None else tangent,
        grad if tangent_bias is None else tangent_bias.contiguous(),
        grad if saved is None else saved,
        grad if bias is None else bias.contiguous(),
        result,
        grad_saved if with_saved else result,
    )
    constants = {
        "ACT": act,
        "HAS_BIAS": bias is not None,
        "HAS_CLAMP": clamp < math.inf,
        "HAS_TANGENT": tangent is not None,
        "HAS_TANGENT_BIAS": tangent_bias is not None,
        "HAS_GRAD_SAVED": with_saved,
    }
    if bias_dtype is None:
        count = grad.numel()
        with torch.cuda.device_of(grad):
            multiply[(cdiv(count, BLOCK),)](
                *tensors, gain, clamp, length, channels, count, **constants,
                INDEX=index_type(count, BLOCK), BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
        return result, grad_saved, grad.new_empty(0, dtype=torch.float32)
    outer = grad.numel() // (channels * length)
    rows, alone = TILE_ROWS, outer <= ALONE_ROWS
    if length > 1:
        alone = outer * length <= ALONE
        parts = 1 if alone else outer
    else:
        rows = next_power_of_2(outer) if alone else TILE_ROWS
        parts = cdiv(outer, rows)
    sums = grad.new_empty(parts * channels, dtype=bias_dtype if parts == 1 else torch.float32)
    warps = ALONE_WARPS if alone else WARPS
    with torch.cuda.device_of(grad):
        if length > 1:
            block = min(BLOCK, next_power_of_2(length))
            at_once = min(next_power_of_2(outer), ALONE_TILE // block) if alone else 1
            multiply_rows[(parts * channels,)](
                *tensors, sums, gain, clamp, outer, channels, length, outer if alone else 1, **constants,
                SAMPLES=at_once, LENGTH=block, num_warps=warps,
            )  # fmt: skip
        else:
            across = cdiv(channels, TILE_CHANNELS)
            multiply_columns[(parts * across,)](
                *tensors, sums, gain, clamp, outer, channels, across, **constants,
                ROWS=rows, CHANNELS=TILE_CHANNELS, num_warps=warps,
            )  # fmt: skip
    return result, grad_saved, sums if parts == 1 else sums.view(parts, channels).sum(dim=0).to(bias_dtype)
