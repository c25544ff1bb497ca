"""Adversarial losses as functions of D (`d_*`) and G (`g_*`); formulas are at :class:`AdversarialLoss`."""

from __future__ import annotations

from typing import Any, get_args

from fastgan.losses._scales import Logits
from fastgan.losses.adversarial import AdversarialLoss, Kind, Reduction
from fastgan.ops._checks import as_finite, as_flag


def _loss(
    kind: Kind, from_probabilities: bool = False, real_label: float = 1.0, fake_label: float = 0.0
) -> AdversarialLoss:
    """The loss behind a function, with a check of the logits that all calls share."""
    from_probabilities = as_flag("from_probabilities", from_probabilities)
    real_label, fake_label = as_finite("real_label", real_label), as_finite("fake_label", fake_label)
    shared = _SHARED[kind]
    if not from_probabilities and (real_label, fake_label) == (1.0, 0.0):
        return shared
    loss = AdversarialLoss(
        kind, real_label=real_label, fake_label=fake_label, from_probabilities=from_probabilities
    )
    loss._check = shared._check
    return loss


def _shared_loss(kind: Kind) -> AdversarialLoss:
    loss = AdversarialLoss(kind)
    loss._check.of_function = True
    return loss


_SHARED = {kind: _shared_loss(kind) for kind in get_args(Kind)}


def d_bce_loss(
    real_logits: Logits,
    fake_logits: Logits,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    *,
    from_probabilities: bool = False,
    reduction: Reduction = "mean",
) -> Any:
    """Binary cross entropy of D.

    As all of these functions, of tensors or of lists with one for each scale; `reduction` "mean", "sum" or
    "none"; see :class:`AdversarialLoss`.
    """
    loss = _loss("bce", from_probabilities, real_label, fake_label)
    return loss.discriminator(real_logits, fake_logits, reduction=reduction)


def d_nonsaturating_loss(
    real_logits: Logits,
    fake_logits: Logits,
    *,
    from_probabilities: bool = False,
    reduction: Reduction = "mean",
) -> Any:
    """Mean softplus(-real) + mean softplus(fake)"""
    loss = _loss("nonsaturating", from_probabilities)
    return loss.discriminator(real_logits, fake_logits, reduction=reduction)


def d_lsgan_loss(
    real_logits: Logits,
    fake_logits: Logits,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    *,
    reduction: Reduction = "mean",
) -> Any:
    """(mean (real - real_label)^2 + mean (fake - fake_label)^2) / 2"""
    loss = _loss("lsgan", real_label=real_label, fake_label=fake_label)
    return loss.discriminator(real_logits, fake_logits, reduction=reduction)


def d_hinge_loss(real_logits: Logits, fake_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """Mean max(0, 1 - real) + mean max(0, 1 + fake)"""
    return _SHARED["hinge"].discriminator(real_logits, fake_logits, reduction=reduction)


def d_wgan_loss(real_logits: Logits, fake_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """Mean fake - mean real"""
    return _SHARED["wgan"].discriminator(real_logits, fake_logits, reduction=reduction)


def d_relativistic_loss(real_logits: Logits, fake_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """Mean softplus(fake - real), pair by pair"""
    return _SHARED["relativistic"].discriminator(real_logits, fake_logits, reduction=reduction)


def g_bce_loss(
    fake_logits: Logits, *, from_probabilities: bool = False, reduction: Reduction = "mean"
) -> Any:
    """Binary cross entropy of the fakes with the label 1: mean softplus(-fake)."""
    return _loss("bce", from_probabilities).generator(fake_logits, reduction=reduction)


def g_nonsaturating_loss(
    fake_logits: Logits, *, from_probabilities: bool = False, reduction: Reduction = "mean"
) -> Any:
    """Mean softplus(-fake)"""
    return _loss("nonsaturating", from_probabilities).generator(fake_logits, reduction=reduction)


def g_lsgan_loss(fake_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """Mean (fake - 1)^2 / 2"""
    return _SHARED["lsgan"].generator(fake_logits, reduction=reduction)


def g_adversarial_loss(fake_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """-mean fake: G's loss of hinge and Wasserstein games."""
    return _SHARED["hinge"].generator(fake_logits, reduction=reduction)


g_hinge_loss = g_wgan_loss = g_adversarial_loss


def g_relativistic_loss(fake_logits: Logits, real_logits: Logits, *, reduction: Reduction = "mean") -> Any:
    """Mean softplus(real - fake), pair by pair"""
    return _SHARED["relativistic"].generator(fake_logits, real_logits, reduction=reduction)
