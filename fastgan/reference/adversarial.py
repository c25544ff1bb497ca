"""Adversarial losses and their statistics, in plain PyTorch. See `fastgan.ops.adversarial`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.reference.clamp import with_slope_of_nan

GAMES = ("cross_entropy", "least_squares", "hinge", "wasserstein", "relativistic")


def discriminator_loss(
    real: Tensor, fake: Tensor, game: str, sign: float, real_label: float, fake_label: float
) -> Tensor:
    """D's loss, 0-d. Logits in float32 or better, any shapes; `sign` -1: high logits mean fake."""
    if game == "relativistic":
        return F.softplus(sign * fake - sign * real).mean()
    real_loss, fake_loss = discriminator_halves(real, fake, game, sign, real_label, fake_label)
    return real_loss + fake_loss


def discriminator_halves(
    real: Tensor, fake: Tensor, game: str, sign: float, real_label: float, fake_label: float
) -> tuple[Tensor, Tensor]:
    """D's losses on real and on fake samples, 0-d each; not for the relativistic game."""
    real, fake = sign * real, sign * fake
    if game == "cross_entropy":
        return _cross_entropy(real, real_label), _cross_entropy(fake, fake_label)
    if game == "least_squares":
        return (real - real_label).square().mean() / 2, (fake - fake_label).square().mean() / 2
    if game == "hinge":
        return relu(1 - real).mean(), relu(1 + fake).mean()
    return -real.mean(), fake.mean()


def generator_loss(real: Tensor | None, fake: Tensor, game: str, sign: float, real_label: float) -> Tensor:
    """G's loss, 0-d; only the relativistic game uses real logits."""
    fake = sign * fake
    if game == "cross_entropy":
        return _cross_entropy(fake, real_label)
    if game == "least_squares":
        return (fake - real_label).square().mean() / 2
    if game == "relativistic":
        assert real is not None
        return F.softplus(sign * real - fake).mean()
    return -fake.mean()


def losses_of_side(logits: Tensor, real: bool, game: str, sign: float, label: float) -> Tensor:
    """D's loss of each logit, in the logits' shape, on the real or the fake side; not for relativistic."""
    signed = sign * logits
    if game == "cross_entropy":
        return _cross_entropies(signed, label)
    if game == "least_squares":
        return (signed - label).square() / 2
    if game == "hinge":
        return relu(1 - signed if real else 1 + signed)
    return -signed if real else signed


def statistics_of_side(logits: Tensor, real: bool, sign: float, threshold: float) -> Tensor:
    """(4,): mean logit, mean probability of being real, accuracy, margin violations."""
    signed, target = sign * logits, 1.0 if real else -1.0
    return torch.stack(
        [
            logits.mean(),
            signed.sigmoid().mean(),
            (target * (signed - threshold) > 0).to(logits.dtype).mean(),
            (target * signed < 1).to(logits.dtype).mean(),
        ]
    )


def statistics(real: Tensor, fake: Tensor, sign: float, threshold: float) -> Tensor:
    """(8,): for real, then fake: mean logit, mean probability of being real, accuracy, margin violations."""
    sides = statistics_of_side(real, True, sign, threshold), statistics_of_side(fake, False, sign, threshold)
    return torch.cat(sides)


def relu(x: Tensor) -> Tensor:
    """max(0, x), whose slope is 0 at 0 and NaN at NaN."""
    return F.relu(with_slope_of_nan(x))


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return _cross_entropies(logits, label).mean()


def _cross_entropies(logits: Tensor, label: float) -> Tensor:
    # The two terms of a smoothed label, since softplus(x) - label x would cancel. Terms of weight zero are
    # omitted: an infinite real logit costs nothing with label 1, but zero times infinity would be NaN.
    weighted_logits = ((1 - label, logits), (label, -logits))
    terms = [weight * F.softplus(signed) for weight, signed in weighted_logits if weight != 0]
    return sum(terms[1:], start=terms[0])
