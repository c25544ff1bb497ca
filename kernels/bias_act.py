"""Triton kernels of `fastgan.ops.bias_act`, which documents the formulas. One launch forward.

Tensors are traversed as by `fastgan.kernels.bias_leaky_relu`: in memory order, or with a bias gradient by
rows (contiguous tensors) or columns (channels last); `fastgan.kernels._channels` says who adds up what. The
same kernels compute backward and, with tangents, double backward. No atomics.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._activations import LINEAR, activated, derivatives
from fastgan.kernels._channels import BLOCK, TILE_CHANNELS, WARPS, ChannelSums, row_length
from fastgan.kernels._indexing import cdiv, index_type

# Half as many rows of a tile as there, since an element takes about twice the registers: with 32, double
# backward in bfloat16 spills.
TILE_ROWS, ALONE_ROWS = 16, 128


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
    result = torch.empty_like(grad)
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
                *tensors, gain, clamp, row_length(grad), grad.shape[1], count, **constants,
                INDEX=index_type(count, BLOCK), BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip
        return result, grad_saved, grad.new_empty(0, dtype=torch.float32)
    plan = ChannelSums.of(grad, TILE_ROWS, ALONE_ROWS)
    sums = plan.new_sums(grad, bias_dtype)
    with torch.cuda.device_of(grad):
        if plan.length > 1:
            multiply_rows[(plan.parts * plan.channels,)](
                *tensors, sums, gain, clamp, plan.outer, plan.channels, plan.length, plan.share, **constants,
                SAMPLES=plan.tile[0], LENGTH=plan.tile[1], num_warps=plan.warps,
            )  # fmt: skip
        else:
            across = cdiv(plan.channels, TILE_CHANNELS)
            multiply_columns[(plan.parts * across,)](
                *tensors, sums, gain, clamp, plan.outer, plan.channels, across, **constants,
                ROWS=plan.tile[0], CHANNELS=plan.tile[1], num_warps=plan.warps,
            )  # fmt: skip
    return result, grad_saved, plan.added(sums, bias_dtype)
