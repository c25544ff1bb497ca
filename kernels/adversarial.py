"""Triton kernels of `fastgan.ops.adversarial`, which documents the formulas.

For up to some thousand logits one program processes all of them and completes the sums itself, in one launch.
For more (a discriminator of pixels has one logit for each) every program sums its share, and `finish` or
`finish_discriminator` adds these in a fixed order: no atomics, the same bits for the same input.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, index_type, next_power_of_2
from fastgan.kernels._samples import finish

# Chosen by arithmetic, not yet by measurement: 8 warps, 4 logits per thread.
BLOCK = 1024
WARPS = 8
# The most logits of one side that one program sums alone, for D and for G, whose passes are shorter. That
# takes some 3 us more than many programs would, as long as their second launch. SHARE: logits per program
# where there are more.
ALONE = {False: 8 * BLOCK, True: 16 * BLOCK}
SHARE = 2 * BLOCK
# Partial sums per program: loss, logits, probabilities, correct ones, violations; for real, then for fake.
COLUMNS = tl.constexpr(10)

CROSS_ENTROPY = tl.constexpr(0)
LEAST_SQUARES = tl.constexpr(1)
HINGE = tl.constexpr(2)
WASSERSTEIN = tl.constexpr(3)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) as max(x, 0) and the rest; its derivative, the logistic function of x; 1 - derivative.

    Kept in parts, because their sums would cancel near a label.
    """
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    square = s * s
    series = 1 / 7 + square * (1 / 9 + square * (1 / 11 + square * (1 / 13)))
    series = 1 / 3 + square * (1 / 5 + square * series)
    rest = 2.0 * (s + s * square * series)
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    positive = tl.where(x <= 0.0, 0.0, x)  # keeps NaN
    return positive, rest, tl.where(x < 0.0, smaller, larger), tl.where(x < 0.0, larger, smaller)


@triton.jit
def side(
    logits,
    slopes,
    losses,  # not touched unless HAS_LOSSES
    begin,
    end,
    sign,
    label,
    target: tl.constexpr,  # +1 for real, -1 for fake
    threshold,
    slope_factor,
    loss_factor,  # of the losses that are stored, not of their sum
    GAME: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_LOSSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums over one side's logits from `begin` to `end`, in the order of COLUMNS."""
    loss = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    probability = tl.zeros([BLOCK], tl.float32)
    correct = tl.zeros([BLOCK], tl.float32)
    violation = tl.zeros([BLOCK], tl.float32)
    for place in range(begin, end, BLOCK):
        index = place + tl.arange(0, BLOCK)
        inside = index < end
        logit = tl.load(logits + index, inside, 0.0).to(tl.float32)
        signed = sign * logit
        _, rest, chance, complement = softplus(signed)
        if GAME == CROSS_ENTROPY:
            # Zero times infinity is 0 here, its limit; `rest` brings NaN in.
            weight = tl.where(signed > 0.0, 1.0 - label, -label)
            term = tl.where(weight != 0.0, weight * signed, 0.0) + rest
            slope = (1.0 - label) * chance - label * complement
        elif GAME == LEAST_SQUARES:
            slope = signed - label
            term = 0.5 * slope * slope
        elif GAME == HINGE:
            missing = 1.0 - target * signed
            term = tl.where(missing < 0.0, 0.0, missing)
            slope = tl.where(missing > 0.0, -target + 0.0, tl.where(missing <= 0.0, 0.0, missing))
        else:
            term = -target * signed
            slope = tl.zeros([BLOCK], tl.float32) - target
        loss += tl.where(inside, term, 0.0)
        total += logit
        probability += tl.where(inside, chance, 0.0)
        correct += tl.where(inside & (target * (signed - threshold) > 0.0), 1.0, 0.0)
        violation += tl.where(inside & (target * signed < 1.0), 1.0, 0.0)
        if HAS_SLOPES:
            tl.store(slopes + index, slope * slope_factor, inside)
        if HAS_LOSSES:
            tl.store(losses + index, term * loss_factor, inside)
    return tl.sum(loss), tl.sum(total), tl.sum(probability), tl.sum(correct), tl.sum(violation)


@triton.jit
def side_of_pairs(
    raised, lowered, raised_slopes, lowered_slopes, begin, end, count, sign, HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum of softplus(raised - lowered)."""
    total = tl.zeros([BLOCK], tl.float32)
    for place in range(begin, end, BLOCK):
        index = place + tl.arange(0, BLOCK)
        inside = index < end
        above = tl.load(raised + index, inside, 0.0).to(tl.float32)
        below = tl.load(lowered + index, inside, 0.0).to(tl.float32)
        positive, rest, slope, _ = softplus(sign * (above - below))
        total += tl.where(inside, positive + rest, 0.0)
        if HAS_SLOPES:
            slope *= sign / count
            tl.store(raised_slopes + index, slope, inside)
            tl.store(lowered_slopes + index, -slope, inside)
    return tl.sum(total)


@triton.jit
def share_of_program(count, share, PARTIAL: tl.constexpr, INDEX: tl.constexpr):
    """The range of the program's logits: the first, and the one after the last."""
    begin = tl.program_id(0).to(INDEX) * share  # 0 where there is one program
    end = count
    if PARTIAL:
        end = tl.minimum(begin + share, count)
    return begin, end


@triton.jit
def store_side(place, divisor, total, probability, correct, violation):
    tl.store(place, total / divisor)
    tl.store(place + 1, probability / divisor)
    tl.store(place + 2, correct / divisor)
    tl.store(place + 3, violation / divisor)


@triton.jit
def discriminator(
    real,
    fake,
    slopes,  # [real_count + fake_count] float32; not touched unless HAS_SLOPES
    loss,  # 0-d float32
    statistics,  # [8] float32
    partial_sums,  # [programs, COLUMNS] float32, instead of loss and statistics if PARTIAL
    real_count,
    fake_count,
    share,
    sign,
    real_label,
    fake_label,
    threshold,
    GAME: tl.constexpr,
    RELATIVISTIC: tl.constexpr,  # then GAME is only used for the statistics, without slopes
    HAS_SLOPES: tl.constexpr,
    PARTIAL: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    begin, end = share_of_program(real_count, share, PARTIAL, INDEX)
    real_loss, logit, probability, correct, violation = side(
        real, slopes, slopes, begin, end, sign, real_label, 1.0, threshold, sign / real_count, 1.0, GAME,
        HAS_SLOPES and not RELATIVISTIC, False, BLOCK,
    )  # fmt: skip
    partial_sums += tl.program_id(0) * COLUMNS
    if PARTIAL:
        store_side(partial_sums + 1, 1.0, logit, probability, correct, violation)
    else:
        store_side(statistics, real_count, logit, probability, correct, violation)
    begin, end = share_of_program(fake_count, share, PARTIAL, INDEX)
    fake_loss, logit, probability, correct, violation = side(
        fake, slopes + real_count, slopes, begin, end, sign, fake_label, -1.0, threshold, sign / fake_count,
        1.0, GAME, HAS_SLOPES and not RELATIVISTIC, False, BLOCK,
    )  # fmt: skip
    if PARTIAL:
        store_side(partial_sums + 6, 1.0, logit, probability, correct, violation)
    else:
        store_side(statistics + 4, fake_count, logit, probability, correct, violation)
    if RELATIVISTIC:
        real_loss = side_of_pairs(
            fake, real, slopes + real_count, slopes, begin, end, fake_count, sign, HAS_SLOPES, BLOCK
        )
        fake_loss = 0.0
    if PARTIAL:
        tl.store(partial_sums, real_loss)
        tl.store(partial_sums + 5, fake_loss)
    else:
        tl.store(loss, real_loss / real_count + fake_loss / fake_count)


@triton.jit
def generator(
    fake,
    slopes,  # [fake_count] float32; not touched unless HAS_SLOPES
    loss,
    partial_sums,  # [programs] float32, instead of the loss if PARTIAL
    fake_count,
    share,
    sign,
    real_label,
    GAME: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    PARTIAL: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    begin, end = share_of_program(fake_count, share, PARTIAL, INDEX)
    term, _, _, _, _ = side(
        fake, slopes, slopes, begin, end, sign, real_label, 1.0, 0.0, sign / fake_count, 1.0, GAME,
        HAS_SLOPES, False, BLOCK,
    )  # fmt: skip
    if PARTIAL:
        tl.store(partial_sums + tl.program_id(0), term)
    else:
        tl.store(loss, term / fake_count)


@triton.jit
def pairs(
    raised,
    lowered,
    slopes,  # [2 count] float32, those of `raised` first; not touched unless HAS_SLOPES
    loss,
    partial_sums,  # [programs] float32, instead of the loss if PARTIAL
    count,
    share,
    sign,
    HAS_SLOPES: tl.constexpr,
    PARTIAL: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mean softplus(raised - lowered)."""
    begin, end = share_of_program(count, share, PARTIAL, INDEX)
    total = side_of_pairs(raised, lowered, slopes, slopes + count, begin, end, count, sign, HAS_SLOPES, BLOCK)
    if PARTIAL:
        tl.store(partial_sums + tl.program_id(0), total)
    else:
        tl.store(loss, total / count)


@triton.jit
def column(partial_sums, parts, number: tl.constexpr, BLOCK: tl.constexpr):
    sums = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, parts, BLOCK):
        part = begin + tl.arange(0, BLOCK)
        sums += tl.load(partial_sums + part * COLUMNS + number, part < parts, 0.0)
    return tl.sum(sums)


@triton.jit
def finish_discriminator(
    partial_sums, loss, statistics, parts, real_count, fake_count, BLOCK: tl.constexpr
):  # fmt: skip
    total = column(partial_sums, parts, 0, BLOCK) / real_count
    tl.store(loss, total + column(partial_sums, parts, 5, BLOCK) / fake_count)
    for number in tl.static_range(4):
        real_sum = column(partial_sums, parts, 1 + number, BLOCK)
        tl.store(statistics + number, real_sum / real_count)
        fake_sum = column(partial_sums, parts, 6 + number, BLOCK)
        tl.store(statistics + 4 + number, fake_sum / fake_count)


def adversarial(
    real: Tensor | None, fake: Tensor, game: int, for_generator: bool, sign: float, real_label: float,
    fake_label: float, with_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss, statistics or empty, slopes or empty), on the logits' device and current stream."""
    real_count, fake_count = 0 if real is None else real.numel(), fake.numel()
    loss = fake.new_empty((), dtype=torch.float32)
    statistics = fake.new_empty(0 if for_generator else 8, dtype=torch.float32)
    slopes = fake.new_empty(real_count + fake_count if with_slopes else 0, dtype=torch.float32)
    relativistic = game == 4
    count = max(real_count, fake_count)
    parts = 1 if count <= ALONE[for_generator] else cdiv(count, SHARE)
    columns = 1 if for_generator else COLUMNS.value
    partial_sums = fake.new_empty(parts * columns, dtype=torch.float32) if parts > 1 else loss
    options = {
        "HAS_SLOPES": with_slopes, "PARTIAL": parts > 1, "INDEX": index_type(count, SHARE), "BLOCK": BLOCK,
        "num_warps": WARPS,
    }  # fmt: skip
    with torch.cuda.device_of(fake):
        if for_generator and relativistic:
            pairs[(parts,)](real, fake, slopes, loss, partial_sums, fake_count, SHARE, sign, **options)
        elif for_generator:
            generator_game = 3 if game == 2 else game  # G's hinge loss equals its Wasserstein loss
            generator[(parts,)](
                fake, slopes, loss, partial_sums, fake_count, SHARE, sign, real_label, GAME=generator_game,
                **options,
            )  # fmt: skip
        else:
            threshold = (real_label + fake_label) / 2 if game == 1 else 0.0
            discriminator[(parts,)](
                real, fake, slopes, loss, statistics, partial_sums, real_count, fake_count, SHARE, sign,
                real_label, fake_label, threshold, GAME=3 if relativistic else game,
                RELATIVISTIC=relativistic, **options,
            )  # fmt: skip
        if parts > 1 and for_generator:
            finish[(1,)](partial_sums, loss, parts, fake_count, BLOCK=min(BLOCK, next_power_of_2(parts)))
        elif parts > 1:
            finish_discriminator[(1,)](
                partial_sums, loss, statistics, parts, real_count, fake_count,
                BLOCK=min(BLOCK, next_power_of_2(parts)),
            )  # fmt: skip
    return loss, statistics, slopes
