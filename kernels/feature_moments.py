"""Triton kernels of `fastgan.ops.feature_moments`, which documents the formulas.

A program of `sweep` holds some pixels of a few channels of both maps in registers, takes their means, and
then sums of the deviations from these and of their products. `finish` adds a plane's parts in float64 and in
a fixed order, so the same input gives the same bits. Two launches, no atomics; backward is a third.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type, next_power_of_2

# Chosen by arithmetic, not yet by measurement: 8 values of each map per thread, two 16-byte accesses in
# float32. With 16 a thread would need more than 96 registers; not so in a sum over one long row, where they
# halve what adding up over the threads costs.
WARPS = 8
TILE = 8 * 32 * WARPS
LONG_TILE = 2 * TILE
# Channels of a tile in channels_last: 32 adjacent ones are whole 128-byte lines in float32, and leave as many
# pixels as keep the partial sums small.
MOST_CHANNELS = 32
# Of a part of a plane: both shifts, sums of the deviations from them, and of their products.
SUMS = tl.constexpr(7)
MOMENTS, RESTS = tl.constexpr(5), tl.constexpr(2)
# The most parts of a plane that `finish` adds at a time.
PARTS = 128


@triton.jit
def tile_of(
    channels,
    pixels,
    parts,
    groups,
    stride_channel,
    stride_pixel,
    INDEX: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """The number of the program's part, its planes and which of them exist; the first element of its sample,
    places of its elements from there, and which of them exist.
    """
    program = tl.program_id(0)
    part, group = program % parts, (program // parts) % groups
    sample = (program // (parts * groups)).to(tl.int64)
    channel = group * CHANNELS + tl.arange(0, CHANNELS)
    pixel = part * PIXELS + tl.arange(0, PIXELS)
    exists = channel < channels
    inside = exists[:, None] & (pixel < pixels)[None, :]
    place = channel.to(INDEX)[:, None] * stride_channel + pixel.to(INDEX)[None, :] * stride_pixel
    return part, sample * channels + channel, exists, sample * channels * pixels, place, inside


@triton.jit
def deviations(values, inside, count):
    """The mean of each row, and the deviations from it: from infinity, NaN."""
    mean = tl.sum(values, axis=1) / count
    return mean, tl.where(inside, values - mean[:, None], 0.0)


@triton.jit
def sweep(
    x,  # [samples, channels, pixels]
    y,  # [samples, channels, pixels], strides as x
    sums,  # [SUMS, samples, channels, parts] float32
    planes,
    channels,
    pixels,
    parts,
    groups,
    stride_channel,
    stride_pixel,
    INDEX: tl.constexpr,  # tl.int32 if a sample's elements allow
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    part, plane, exists, start, place, inside = tile_of(
        channels, pixels, parts, groups, stride_channel, stride_pixel, INDEX, CHANNELS, PIXELS
    )
    a = tl.load(x + start + place, inside, 0.0).to(tl.float32)
    b = tl.load(y + start + place, inside, 0.0).to(tl.float32)
    count = tl.minimum(pixels - part * PIXELS, PIXELS).to(tl.float32)
    shift_x, a = deviations(a, inside, count)
    shift_y, b = deviations(b, inside, count)
    sums += plane * parts + part
    stride = tl.full([], planes, tl.int64) * parts
    tl.store(sums, shift_x, exists)
    tl.store(sums + stride, shift_y, exists)
    tl.store(sums + 2 * stride, tl.sum(a, axis=1), exists)
    tl.store(sums + 3 * stride, tl.sum(b, axis=1), exists)
    tl.store(sums + 4 * stride, tl.sum(a * a, axis=1), exists)
    tl.store(sums + 5 * stride, tl.sum(b * b, axis=1), exists)
    tl.store(sums + 6 * stride, tl.sum(a * b, axis=1), exists)


@triton.jit
def part_of(sums, stride, part, parts, pixels, PIXELS: tl.constexpr):
    """(pixels of each part, its means, sums of deviations) in float64; zeros beyond the last part."""
    exists = part < parts
    count = tl.where(exists, tl.minimum(pixels - part * PIXELS, PIXELS), 0).to(tl.float64)
    divisor = tl.where(exists, count, 1.0)
    x = tl.load(sums + 2 * stride + part, exists, 0.0).to(tl.float64)
    y = tl.load(sums + 3 * stride + part, exists, 0.0).to(tl.float64)
    shift_x = tl.load(sums + part, exists, 0.0).to(tl.float64)
    shift_y = tl.load(sums + stride + part, exists, 0.0).to(tl.float64)
    # The deviations from an infinite shift are NaN.
    mean_x = tl.where(shift_x - shift_x == 0.0, shift_x + x / divisor, shift_x)
    mean_y = tl.where(shift_y - shift_y == 0.0, shift_y + y / divisor, shift_y)
    return exists, count, mean_x, mean_y, x, y


@triton.jit
def finish(
    sums,  # [SUMS, planes, parts] float32
    moments,  # [planes, MOMENTS] float32
    rests,  # [planes, RESTS] float32
    planes,
    parts,
    pixels,
    PIXELS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Adds the parts of a plane: their means, then the deviations about the mean of all."""
    plane = tl.program_id(0).to(tl.int64)
    sums += plane * parts
    stride = tl.full([], planes, tl.int64) * parts
    total_x = tl.zeros([PARTS], tl.float64)
    total_y = tl.zeros([PARTS], tl.float64)
    for begin in range(0, parts, PARTS):
        part = begin + tl.arange(0, PARTS)
        _, count, part_x, part_y, _, _ = part_of(sums, stride, part, parts, pixels, PIXELS)
        total_x += count * part_x
        total_y += count * part_y
    mean_x = tl.sum(total_x) / pixels
    mean_y = tl.sum(total_y) / pixels
    xx = tl.zeros([PARTS], tl.float64)
    yy = tl.zeros([PARTS], tl.float64)
    xy = tl.zeros([PARTS], tl.float64)
    for begin in range(0, parts, PARTS):
        part = begin + tl.arange(0, PARTS)
        exists, count, part_x, part_y, x, y = part_of(sums, stride, part, parts, pixels, PIXELS)
        part_x = tl.where(exists, part_x - mean_x, 0.0)
        part_y = tl.where(exists, part_y - mean_y, 0.0)
        divisor = tl.where(exists, count, 1.0)
        # About its own shift a part's products are larger than about its mean by those of the sums.
        xx += tl.load(sums + 4 * stride + part, exists, 0.0) - x * x / divisor + count * part_x * part_x
        yy += tl.load(sums + 5 * stride + part, exists, 0.0) - y * y / divisor + count * part_y * part_y
        xy += tl.load(sums + 6 * stride + part, exists, 0.0) - x * y / divisor + count * part_x * part_y
    moments += plane * MOMENTS
    rests += plane * RESTS
    rounded_x = mean_x.to(tl.float32)
    rounded_y = mean_y.to(tl.float32)
    tl.store(moments, rounded_x)
    tl.store(moments + 1, rounded_y)
    tl.store(moments + 2, (tl.sum(xx) / pixels).to(tl.float32))
    tl.store(moments + 3, (tl.sum(yy) / pixels).to(tl.float32))
    tl.store(moments + 4, (tl.sum(xy) / pixels).to(tl.float32))
    tl.store(rests, (mean_x - rounded_x).to(tl.float32))
    tl.store(rests + 1, (mean_y - rounded_y).to(tl.float32))


@triton.jit
def of_planes(numbers, exists, number: tl.constexpr):
    return tl.load(numbers + number, exists, 0.0)[:, None]


@triton.jit
def differentiate(
    x,  # [samples, channels, pixels]
    y,  # [samples, channels, pixels], strides as x
    moments,  # [planes, MOMENTS] float32
    rests,  # [planes, RESTS] float32
    grad,  # [planes, MOMENTS] float32
    grad_x,  # like x; not touched unless WITH_X
    grad_y,  # like y; not touched unless WITH_Y
    factor,  # 1 / pixels
    channels,
    pixels,
    parts,
    groups,
    stride_channel,
    stride_pixel,
    WITH_X: tl.constexpr,
    WITH_Y: tl.constexpr,
    INDEX: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    _, plane, exists, start, place, inside = tile_of(
        channels, pixels, parts, groups, stride_channel, stride_pixel, INDEX, CHANNELS, PIXELS
    )
    moments += plane * MOMENTS
    rests += plane * RESTS
    grad += plane * MOMENTS
    a = tl.load(x + start + place, inside, 0.0).to(tl.float32)
    b = tl.load(y + start + place, inside, 0.0).to(tl.float32)
    a = (a - of_planes(moments, exists, 0)) - of_planes(rests, exists, 0)
    b = (b - of_planes(moments, exists, 1)) - of_planes(rests, exists, 1)
    across = factor * of_planes(grad, exists, 4)
    if WITH_X:
        result = (
            factor * of_planes(grad, exists, 0) + 2 * factor * of_planes(grad, exists, 2) * a + across * b
        )
        tl.store(grad_x + start + place, result.to(grad_x.dtype.element_ty), inside)
    if WITH_Y:
        result = (
            factor * of_planes(grad, exists, 1) + 2 * factor * of_planes(grad, exists, 3) * b + across * a
        )
        tl.store(grad_y + start + place, result.to(grad_y.dtype.element_ty), inside)


def tiling(channels: int, pixels: int, channels_last: bool, longest: int) -> dict[str, int]:
    """The sides of a program's tile, which of one long row has `longest` values."""
    if channels_last:
        across = min(next_power_of_2(channels), MOST_CHANNELS)
        along = min(next_power_of_2(pixels), TILE // across)
    else:
        along = min(next_power_of_2(pixels), longest if pixels >= longest else TILE)
        across = min(next_power_of_2(channels), max(1, TILE // along))
    return {"CHANNELS": across, "PIXELS": along}


def arguments_of(x: Tensor, longest: int) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """(programs, the last arguments of `sweep` and `differentiate`, their constants)"""
    samples, channels = x.shape[:2]
    pixels = x.numel() // (samples * channels)
    channels_last = channels > 1 and x.stride(1) == 1
    sides = tiling(channels, pixels, channels_last, longest)
    parts, groups = cdiv(pixels, sides["PIXELS"]), cdiv(channels, sides["CHANNELS"])
    strides = (1, channels) if channels_last else (pixels, 1)
    # Of a tile that reaches beyond the sample, places go further than its elements.
    index = index_type((channels + sides["CHANNELS"]) * (pixels + sides["PIXELS"]), 0)
    sizes = (channels, pixels, parts, groups, *strides)
    return samples * groups * parts, sizes, {"INDEX": index, **sides}


def feature_moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(moments (N, C, 5), rests (N, C, 2)) float32, on the maps' device and current stream."""
    programs, sizes, tile = arguments_of(x, LONG_TILE)
    planes, (_, pixels, parts, *_) = x.shape[0] * x.shape[1], sizes
    sums = x.new_empty((SUMS.value, planes, parts), dtype=torch.float32)
    moments = x.new_empty((*x.shape[:2], MOMENTS.value), dtype=torch.float32)
    rests = x.new_empty((*x.shape[:2], RESTS.value), dtype=torch.float32)
    with torch.cuda.device_of(x):
        sweep[(programs,)](x, y, sums, planes, *sizes, **tile, num_warps=WARPS)
        finish[(planes,)](
            sums, moments, rests, planes, parts, pixels, PIXELS=tile["PIXELS"],
            PARTS=min(PARTS, next_power_of_2(parts)), num_warps=1,
        )  # fmt: skip
    return moments, rests


def feature_moments_backward(
    x: Tensor, y: Tensor, moments: Tensor, rests: Tensor, grad: Tensor, with_x: bool, with_y: bool
) -> tuple[Tensor, Tensor]:
    """(gradient of x, of y), like the maps, or empty where not wanted."""
    programs, sizes, tile = arguments_of(x, TILE)
    grad_x = torch.empty_like(x) if with_x else x.new_empty(0)
    grad_y = torch.empty_like(y) if with_y else y.new_empty(0)
    with torch.cuda.device_of(x):
        differentiate[(programs,)](
            x, y, moments, rests, grad, grad_x, grad_y, 1 / sizes[1], *sizes, WITH_X=with_x, WITH_Y=with_y,
            **tile, num_warps=WARPS,
        )  # fmt: skip
    return grad_x, grad_y
