"""Triton kernels of `fastgan.ops.side_losses`, which documents the formulas.

One launch sweeps the logits of all scales. Up to ALONE logits one program processes all of them and
completes the sums itself. Of more, a program sums its share of one scale, and `finish_sides` adds these in a
fixed order: no atomics, the same bits for the same input.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type, next_power_of_2
from fastgan.kernels.adversarial import BLOCK, SHARE, WARPS, side, store_side

# The largest number of tensors, as in fastgan.ops.side_losses.
MOST = 6
# The most logits that one program processes alone: three scales of 16 1 30 30. By arithmetic, not yet by
# measurement, that takes 12 us more on a GPU than a second launch, which takes as long on the host.
ALONE = 3 << 14
# Partial sums per program: loss, logits, probabilities, correct ones, violations.
SUMS = tl.constexpr(5)


@triton.jit
def sides(
    l0, l1, l2, l3, l4, l5,  # logits, real before fake; the first COUNT
    n0, n1, n2, n3, n4, n5,  # their counts
    slopes,  # of all logits, one tensor after the other, float32; not touched unless HAS_SLOPES
    loss,  # 0-d float32, or of all logits if EACH
    statistics,  # [COUNT, 4] float32; not touched unless WITH_STATISTICS
    partial_sums,  # [programs, SUMS] float32, instead of loss and statistics if PARTIAL
    share,
    sign,
    real_label,
    fake_label,
    threshold,
    factor,
    COUNT: tl.constexpr,
    REALS: tl.constexpr,  # the first of them are real
    GAME: tl.constexpr,
    MEAN: tl.constexpr,  # within a tensor; else sums
    EACH: tl.constexpr,  # neither: a loss per logit
    WITH_STATISTICS: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    PARTIAL: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    logits = (l0, l1, l2, l3, l4, l5)
    counts = (n0, n1, n2, n3, n4, n5)
    program = tl.program_id(0)
    partial_sums += program.to(INDEX) * SUMS
    total = 0.0
    for i in tl.static_range(COUNT):
        count = counts[i]
        label = fake_label
        if i < REALS:
            label = real_label
        weight = sign * factor
        if MEAN:
            weight /= count
        if PARTIAL:
            parts = tl.cdiv(count, share)
            if (program >= 0) & (program < parts):
                begin = program.to(INDEX) * share
                term, logit, probability, correct, violation = side(
                    logits[i], slopes, loss, begin, tl.minimum(begin + share, count), sign, label,
                    1.0 if i < REALS else -1.0, threshold, weight, factor, GAME, HAS_SLOPES, EACH, BLOCK,
                )  # fmt: skip
                tl.store(partial_sums, term)
                store_side(partial_sums + 1, 1.0, logit, probability, correct, violation)
            program -= parts
        else:
            term, logit, probability, correct, violation = side(
                logits[i], slopes, loss, 0, count, sign, label, 1.0 if i < REALS else -1.0, threshold, weight,
                factor, GAME, HAS_SLOPES, EACH, BLOCK,
            )  # fmt: skip
            if MEAN:
                term /= count
            total += term
            if WITH_STATISTICS:
                store_side(statistics + 4 * i, count, logit, probability, correct, violation)
        slopes += count
        if EACH:
            loss += count
    if not PARTIAL and not EACH:
        tl.store(loss, factor * total)


@triton.jit
def column(partial_sums, parts, number: tl.constexpr, BLOCK: tl.constexpr):
    sums = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, parts, BLOCK):
        part = begin + tl.arange(0, BLOCK)
        sums += tl.load(partial_sums + part * SUMS + number, part < parts, 0.0)
    return tl.sum(sums)


@triton.jit
def finish_sides(
    partial_sums,
    loss,
    statistics,
    n0, n1, n2, n3, n4, n5,
    share,
    factor,
    COUNT: tl.constexpr,
    MEAN: tl.constexpr,
    EACH: tl.constexpr,
    WITH_STATISTICS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    counts = (n0, n1, n2, n3, n4, n5)
    total = 0.0
    for i in tl.static_range(COUNT):
        count = counts[i]
        parts = tl.cdiv(count, share)
        if not EACH:
            term = column(partial_sums, parts, 0, BLOCK)
            if MEAN:
                term /= count
            total += term
        if WITH_STATISTICS:
            for number in tl.static_range(4):
                tl.store(statistics + 4 * i + number, column(partial_sums, parts, 1 + number, BLOCK) / count)
        partial_sums += parts * SUMS
    if not EACH:
        tl.store(loss, factor * total)


def side_losses(
    logits: list[Tensor], reals: int, game: int, sign: float, real_label: float, fake_label: float,
    factor: float, reduction: int, with_statistics: bool, with_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss or losses, statistics or empty, slopes or empty), on the logits' device and current stream."""
    first, scales = logits[0], len(logits)
    counts = [each.numel() for each in logits]
    total, mean, each = sum(counts), reduction == 0, reduction == 2
    loss = first.new_empty(total if each else (), dtype=torch.float32)
    statistics = first.new_empty((scales if with_statistics else 0, 4), dtype=torch.float32)
    slopes = first.new_empty(total if with_slopes else 0, dtype=torch.float32)
    partial = total > ALONE
    parts = sum(cdiv(count, SHARE) for count in counts) if partial else 1
    partial_sums = first.new_empty(parts * SUMS.value, dtype=torch.float32) if partial else loss
    padding = MOST - scales
    with torch.cuda.device_of(first):
        sides[(parts,)](
            *logits, *(first,) * padding, *counts, *(1,) * padding, slopes, loss, statistics, partial_sums,
            SHARE, sign, real_label, fake_label, (real_label + fake_label) / 2 if game == 1 else 0.0, factor,
            COUNT=scales, REALS=reals, GAME=game, MEAN=mean, EACH=each, WITH_STATISTICS=with_statistics,
            HAS_SLOPES=with_slopes, PARTIAL=partial, INDEX=index_type(total, SHARE),
            BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        if partial and (with_statistics or not each):
            most = cdiv(max(counts), SHARE)
            finish_sides[(1,)](
                partial_sums, loss, statistics, *counts, *(1,) * padding, SHARE, factor, COUNT=scales,
                MEAN=mean, EACH=each, WITH_STATISTICS=with_statistics,
                BLOCK=min(BLOCK, next_power_of_2(most)),
            )  # fmt: skip
    return loss, statistics, slopes
