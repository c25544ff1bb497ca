"""Triton kernels of `fastgan.ops.gradient_budget`, which documents the formula.

A program of `sweep` reads its part of all gradients once, writes their weighted sum, and adds up the products
of each pair in one register per thread; `finish` adds the programs' sums in a fixed order, so the same input
gives the same bits. Two launches, no atomics. The sums for more than UNSPLIT gradients would not fit in a
thread's 255 registers: one sweep then takes the pairs within each half of the list, another those between.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type, next_power_of_2

# Chosen by arithmetic, not yet by measurement: a thread reads 16 bytes of each gradient at a time, or two
# elements of more than FEW, to leave registers for the sums.
WARPS = 4
THREADS = 32 * WARPS
FEW = 8
UNSPLIT = 12
# Adding up a pair's sums over the threads takes as many instructions as some 30 products, which is divided by
# the passes of a program. Below LARGE elements, eight passes would leave multiprocessors of an H100 idle.
PASSES = 8
LARGE = 1 << 20
# The public function takes 16 gradients; theirs are those of one more.
MOST = 17
# Partial sums that `finish` adds at once, at most.
BLOCK = 1024


@triton.jit
def sweep(
    g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11, g12, g13, g14, g15, g16,  # [elements]; the first COUNT
    weights,  # [COUNT]; not touched unless HAS_WEIGHTS
    total,  # [elements]; not touched if BETWEEN
    partial_sums,  # [pairs, programs] float32
    weight_stride,
    elements,
    programs,
    COUNT: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    WITHIN: tl.constexpr,  # whether to sum the pairs within each half of the gradients, and the total
    BETWEEN: tl.constexpr,  # whether to sum the other pairs
    INDEX: tl.constexpr,
    RUN: tl.constexpr,
    PASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    gradients = (g0, g1, g2, g3, g4, g5, g6, g7, g8, g9, g10, g11, g12, g13, g14, g15, g16)
    sums = (tl.zeros([BLOCK // RUN], tl.float32),) * (COUNT * (COUNT + 1) // 2)
    first = tl.program_id(0).to(INDEX) * (BLOCK * PASSES)
    for step in range(PASSES):
        start = first + step * BLOCK + RUN * tl.arange(0, BLOCK // RUN)
        index = start[:, None] + tl.arange(0, RUN)[None, :]
        inside = index < elements
        rows = ()
        for i in tl.static_range(COUNT):
            rows += (tl.load(gradients[i] + index, inside, 0.0).to(tl.float32),)  # type: ignore[assignment]
        if WITHIN:
            weighted = tl.zeros([BLOCK // RUN, RUN], tl.float32)
            for i in tl.static_range(COUNT):
                if HAS_WEIGHTS:
                    weighted += tl.load(weights + i * weight_stride) * rows[i]
                else:
                    weighted += rows[i]
            tl.store(total + index, weighted.to(total.dtype.element_ty), inside)
        added = ()
        for i in tl.static_range(COUNT):
            for j in tl.static_range(i, COUNT):
                sum_so_far = sums[i * COUNT - i * (i - 1) // 2 + j - i]
                if WITHIN if (2 * i < COUNT) == (2 * j < COUNT) else BETWEEN:
                    sum_so_far += tl.sum(rows[i] * rows[j], axis=1)
                added += (sum_so_far,)  # type: ignore[assignment]
        sums = added
    partial_sums += tl.program_id(0)
    for i in tl.static_range(COUNT):
        for j in tl.static_range(i, COUNT):
            if WITHIN if (2 * i < COUNT) == (2 * j < COUNT) else BETWEEN:
                tl.store(partial_sums, tl.sum(sums[i * COUNT - i * (i - 1) // 2 + j - i]))
            partial_sums += programs


@triton.jit
def finish(
    partial_sums,  # [pairs, programs] float32
    gram,  # [COUNT, COUNT] float32
    programs,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds the sums of a pair, for both of its places in the matrix alike."""
    place = tl.program_id(0)
    i = tl.minimum(place // COUNT, place % COUNT)
    j = tl.maximum(place // COUNT, place % COUNT)
    pair = i * COUNT - i * (i - 1) // 2 + j - i
    partial_sums += pair.to(tl.int64) * programs
    lane = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, programs, BLOCK):
        sums += tl.load(partial_sums + begin + lane, begin + lane < programs, 0.0).to(tl.float64)
    tl.store(gram + place, tl.sum(sums).to(tl.float32))


def run_of(rows: list[Tensor]) -> int:
    """The adjacent elements that a thread reads at a time."""
    if any(row.storage_offset() * row.itemsize % 16 for row in rows):
        return 1  # longer runs without vectors would be divided among threads
    return 16 // rows[0].itemsize if len(rows) <= FEW else 2


def gradient_budget(gradients: list[Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """(gram (T, T) float32, total like the first gradient), on its device and current stream."""
    first, count = gradients[0], len(gradients)
    elements = first.numel()
    total = torch.empty_like(first)
    gram = first.new_empty((count, count), dtype=torch.float32)
    with torch.cuda.device_of(first):
        rows = [gradient if _alike(gradient, total) else _copied(gradient, total) for gradient in gradients]
        run, passes = run_of(rows), PASSES if elements >= LARGE else 1
        block = THREADS * run
        programs = cdiv(elements, block * passes)
        partial_sums = first.new_empty((count * (count + 1) // 2, programs), dtype=torch.float32)
        rows += rows[:1] * (MOST - count)
        for within, between in [(True, True)] if count <= UNSPLIT else [(True, False), (False, True)]:
            sweep[(programs,)](
                *rows,
                partial_sums if weights is None else weights,
                total,
                partial_sums,
                0 if weights is None else weights.stride(0),
                elements,
                programs,
                COUNT=count,
                HAS_WEIGHTS=weights is not None,
                WITHIN=within,
                BETWEEN=between,
                INDEX=index_type(elements, block * passes),
                RUN=run,
                PASSES=passes,
                BLOCK=block,
                num_warps=WARPS,
            )
        finish[(count * count,)](
            partial_sums, gram, programs, COUNT=count, BLOCK=min(BLOCK, next_power_of_2(programs))
        )
    return gram, total


def _alike(gradient: Tensor, total: Tensor) -> bool:
    """Whether both have their elements in the same order in memory."""
    if gradient.stride() == total.stride():
        return True
    strides = zip(gradient.stride(), total.stride(), total.shape, strict=True)
    return all(one == other for one, other, size in strides if size > 1)


def _copied(gradient: Tensor, total: Tensor) -> Tensor:
    return torch.empty_like(total).copy_(gradient)
