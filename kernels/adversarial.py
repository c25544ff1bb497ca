"""Triton kernel of `fastgan.ops.adversarial`, which tells what is computed. One launch, one program.

Logits are few (one to some thousands per image), so a single program walks over all of them and finishes
the sums itself: no second launch, no atomics, the same bits for the same input.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: 8 warps with 4 logits per thread.
BLOCK = 1024
WARPS = 8

CROSS_ENTROPY = tl.constexpr(0)
LEAST_SQUARES = tl.constexpr(1)
HINGE = tl.constexpr(2)
WASSERSTEIN = tl.constexpr(3)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) as max(x, 0) + rest; its derivative, the logistic function of x, and 1 minus that.

    In parts, because near a label the sums would cancel.
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
    count,
    sign,
    label,
    target: tl.constexpr,  # +1 for real, -1 for fake
    threshold,
    GAME: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums over one side: loss, logits, probabilities, correct ones, margin violations."""
    loss = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    probability = tl.zeros([BLOCK], tl.float32)
    correct = tl.zeros([BLOCK], tl.float32)
    violation = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, count, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < count
        logit = tl.load(logits + index, inside, 0.0).to(tl.float32)
        signed = sign * logit
        _, rest, chance, complement = softplus(signed)
        if GAME == CROSS_ENTROPY:
            # Zero times infinity is 0 here, the limit; NaN comes with the rest.
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
            tl.store(slopes + index, slope * sign / count, inside)
    return tl.sum(loss), tl.sum(total), tl.sum(probability), tl.sum(correct), tl.sum(violation)


@triton.jit
def discriminator(
    real,
    fake,
    real_slopes,  # float32; not touched unless HAS_SLOPES
    fake_slopes,
    loss,  # 0-d float32
    statistics,  # [8] float32
    real_count,
    fake_count,
    sign,
    real_label,
    fake_label,
    threshold,
    GAME: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    term, logit, probability, correct, violation = side(
        real, real_slopes, real_count, sign, real_label, 1.0, threshold, GAME, HAS_SLOPES, BLOCK
    )
    total = term / real_count
    tl.store(statistics, logit / real_count)
    tl.store(statistics + 1, probability / real_count)
    tl.store(statistics + 2, correct / real_count)
    tl.store(statistics + 3, violation / real_count)
    term, logit, probability, correct, violation = side(
        fake, fake_slopes, fake_count, sign, fake_label, -1.0, threshold, GAME, HAS_SLOPES, BLOCK
    )
    tl.store(statistics + 4, logit / fake_count)
    tl.store(statistics + 5, probability / fake_count)
    tl.store(statistics + 6, correct / fake_count)
    tl.store(statistics + 7, violation / fake_count)
    tl.store(loss, total + term / fake_count)


@triton.jit
def generator(
    fake,
    fake_slopes,
    loss,
    fake_count,
    sign,
    real_label,
    GAME: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    term, _, _, _, _ = side(
        fake, fake_slopes, fake_count, sign, real_label, 1.0, 0.0, GAME, HAS_SLOPES, BLOCK
    )
    tl.store(loss, term / fake_count)


@triton.jit
def pairs(
    raised,
    lowered,
    raised_slopes,
    lowered_slopes,
    loss,
    count,
    sign,
    HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mean softplus(raised - lowered)."""
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, count, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < count
        above = tl.load(raised + index, inside, 0.0).to(tl.float32)
        below = tl.load(lowered + index, inside, 0.0).to(tl.float32)
        positive, rest, slope, _ = softplus(sign * (above - below))
        total += tl.where(inside, positive + rest, 0.0)
        if HAS_SLOPES:
            slope *= sign / count
            tl.store(raised_slopes + index, slope, inside)
            tl.store(lowered_slopes + index, -slope, inside)
    tl.store(loss, tl.sum(total) / count)


@triton.jit
def discriminator_pairs(
    real,
    fake,
    real_slopes,
    fake_slopes,
    loss,
    statistics,
    real_count,
    fake_count,
    sign,
    HAS_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The relativistic game: statistics of each side, then the loss of the pairs."""
    discriminator(
        real, fake, real_slopes, fake_slopes, loss, statistics, real_count, fake_count, sign, 0.0, 0.0, 0.0,
        3, False, BLOCK,
    )  # fmt: skip
    pairs(fake, real, fake_slopes, real_slopes, loss, fake_count, sign, HAS_SLOPES, BLOCK)


def adversarial(
    real: Tensor | None, fake: Tensor, game: int, for_generator: bool, sign: float, real_label: float,
    fake_label: float, with_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(loss, statistics or empty, slopes of real, of fake), on the logits' device and current stream."""
    loss = fake.new_empty((), dtype=torch.float32)
    statistics = fake.new_empty(0 if for_generator else 8, dtype=torch.float32)
    real_slopes, fake_slopes = (
        torch.empty_like(logits, dtype=torch.float32)
        if with_slopes and logits is not None
        else fake.new_empty(0, dtype=torch.float32)
        for logits in (real, fake)
    )
    relativistic = game == 4
    options = {"HAS_SLOPES": with_slopes, "BLOCK": BLOCK, "num_warps": WARPS}
    with torch.cuda.device_of(fake):
        if for_generator and relativistic:
            pairs[(1,)](real, fake, real_slopes, fake_slopes, loss, fake.numel(), sign, **options)
        elif for_generator:
            of_fake = 3 if game == 2 else game  # G's hinge loss is the Wasserstein one
            generator[(1,)](fake, fake_slopes, loss, fake.numel(), sign, real_label, GAME=of_fake, **options)
        elif relativistic:
            discriminator_pairs[(1,)](
                real, fake, real_slopes, fake_slopes, loss, statistics, fake.numel(), fake.numel(), sign,
                **options,
            )  # fmt: skip
        else:
            assert real is not None
            threshold = (real_label + fake_label) / 2 if game == 1 else 0.0
            discriminator[(1,)](
                real, fake, real_slopes, fake_slopes, loss, statistics, real.numel(), fake.numel(), sign,
                real_label, fake_label, threshold, GAME=game, **options,
            )  # fmt: skip
    return loss, statistics, real_slopes, fake_slopes
