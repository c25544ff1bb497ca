"""Triton kernels of `fastgan.ops.feature_matching`, which documents the formula.

A program of `sweep` takes one segment of one pair of maps: its signs and its part of the loss, which `finish`
adds in a fixed order, so the same input gives the same bits. Two launches for all maps, no atomics; backward
is a third.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, next_power_of_2
from fastgan.kernels._samples import finish

# The largest number of pairs, and the code of NaN, as in fastgan.ops.feature_matching.
MOST = 16
NAN = tl.constexpr(2)
# Chosen by arithmetic, not yet by measurement: a thread takes 8 adjacent elements at a time, of which it
# writes 8 bytes of signs.
WARPS = 4
BLOCK = 8 * 32 * WARPS
# Partial sums that `finish` adds at once, at most.
SUMS = 1024


@triton.jit
def sweep(
    f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15,  # fake maps; the first COUNT
    r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15,  # real maps
    n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15,  # their elements
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15,  # weight / elements
    signs,  # [segments, SEGMENT] int8; not touched unless WITH_SIGNS
    slopes,  # [segments] float32; not touched unless WITH_SIGNS
    partial_sums,  # [segments] float32
    COUNT: tl.constexpr,
    SEGMENT: tl.constexpr,
    WITH_SIGNS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    fakes = (f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15)
    reals = (r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15)
    counts = (n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15)
    weights = (w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, w13, w14, w15)
    program = tl.program_id(0)
    fake, real, slope = f0, r0, tl.full([], w0, tl.float32)
    count, segment = tl.full([], n0, tl.int64), program
    first = program * 0
    for i in tl.static_range(COUNT):
        count_of_pair = tl.full([], counts[i], tl.int64)  # of a count of 1, Triton makes a constant
        segments = ((count_of_pair + (SEGMENT - 1)) // SEGMENT).to(tl.int32)
        mine = (program >= first) & (program < first + segments)
        # By selection, not by branches, each of which would have the code of the whole loop below.
        fake = tl.where(mine, fakes[i], fake)
        real = tl.where(mine, reals[i], real)
        count = tl.where(mine, count_of_pair, count)
        slope = tl.where(mine, weights[i], slope)
        segment = tl.where(mine, program - first, segment)
        first += segments
    begin = segment.to(tl.int64) * SEGMENT
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(SEGMENT // BLOCK):  # not unrolled, to leave registers for more warps
        place = step * BLOCK + tl.arange(0, BLOCK)
        inside = begin + place < count
        a = tl.load(fake + begin + place, inside, 0.0).to(tl.float32)
        b = tl.load(real + begin + place, inside, 0.0).to(tl.float32)
        difference = a - b
        total += tl.abs(difference)
        if WITH_SIGNS:
            sign = tl.where(difference > 0, 1, tl.where(difference < 0, -1, 0))
            sign = tl.where(difference != difference, NAN, sign)
            tl.store(signs + program.to(tl.int64) * SEGMENT + place, sign.to(tl.int8))
    tl.store(partial_sums + program, slope * tl.sum(total))
    if WITH_SIGNS:
        tl.store(slopes + program, slope)


@triton.jit
def apply_signs(
    signs,  # [segments, SEGMENT] int8
    slopes,  # [segments] float32
    grad,  # 0-d
    result,  # [segments, SEGMENT]
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    segment = tl.program_id(0) // (SEGMENT // BLOCK)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    factor = tl.load(grad).to(tl.float32) * tl.load(slopes + segment)
    sign = tl.load(signs + place)
    value = tl.where(sign == NAN, float("nan"), factor * sign.to(tl.float32))
    tl.store(result + place, value.to(result.dtype.element_ty))


def feature_matching(
    fake: list[Tensor], real: list[Tensor], weights: list[float], segment: int, with_signs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss 0-d, signs or empty, slopes or empty), on the maps' device and current stream."""
    first, pairs = fake[0], len(fake)
    counts = [each.numel() for each in fake]
    segments = sum(cdiv(count, segment) for count in counts)
    kept = segments if with_signs else 0
    loss = first.new_empty((), dtype=torch.float32)
    signs = first.new_empty((kept, segment), dtype=torch.int8)
    slopes = first.new_empty(kept, dtype=torch.float32)
    partial_sums = first.new_empty(segments, dtype=torch.float32)
    padding = MOST - pairs
    factors = [weight / count for weight, count in zip(weights, counts, strict=True)]
    with torch.cuda.device_of(first):
        sweep[(segments,)](
            *fake, *(first,) * padding, *real, *(real[0],) * padding, *counts, *(0,) * padding, *factors,
            *(0.0,) * padding, signs, slopes, partial_sums, COUNT=pairs, SEGMENT=segment,
            WITH_SIGNS=with_signs, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        finish[(1,)](partial_sums, loss, segments, 1, BLOCK=min(SUMS, next_power_of_2(segments)))
    return loss, signs, slopes


def feature_matching_backward(signs: Tensor, slopes: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Grad slope sign, (segments, segment) in the dtype."""
    result = torch.empty_like(signs, dtype=dtype)
    segment = signs.shape[1]
    with torch.cuda.device_of(signs):
        apply_signs[(signs.numel() // BLOCK,)](
            signs, slopes, grad, result, SEGMENT=segment, BLOCK=BLOCK, num_warps=WARPS
        )
    return result
