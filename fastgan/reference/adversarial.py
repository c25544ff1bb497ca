"""Adversarial losses and their statistics, in plain PyTorch. See `fastgan.ops.adversarial`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GAMES = ("cross_entropy", "least_squares", "hinge", "wasserstein", "relativistic")


def discriminator_loss(
    real: Tensor, fake: Tensor, game: str, sign: float, real_label: float, fake_label: float
) -> Tensor:
    """What D minimizes, 0-d. Logits in float32 or better, any shapes; `sign` -1: high means fake."""
    if game == "relativistic":
        return F.softplus(sign * fake - sign * real).mean()
    of_real, of_fake = discriminator_halves(real, fake, game, sign, real_label, fake_label)
    return of_real + of_fake


def discriminator_halves(
    real: Tensor, fake: Tensor, game: str, sign: float, real_label: float, fake_label: float
) -> tuple[Tensor, Tensor]:
    """What D minimizes on real and on fake samples, 0-d each; not of the relativistic game."""
    real, fake = sign * real, sign * fake
    if game == "cross_entropy":
        return _cross_entropy(real, real_label), _cross_entropy(fake, fake_label)
    if game == "least_squares":
        return (real - real_label).square().mean() / 2, (fake - fake_label).square().mean() / 2
    if game == "hinge":
        return F.relu(1 - real).mean(), F.relu(1 + fake).mean()
    return -real.mean(), fake.mean()


def generator_loss(real: Tensor | None, fake: Tensor, game: str, sign: float, real_label: float) -> Tensor:
    """What G minimizes, 0-d; only the relativistic game looks at real logits."""
    fake = sign * fake
    if game == "cross_entropy":
        return _cross_entropy(fake, real_label)
    if game == "least_squares":
        return (fake - real_label).square().mean() / 2
    if game == "relativistic":
        assert real is not None
        return F.softplus(sign * real - fake).mean()
    return -fake.mean()


def statistics(real: Tensor, fake: Tensor, sign: float, threshold: float) -> Tensor:
    """(8,): for real, then fake: mean logit, mean probability of being real, accuracy, margin violations."""
    columns = []
    for logits, target in ((real, 1.0), (fake, -1.0)):
        signed = sign * logits
        columns += [
            logits.mean(),
            signed.sigmoid().mean(),
            (target * (signed - threshold) > 0).to(logits.dtype).mean(),
            (target * signed < 1).to(logits.dtype).mean(),
        ]
    return torch.stack(columns)


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    # The two terms of a smoothed label; softplus(x) - label x would cancel.
    return ((1 - label) * F.softplus(logits) + label * F.softplus(-logits)).mean()
