"""Triton kernels of `fastgan.ops.feature_distance`, which documents the formulas.

`sweep` holds all channels of a few pixels in registers, so that both maps are read once. It writes the
directions that are wanted and one partial sum per program. `finish` adds a sample's partial sums in a fixed
order, so the same input gives the same bits. Two launches, no atomics; backward is a third, `scale`.

A thread has the same pixels in all of a program's chunks of channels, so that it computes most of a sum over
channels by itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, next_power_of_2
from fastgan.kernels._samples import finish, scale

# Chosen by arithmetic for an H100, not yet by measurement: 16 values of each map per thread, which take 64
# registers with one direction.
VALUES = 16
# The values per tile that give each of a multiprocessor's four partitions a warp, the pixels of one 32-byte
# sector in half types, and the values that 16 warps can hold.
LEAST_TILE = 4 * 32 * VALUES
LEAST_PIXELS = 16
LARGEST_TILE = 16 * 32 * VALUES
# A chunk must have fewer channels than its program has threads. With more, Triton would distribute the
# weights over the threads, and move the maps through shared memory to the threads that hold them.
LARGEST_CHUNK = 256
TWO_DIRECTIONS_REGISTERS = 96  # on sm_100 the compiler would use one or two more
BLOCK = 1024  # of `scale` and `finish`
# The channels that a tile can hold; feature maps of perceptual losses have fewer.
MOST_CHANNELS = 4096


@triton.jit
def unit_scale(squares, eps):
    """1 / (norm + eps), and the multiple of x that a gradient subtracts per unit of sum_c u_c x_c."""
    norm = tl.sqrt(squares)  # approximate like rsqrt: one instruction, error of one unit in the last place
    # If the sum of squares overflows, the direction is unknown: NaN, instead of 1 / infinity = 0.
    inverse = 1.0 / (norm + eps) + (norm - norm)
    along = tl.where(norm > 0, inverse * inverse * tl.rsqrt(squares), 0.0)
    return inverse, along


@triton.jit
def add_pairs(a, b, c, d):
    return a + c, b + d


@triton.jit
def load(source, place, stride, exist):
    """Loads all chunks of a map or of the weights; `stride` is the distance between chunks in elements."""
    chunks: tl.tuple = ()
    for i in tl.static_range(len(exist)):
        chunks += (tl.load(source + i * stride + place, exist[i], 0.0).to(tl.float32),)
    return chunks


@triton.jit
def store_direction(
    direction,
    place,
    stride,
    exist,
    values,
    slopes,
    inverse,
    along,
    factor,
    NORMALIZE: tl.constexpr,
    RELU: tl.constexpr,
):
    """Stores factor (u_c inverse - along x_c sum_k u_k x_k) for each channel."""
    if NORMALIZE:
        total = slopes[0] * values[0]
        for i in tl.static_range(1, len(exist)):
            total = tl.fma(slopes[i], values[i], total)
        along = -factor * (along * tl.sum(total, axis=0)[None, :])
        factor *= inverse
    for i in tl.static_range(len(exist)):
        result = slopes[i] * factor
        if NORMALIZE:
            result = tl.fma(along, values[i], result)
        if RELU:
            result = tl.where(values[i] == 0, 0.0, result)
        tl.store(direction + i * stride + place, result.to(direction.dtype.element_ty), exist[i])


@triton.jit
def sweep(
    x,  # [samples, channels, pixels]
    y,  # [samples, channels, pixels], strides as x
    weight,  # [channels]; not touched unless HAS_WEIGHT
    weight_number,  # otherwise, the weight of every channel
    direction_x,  # like x; not touched unless WITH_X
    direction_y,  # like y; not touched unless WITH_Y
    partial_sums,  # [samples, parts] float32
    channels,
    pixels,
    parts,
    stride_channel,
    stride_pixel,
    eps,
    factor,
    HAS_WEIGHT: tl.constexpr,
    POWER: tl.constexpr,
    NORMALIZE: tl.constexpr,
    RELU_X: tl.constexpr,
    WITH_X: tl.constexpr,
    WITH_Y: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHANNELS: tl.constexpr,  # per chunk
    PIXELS: tl.constexpr,
):
    sample = (tl.program_id(0) // parts).to(tl.int64)
    part = (tl.program_id(0) % parts).to(tl.int64)
    channel = tl.arange(0, CHANNELS)[:, None]
    pixel = part * PIXELS + tl.arange(0, PIXELS)[None, :]
    place = sample * channels * pixels + channel.to(tl.int64) * stride_channel + pixel * stride_pixel
    stride = CHANNELS * tl.full([], stride_channel, tl.int64)
    channel_exists: tl.tuple = ()
    inside: tl.tuple = ()
    for i in tl.static_range(CHUNKS):
        channel_exists += (channel < channels - i * CHANNELS,)
        # Only the last chunk can have fewer channels.
        inside += ((pixel < pixels) if i < CHUNKS - 1 else (pixel < pixels) & channel_exists[i],)
    a = load(x, place, stride, inside)
    b = load(y, place, stride, inside)
    w: tl.tuple = ()
    for _ in tl.static_range(CHUNKS):
        w += (tl.full([CHANNELS, 1], weight_number, tl.float32),)
    if HAS_WEIGHT:
        w = load(weight, channel, CHANNELS, channel_exists)
    if RELU_X:
        rectified: tl.tuple = ()
        for i in tl.static_range(CHUNKS):
            rectified += (tl.where(a[i] < 0, 0.0, a[i]),)
        a = rectified
    inverse_a, along_a, inverse_b, along_b = 1.0, 0.0, 1.0, 0.0
    if NORMALIZE:
        total_a = a[0] * a[0]
        total_b = b[0] * b[0]
        for i in tl.static_range(1, CHUNKS):
            total_a = tl.fma(a[i], a[i], total_a)
            total_b = tl.fma(b[i], b[i], total_b)
        squares_a, squares_b = tl.reduce((total_a, total_b), 0, add_pairs)
        inverse_a, along_a = unit_scale(squares_a[None, :], eps)
        inverse_b, along_b = unit_scale(squares_b[None, :], eps)
    distance = tl.zeros([CHANNELS, PIXELS], tl.float32)
    slopes: tl.tuple = ()
    for i in tl.static_range(CHUNKS):
        difference = a[i] * inverse_a - b[i] * inverse_b
        if POWER == 1:
            distance = tl.fma(tl.abs(difference), w[i], distance)
            slopes += (tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, difference)) * w[i],)
        else:
            distance = tl.fma(difference * difference, w[i], distance)
            slopes += (difference * (2.0 * w[i]),)
    tl.store(partial_sums + tl.program_id(0), tl.sum(distance))
    if WITH_X:
        store_direction(
            direction_x, place, stride, inside, a, slopes, inverse_a, along_a, factor, NORMALIZE, RELU_X
        )
    if WITH_Y:
        store_direction(
            direction_y, place, stride, inside, b, slopes, inverse_b, along_b, -factor, NORMALIZE, False
        )


def tiling(channels: int) -> dict[str, int]:
    """The compile-time sizes of a program of `sweep`, and its warps."""
    padded = next_power_of_2(channels)
    chunk = min(max(1, padded // 4), LARGEST_CHUNK)
    pixels = min(max(LEAST_PIXELS, LEAST_TILE // padded), LARGEST_TILE // padded)
    return {
        "CHUNKS": cdiv(channels, chunk),
        "CHANNELS": chunk,
        "PIXELS": pixels,
        "num_warps": padded * pixels // (32 * VALUES),
    }


def feature_distance(
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    power: int,
    normalize: bool,
    eps: float,
    relu_x: bool,
    of_mean: bool,
    with_x: bool,
    with_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (N,) float32 and directions like x and y, empty where not wanted.

    Raises:
        ValueError: more channels than a tile holds.
    """
    samples, channels = x.shape[:2]
    if channels > MOST_CHANNELS:
        raise ValueError(
            f"feature_distance's GPU kernel takes up to {MOST_CHANNELS} channels, got {channels}; "
            "use backend='reference'"
        )
    pixels = x.numel() // (samples * channels)
    program = tiling(channels)
    parts = cdiv(pixels, program["PIXELS"])
    channels_last = channels > 1 and x.stride(1) == 1
    partial_sums = x.new_empty((samples, parts), dtype=torch.float32)
    distances = x.new_empty(samples, dtype=torch.float32)
    direction_x = torch.empty_like(x) if with_x else x.new_empty(0)
    direction_y = torch.empty_like(y) if with_y else y.new_empty(0)
    with torch.cuda.device_of(x):
        sweep[(samples * parts,)](
            x, y, x if weight is None else weight, 1 / channels, direction_x, direction_y, partial_sums,
            channels, pixels, parts,
            1 if channels_last else pixels, channels if channels_last else 1, eps,
            1 / (samples * pixels) if of_mean else 1.0,
            HAS_WEIGHT=weight is not None, POWER=power, NORMALIZE=normalize, RELU_X=relu_x, WITH_X=with_x,
            WITH_Y=with_y, **program,
            maxnreg=TWO_DIRECTIONS_REGISTERS if with_x and with_y and not channels_last else None,
            # Products and differences are rounded separately, so that the distance of equal features is zero.
            enable_fp_fusion=False,
        )  # fmt: skip
        finish[(samples,)](partial_sums, distances, parts, pixels, BLOCK=min(BLOCK, next_power_of_2(parts)))
    return distances, direction_x, direction_y


def feature_distance_backward(direction: Tensor, grad: Tensor, of_mean: bool) -> Tensor:
    """For each sample N grad direction if `of_mean`, else grad direction / P; like the direction."""
    result = torch.empty_like(direction)
    scale_samples(result, direction, grad, of_mean)
    return result


def feature_distance_backward_(direction: Tensor, grad: Tensor, of_mean: bool) -> None:
    """The same in place."""
    scale_samples(direction, direction, grad, of_mean)


def scale_samples(out: Tensor, direction: Tensor, grad: Tensor, of_mean: bool) -> None:
    samples, channels = direction.shape[:2]
    elements = direction.numel() // samples
    parts = cdiv(elements, BLOCK)
    factor = float(samples) if of_mean else channels / elements
    with torch.cuda.device_of(direction):
        scale[(samples * parts,)](
            direction, grad, out, elements, parts, factor, IN_PLACE=out is direction, BLOCK=BLOCK
        )
