"""Triton kernels of `fastgan.ops.frequency_distance`; `fastgan.losses.focal_frequency_loss` has the formula.

A program of `sweep` sums the weighted squares of one part of a plane, divided by the largest weight of the
part, so that powers do not overflow. `join` puts the parts under their common maximum, and `finish` adds the
planes: in a fixed order, so the same input gives the same bits, and without atomics. Backward is one launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, next_power_of_2
from fastgan.kernels._samples import finish

# Chosen by arithmetic, not yet by measurement: a thread takes 4 pairs, as two 16-byte accesses. The float64
# of powers and logarithms leaves no registers for more.
WARPS = 4
BLOCK = 4 * 32 * WARPS
# Parts that `join` and `finish` add at once, at most.
SUMS = 1024


@triton.jit
def pairs_of(pairs, begin, count, BLOCK: tl.constexpr):
    """Real and imaginary parts, 0 beyond the end of the plane."""
    index = 2 * begin + tl.arange(0, 2 * BLOCK)
    return tl.split(tl.reshape(tl.load(pairs + index, index < 2 * count, 0.0), [BLOCK, 2]))


@triton.jit
def weights_of(
    squares, matrix, plane, begin, count, patches, channels, stride_sample, stride_patch, stride_channel,
    exponent, IS_ROOT: tl.constexpr, LOG: tl.constexpr, HAS_MATRIX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Before they are divided by their maximum; or the matrix's, by sample, patch and channel."""
    if HAS_MATRIX:
        index = begin + tl.arange(0, BLOCK)
        sample, patch, channel = plane // (patches * channels), plane // channels % patches, plane % channels
        matrix += sample * stride_sample + patch * stride_patch + channel * stride_channel
        weights = tl.load(matrix + index, index < count, 0.0)
    else:
        if IS_ROOT:
            weights = tl.sqrt_rn(squares)
        else:
            # In float64, since a float32 exponent of large numbers would lose digits. Powers of 0 are exact,
            # as infinities go through both functions.
            wide_exponent = tl.full([], exponent, tl.float64)
            power = tl.exp(wide_exponent * tl.log(squares.to(tl.float64)))
            weights = tl.where(wide_exponent == 0.0, 1.0, power).to(tl.float32)
        if LOG:
            wide = weights.to(tl.float64)
            sum_of = 1.0 + wide
            logarithm = tl.log(sum_of) + (wide - (sum_of - 1.0)) / sum_of
            weights = tl.where(wide == float("inf"), wide, logarithm).to(tl.float32)
    return weights


@triton.jit
def weighed_pairs(
    spectrum, matrix, plane, begin, count, patches, channels, stride_sample, stride_patch, stride_channel,
    exponent, scale, IS_ROOT: tl.constexpr, LOG: tl.constexpr, HAS_MATRIX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Real and imaginary parts, squared magnitudes of an orthonormal transform, and weights."""
    real, imaginary = pairs_of(spectrum + 2 * plane * count, begin, count, BLOCK)
    squares = scale * (real * real + imaginary * imaginary)
    weights = weights_of(
        squares, matrix, plane, begin, count, patches, channels, stride_sample, stride_patch, stride_channel,
        exponent, IS_ROOT, LOG, HAS_MATRIX, BLOCK,
    )  # fmt: skip
    return real, imaginary, squares, weights


@triton.jit
def sweep(
    spectrum,  # [planes, count, 2]
    matrix,  # [samples, patches, channels, count], count contiguous; not touched unless HAS_MATRIX
    sums,  # [planes, parts] float32
    largest,  # [planes, parts] float32
    count,
    columns,
    parts,
    patches,
    channels,
    stride_sample,
    stride_patch,
    stride_channel,
    exponent,
    scale,  # 1 / (H W), of the squares of an orthonormal transform
    IS_EVEN: tl.constexpr,  # whether the image's width is
    IS_ROOT: tl.constexpr,
    LOG: tl.constexpr,
    HAS_MATRIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    plane = (tl.program_id(0) // parts).to(tl.int64)
    begin = (tl.program_id(0) % parts) * BLOCK
    _, _, squares, weights = weighed_pairs(
        spectrum, matrix, plane, begin, count, patches, channels, stride_sample, stride_patch, stride_channel,
        exponent, scale, IS_ROOT, LOG, HAS_MATRIX, BLOCK,
    )  # fmt: skip
    index = begin + tl.arange(0, BLOCK)
    inside = index < count
    is_nan = tl.sum((inside & (weights != weights)).to(tl.int32)) > 0
    maximum = tl.max(tl.where(inside & (weights == weights), weights, 0.0))
    maximum = tl.where(is_nan, float("nan"), maximum)
    column = index % columns
    once = column == 0
    if IS_EVEN:
        once = once | (column == columns - 1)
    if HAS_MATRIX:  # its weights are not divided, and a NaN among them reaches the loss
        maximum = tl.full([], 1.0, tl.float32)
        divided = weights
    else:
        divided = weights / maximum
        # Also where 0 or infinity is divided by itself.
        divided = tl.where(divided == divided, divided, 0.0)
    products = tl.where(inside, divided * squares, 0.0)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(once, products, 2.0 * products)))
    tl.store(largest + tl.program_id(0), maximum)


@triton.jit
def join(
    sums,  # [groups, parts] float32
    largest,  # [groups, parts] float32
    totals,  # [groups] float32
    maxima,  # [groups] float32
    parts,
    BLOCK: tl.constexpr,
):
    """The maximum of each group of parts, and the sum of their products divided by it."""
    group = tl.program_id(0).to(tl.int64)
    sums += group * parts
    largest += group * parts
    lane = tl.arange(0, BLOCK)
    maximum = tl.zeros([BLOCK], tl.float32)
    nans = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, parts, BLOCK):
        of_parts = tl.load(largest + begin + lane, begin + lane < parts, 0.0)
        nans += (of_parts != of_parts).to(tl.int32)
        maximum = tl.maximum(maximum, tl.where(of_parts == of_parts, of_parts, 0.0))
    of_group = tl.where(tl.sum(nans) > 0, float("nan"), tl.max(maximum))
    total = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, parts, BLOCK):
        inside = begin + lane < parts
        share = tl.load(largest + begin + lane, inside, 0.0) / of_group
        share = tl.where(share == share, share, 0.0)
        total += (share * tl.load(sums + begin + lane, inside, 0.0)).to(tl.float64)
    tl.store(totals + group, tl.sum(total).to(tl.float32))
    tl.store(maxima + group, of_group)


@triton.jit
def differentiate(
    spectrum,  # [planes, count, 2]
    maxima,  # [planes] float32, or [1] if OF_BATCH
    matrix,  # as for `sweep`
    vectors,  # [planes, count, 2]; not touched if SAME, being the spectrum
    grad,  # 0-d
    result,  # [planes, count, 2]
    count,
    parts,
    patches,
    channels,
    stride_sample,
    stride_patch,
    stride_channel,
    exponent,
    scale,
    factor,
    OF_BATCH: tl.constexpr,
    SAME: tl.constexpr,
    IS_ROOT: tl.constexpr,
    LOG: tl.constexpr,
    HAS_MATRIX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    plane = (tl.program_id(0) // parts).to(tl.int64)
    begin = (tl.program_id(0) % parts) * BLOCK
    real, imaginary, _, weights = weighed_pairs(
        spectrum, matrix, plane, begin, count, patches, channels, stride_sample, stride_patch, stride_channel,
        exponent, scale, IS_ROOT, LOG, HAS_MATRIX, BLOCK,
    )  # fmt: skip
    if not HAS_MATRIX:
        weights = weights / tl.load(maxima + (0 if OF_BATCH else plane))
        weights = tl.where(weights == weights, weights, 0.0)
    slopes = factor * tl.load(grad).to(tl.float32) * weights
    if not SAME:
        real, imaginary = pairs_of(vectors + 2 * plane * count, begin, count, BLOCK)
    values = tl.reshape(tl.join(slopes * real, slopes * imaginary), [2 * BLOCK])
    index = 2 * begin + tl.arange(0, 2 * BLOCK)
    tl.store(result + 2 * plane * count + index, values, index < 2 * count)


def _of_matrix(spectrum: Tensor, matrix: Tensor | None) -> tuple[int, ...]:
    """Patches, channels, and the matrix's strides of samples, patches and channels."""
    strides = (0, 0, 0) if matrix is None else matrix.stride()[:3]
    return (spectrum.shape[1], spectrum.shape[2], *strides)


def frequency_distance(
    spectrum: Tensor, matrix: Tensor | None, width: int, alpha: float, log_matrix: bool, batch_matrix: bool
) -> tuple[Tensor, Tensor]:
    """(loss 0-d, maxima of all planes or one), on the spectrum's device and current stream."""
    rows, columns = spectrum.shape[3:5]
    count = rows * columns
    planes, parts = spectrum.numel() // (2 * count), cdiv(count, BLOCK)
    groups = 1 if batch_matrix else planes
    sums, largest = spectrum.new_empty((2, planes, parts)).unbind()
    totals, maxima, loss = spectrum.new_empty(groups), spectrum.new_empty(groups), spectrum.new_empty(())
    parts_of_group = planes * parts // groups
    with torch.cuda.device_of(spectrum):
        sweep[(planes * parts,)](
            spectrum, spectrum if matrix is None else matrix, sums, largest, count, columns, parts,
            *_of_matrix(spectrum, matrix), alpha / 2, 1 / (rows * width), IS_EVEN=width % 2 == 0,
            IS_ROOT=alpha == 1, LOG=log_matrix, HAS_MATRIX=matrix is not None, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        join[(groups,)](
            sums, largest, totals, maxima, parts_of_group, BLOCK=min(SUMS, next_power_of_2(parts_of_group))
        )
        finish[(1,)](totals, loss, groups, planes * rows * width, BLOCK=min(SUMS, next_power_of_2(groups)))
    return loss, maxima


def frequency_distance_backward(
    spectrum: Tensor,
    maxima: Tensor,
    matrix: Tensor | None,
    vectors: Tensor,
    grad: Tensor,
    width: int,
    alpha: float,
    log_matrix: bool,
) -> Tensor:
    """2 grad / n times the weights times the vectors, like the spectrum."""
    rows, columns = spectrum.shape[3:5]
    count = rows * columns
    planes, parts = spectrum.numel() // (2 * count), cdiv(count, BLOCK)
    result = torch.empty_like(spectrum)
    with torch.cuda.device_of(spectrum):
        differentiate[(planes * parts,)](
            spectrum, maxima, spectrum if matrix is None else matrix, vectors, grad, result, count, parts,
            *_of_matrix(spectrum, matrix), alpha / 2, 1 / (rows * width), 2 / planes / (rows * width) ** 2,
            OF_BATCH=maxima.numel() == 1, SAME=vectors is spectrum, IS_ROOT=alpha == 1,
            LOG=log_matrix, HAS_MATRIX=matrix is not None, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return result
