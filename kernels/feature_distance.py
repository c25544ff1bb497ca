"""Triton kernels of `fastgan.ops.feature_distance`, which tells what is computed.

`sweep` holds all channels of a few pixels in registers, so that both maps are read once: it writes the
directions asked for and one partial sum per program. `finish` adds a sample's partial sums in a fixed
order, so the same input gives the same bits. Two launches, no atomics; `scale` is a third.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels._indexing import cdiv, next_power_of_2
from fastgan.kernels._samples import finish, scale
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: elements of a program's tile of each map, 4 for each thread
# of 16 warps, at 64 registers or fewer two programs to a multiprocessor. With up to 256 channels, where most
# of VGG's features are, that leaves 8 pixels and more, whole sectors of 32 bytes in float32.
TILE = 2048
WARPS = 16
BLOCK = 1024  # of `scale` and `finish`
# Channels that a tile can hold; more than these are no feature map of a perceptual loss.
MOST_CHANNELS = 4096


@triton.jit
def unit_scale(squares, eps):
    """1 / (norm + eps), and what a gradient takes off along the vector for each unit of sum_c u_c x_c."""
    norm = tl.sqrt_rn(squares)
    # Squares that overflow say nothing of the direction: NaN, not the zero that 1 over infinity would be.
    inverse = 1.0 / (norm + eps) + (norm - norm)
    along = tl.where(norm > 0, inverse * inverse / tl.where(norm > 0, norm, 1.0), 0.0)
    return inverse, along


@triton.jit
def sweep(
    x,  # [samples, channels, pixels]
    y,  # [samples, channels, pixels], strides as x
    weight,  # [channels]; not touched unless HAS_WEIGHT
    weight_number,  # elsewhere, of every channel
    direction_x,  # as x; not touched unless WITH_X
    direction_y,  # as y; not touched unless WITH_Y
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
    CHANNELS: tl.constexpr,  # the next power of two
    PIXELS: tl.constexpr,
):
    sample = (tl.program_id(0) // parts).to(tl.int64)
    part = (tl.program_id(0) % parts).to(tl.int64)
    channel = tl.arange(0, CHANNELS)[:, None]
    pixel = part * PIXELS + tl.arange(0, PIXELS)[None, :]
    inside = (channel < channels) & (pixel < pixels)
    place = sample * channels * pixels + channel.to(tl.int64) * stride_channel + pixel * stride_pixel
    a = tl.load(x + place, inside, 0.0).to(tl.float32)
    b = tl.load(y + place, inside, 0.0).to(tl.float32)
    w = weight_number
    if HAS_WEIGHT:
        w = tl.load(weight + channel, channel < channels, 0.0).to(tl.float32)
    if RELU_X:
        a = tl.where(a < 0, 0.0, a)
    if NORMALIZE:
        inverse_a, along_a = unit_scale(tl.sum(a * a, axis=0)[None, :], eps)
        inverse_b, along_b = unit_scale(tl.sum(b * b, axis=0)[None, :], eps)
        difference = a * inverse_a - b * inverse_b
    else:
        difference = a - b
    if POWER == 1:
        distance = tl.abs(difference)
        slope = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, difference)) * w
    else:
        distance = difference * difference
        slope = 2.0 * difference * w
    tl.store(partial_sums + tl.program_id(0), tl.sum(distance * w))
    if WITH_X:
        result = slope
        if NORMALIZE:
            result = slope * inverse_a - tl.sum(slope * a, axis=0)[None, :] * along_a * a
        if RELU_X:
            result = tl.where(a == 0, 0.0, result)
        tl.store(direction_x + place, (factor * result).to(direction_x.dtype.element_ty), inside)
    if WITH_Y:
        result = -slope
        if NORMALIZE:
            result = tl.sum(slope * b, axis=0)[None, :] * along_b * b - slope * inverse_b
        tl.store(direction_y + place, (factor * result).to(direction_y.dtype.element_ty), inside)


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
    """Distances (N,) float32 and directions like x and y, empty where not asked for.

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
    padded = next_power_of_2(channels)
    tile = max(1, TILE // padded)
    parts = cdiv(pixels, tile)
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
            HAS_WEIGHT=weight is not None, POWER=power, NORMALIZE=normalize, RELU_X=relu_x, WITH_X=with_x, WITH_Y=with_y, CHANNELS=padded,
            PIXELS=tile, num_warps=WARPS,
            # Products rounded apart from differences: the distance of equal features is zero.
            enable_fp_fusion=False,
        )  # fmt: skip
        finish[(samples,)](
            partial_sums, distances, parts, pixels, BLOCK=min(BLOCK, next_power_of_2(parts))
        )
    return distances, direction_x, direction_y


def feature_distance_backward(direction: Tensor, grad: Tensor, of_mean: bool, out: Tensor) -> None:
    """`out`, maybe the direction: of each sample N grad direction if `of_mean`, else grad direction / P."""
    samples, channels = direction.shape[:2]
    elements = direction.numel() // samples
    parts = cdiv(elements, BLOCK)
    factor = float(samples) if of_mean else channels / elements
    with torch.cuda.device_of(direction):
        scale[(samples * parts,)](
            direction, grad, out, elements, parts, factor, IN_PLACE=out is direction, BLOCK=BLOCK
        )
