"""Triton kernels of `fastgan.ops.bias_leaky_relu`, which documents the formulas. One launch forward.

Tensors are traversed in memory order; an element's channel follows from its index, the length of a channel's
row and the number of channels. Backward with a bias gradient has a kernel for rows (contiguous tensors) and
one for columns (channels last); `fastgan.kernels._channels` says who adds up what. No atomics: the same input
gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._channels import BLOCK, TILE_CHANNELS, WARPS, ChannelSums, row_length
from fastgan.kernels._indexing import cdiv, index_type

# Rows of the tile in channels last, and the most that one program sums alone.
TILE_ROWS, ALONE_ROWS = 32, 256


@triton.jit
def factor_of(codes, slope, gain):
    factor = tl.where((codes & 2) != 0, 0.0, tl.where((codes & 1) != 0, gain, gain * slope))
    return tl.where((codes & 4) != 0, float("nan"), factor)


@triton.jit
def biased(source, bias, index, inside, length, channels, HAS_BIAS: tl.constexpr):
    """Elements of the source plus the biases of their channels."""
    value = tl.load(source + index, inside, 0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + (index // length) % channels, inside, 0.0).to(tl.float32)
    return value


@triton.jit
def activate(
    x,
    bias,  # [channels]; not touched unless HAS_BIAS
    y,
    codes,  # uint8; not touched unless HAS_CODES
    slope,
    gain,
    clamp,
    length,
    channels,
    count,
    HAS_BIAS: tl.constexpr,
    HAS_CODES: tl.constexpr,
    INDEX: tl.constexpr,  # tl.int32 if the count allows: 64-bit division is slow
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    value = biased(x, bias, index, inside, length, channels, HAS_BIAS)
    # With slope 0, minus infinity gives 0 as any negative number does, not 0 times infinity.
    negative = tl.where((slope == 0.0) & (value == float("-inf")), 0.0, slope * value)
    scaled = gain * tl.where(value > 0.0, value, negative)
    bounded = tl.where(scaled < -clamp, -clamp, tl.where(scaled > clamp, clamp, scaled))
    tl.store(y + index, bounded.to(y.dtype.element_ty), inside)
    if HAS_CODES:
        clamped = (scaled < -clamp) | (scaled > clamp)
        code = tl.where(clamped, 2, 0) + tl.where(value > 0.0, 1, 0) + tl.where(value != value, 4, 0)
        tl.store(codes + index, code.to(tl.uint8), inside)


@triton.jit
def multiply(
    source,
    bias,  # [channels]; not touched unless HAS_BIAS
    codes,
    target,
    slope,
    gain,
    length,
    channels,
    count,
    HAS_BIAS: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    value = biased(source, bias, index, inside, length, channels, HAS_BIAS)
    value *= factor_of(tl.load(codes + index, inside, 0), slope, gain)
    tl.store(target + index, value.to(target.dtype.element_ty), inside)


@triton.jit
def multiply_rows(
    source,  # [samples, channels, length]
    codes,
    target,
    sums,  # [parts, channels]; each part covers `share` samples
    slope,
    gain,
    samples,
    channels,
    length,
    share,
    SAMPLES: tl.constexpr,
    LENGTH: tl.constexpr,
):
    channel = tl.program_id(0) % channels
    first = (tl.program_id(0) // channels) * share
    total = tl.zeros([SAMPLES, LENGTH], tl.float32)
    for top in range(first, tl.minimum(first + share, samples), SAMPLES):
        sample = top + tl.arange(0, SAMPLES)[:, None]
        row = (sample * tl.full([], channels, tl.int64) + channel) * length
        for begin in range(0, length, LENGTH):
            column = begin + tl.arange(0, LENGTH)[None, :]
            inside = (sample < samples) & (column < length)
            value = tl.load(source + row + column, inside, 0.0).to(tl.float32)
            value *= factor_of(tl.load(codes + row + column, inside, 0), slope, gain)
            tl.store(target + row + column, value.to(target.dtype.element_ty), inside)
            total += value
    tl.store(sums + tl.program_id(0), tl.sum(total).to(sums.dtype.element_ty))


@triton.jit
def multiply_columns(
    source,  # [rows, channels]
    codes,
    target,
    sums,  # [programs along the rows, channels]
    slope,
    gain,
    rows,
    channels,
    tiles_across,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    across = tl.program_id(0) % tiles_across
    down = tl.program_id(0) // tiles_across
    channel = across * CHANNELS + tl.arange(0, CHANNELS)
    row = down.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    index = row[:, None] * channels + channel[None, :]
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    value = tl.load(source + index, inside, 0.0).to(tl.float32)
    value *= factor_of(tl.load(codes + index, inside, 0), slope, gain)
    tl.store(target + index, value.to(target.dtype.element_ty), inside)
    total = tl.sum(value, axis=0).to(sums.dtype.element_ty)
    tl.store(sums + down.to(tl.int64) * channels + channel, total, channel < channels)


def bias_leaky_relu(
    x: Tensor, bias: Tensor | None, slope: float, gain: float, clamp: float, with_codes: bool
) -> tuple[Tensor, Tensor]:
    """(y like x, codes like x or empty), on x's device and current stream."""
    y = torch.empty_like(x)
    codes = torch.empty_like(x, dtype=torch.uint8) if with_codes else x.new_empty(0, dtype=torch.uint8)
    count = x.numel()
    with torch.cuda.device_of(x):
        activate[(cdiv(count, BLOCK),)](
            x,
            x if bias is None else bias.contiguous(),
            y,
            codes,
            slope,
            gain,
            clamp,
            row_length(x),
            x.shape[1],
            count,
            HAS_BIAS=bias is not None,
            HAS_CODES=with_codes,
            INDEX=index_type(count, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return y, codes


def bias_leaky_relu_backward(
    grad: Tensor, codes: Tensor, slope: float, gain: float, bias_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """(gradient of x, gradient of the bias or empty)."""
    if bias_dtype is None:
        result = bias_leaky_relu_tangent(grad, None, codes, slope, gain)
        return result, grad.new_empty(0, dtype=torch.float32)
    result = torch.empty_like(grad)
    plan = ChannelSums.of(grad, TILE_ROWS, ALONE_ROWS)
    sums = plan.new_sums(grad, bias_dtype)
    with torch.cuda.device_of(grad):
        if plan.length > 1:
            multiply_rows[(plan.parts * plan.channels,)](
                grad, codes, result, sums, slope, gain, plan.outer, plan.channels, plan.length, plan.share,
                SAMPLES=plan.tile[0], LENGTH=plan.tile[1], num_warps=plan.warps,
            )  # fmt: skip
        else:
            across = cdiv(plan.channels, TILE_CHANNELS)
            multiply_columns[(plan.parts * across,)](
                grad, codes, result, sums, slope, gain, plan.outer, plan.channels, across,
                ROWS=plan.tile[0], CHANNELS=plan.tile[1], num_warps=plan.warps,
            )  # fmt: skip
    return result, plan.added(sums, bias_dtype)


def bias_leaky_relu_tangent(
    tangent_x: Tensor, tangent_bias: Tensor | None, codes: Tensor, slope: float, gain: float
) -> Tensor:
    """(tangent_x + tangent_bias) times the factors of the codes, like tangent_x."""
    result = torch.empty_like(tangent_x)
    count = tangent_x.numel()
    with torch.cuda.device_of(tangent_x):
        multiply[(cdiv(count, BLOCK),)](
            tangent_x,
            tangent_x if tangent_bias is None else tangent_bias.contiguous(),
            codes,
            result,
            slope,
            gain,
            row_length(tangent_x),
            tangent_x.shape[1],
            count,
            HAS_BIAS=tangent_bias is not None,
            INDEX=index_type(count, BLOCK),
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return result
