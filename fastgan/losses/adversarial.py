"""Adversarial losses of logits of any shape (N, N 1, patches N 1 H W): means over space, then over the batch.

All samples have equally many logits, so that is the mean over all logits.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args, overload

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastgan.losses._probabilities import ProbabilityCheck, cross_entropy_of_probabilities
from fastgan.ops._checks import as_finite, as_flag, check_floating, check_one_of, is_among, shown
from fastgan.ops.adversarial import discriminator_loss, generator_loss
from fastgan.reference import adversarial as reference
from fastgan.reference.precision import wide

Kind = Literal["bce", "nonsaturating", "lsgan", "hinge", "wgan", "wgan-gp", "relativistic"]
KINDS = ("bce", "nonsaturating", "lsgan", "hinge", "wgan", "wgan-gp", "relativistic")
_GAMES = {
    "bce": "cross_entropy",
    "nonsaturating": "cross_entropy",
    "lsgan": "least_squares",
    "hinge": "hinge",
    "wgan": "wasserstein",
    "wgan-gp": "wasserstein",
    "relativistic": "relativistic",
}
# The other kinds take any score: least squares of a sigmoid's outputs is in use, too.
_OF_LOGITS = ("bce", "nonsaturating", "relativistic")
_OF_PROBABILITIES = ("bce", "nonsaturating")


class AdversarialStatistics(NamedTuple):
    """Statistics of the discriminator's outputs, as 0-d tensors on their device, without gradient.

    Probabilities, accuracies and violations are of the logits times the critic's sign. An accuracy is the
    share on the correct side of 0, or for lsgan of the midpoint between the labels; margin violations are the
    share for which the hinge loss has a slope: real below 1, fake above -1. `D_real` and `D_fake` are means
    of the discriminator's outputs, which may be probabilities.
    """

    D_real: Tensor
    probability_real: Tensor
    accuracy_real: Tensor
    margin_violations_real: Tensor
    D_fake: Tensor
    probability_fake: Tensor
    accuracy_fake: Tensor
    margin_violations_fake: Tensor


class AdversarialLoss:
    """The losses of discriminator and generator for one kind of game, each in one launch.

    ============== ====================================================== ========================
    kind           discriminator                                          generator
    ============== ====================================================== ========================
    bce            mean h(D(x), real_label) + mean h(D(G), fake_label)    mean h(D(G), 1)
    nonsaturating  mean softplus(-D(x)) + mean softplus(D(G))             mean softplus(-D(G))
    lsgan          (mean (D(x) - real_label)^2                            mean (D(G) - 1)^2 / 2
                   + mean (D(G) - fake_label)^2) / 2
    hinge          mean max(0, 1 - D(x)) + mean max(0, 1 + D(G))          -mean D(G)
    wgan, wgan-gp  mean D(G) - mean D(x)                                  -mean D(G)
    relativistic   mean softplus(D(G) - D(x))                             mean softplus(D(x) - D(G))
    ============== ====================================================== ========================

    with h(l, t) the binary cross entropy of the logit l with the label t. "relativistic" pairs the n-th
    real with the n-th fake logit. Infinite logits have the loss of the limit: with label 1, h is 0 at
    infinity, with 0.9 it is infinite. A NaN makes the loss and the logit's gradient NaN, except for
    Wasserstein terms, whose gradients are constants.

    Args:
        kind: see the table. "wgan" expects clipped weights, "wgan-gp" a gradient penalty beside it.
        critic_sign: +1: high logits mean real, as in most code. -1: high logits mean fake, as in
            StegaStamp, whose D minimizes D(real) - D(fake) and whose G minimizes D(fake). All logits are
            multiplied by it first, so the conventions of D's and G's losses cannot be mixed.
        real_label, fake_label: D's labels, for bce and lsgan (one-sided smoothing: 0.9 and 0).
        from_probabilities: D ends in a sigmoid, and h is the cross entropy of its outputs, as
            `torch.nn.BCELoss` computes it; for bce and nonsaturating. Logits, which keep their precision near
            0 and 1, are better if D can be changed.

    Losses are float32 (float64 for float64 logits), also under autocast; gradients have the logits' dtype.

    Raises:
        ValueError: an unknown kind or sign, or labels or probabilities for a kind without them.

    Warns:
        RuntimeWarning: once, if all of the first logits of bce, nonsaturating or relativistic lie in [0, 1],
            as behind a sigmoid.

    Sources: Goodfellow et al. 2014 (bce, nonsaturating), Salimans et al. 2016 (smoothing), Mao et al. 2017
    (lsgan), Lim and Ye 2017 (hinge), Arjovsky et al. 2017 (wgan), Gulrajani et al. 2017 (wgan-gp),
    Jolicoeur-Martineau 2019 and Huang et al. 2024 (relativistic; R3GAN).
    """

    def __init__(
        self,
        kind: Kind = "nonsaturating",
        critic_sign: int = 1,
        *,
        real_label: float = 1.0,
        fake_label: float = 0.0,
        from_probabilities: bool = False,
    ) -> None:
        check_one_of("kind", kind, KINDS)
        if not is_among(critic_sign, (1, -1)):
            raise ValueError(f"critic_sign must be +1 or -1, got {shown(critic_sign)}")
        real_label, fake_label = as_finite("real_label", real_label), as_finite("fake_label", fake_label)
        if (real_label, fake_label) != (1.0, 0.0) and kind not in ("bce", "lsgan"):
            raise ValueError(
                f"kind {kind!r} has no labels, got {real_label} and {fake_label} for real_label and "
                "fake_label"
            )
        from_probabilities = as_flag("from_probabilities", from_probabilities)
        if from_probabilities and kind not in _OF_PROBABILITIES:
            raise ValueError(
                f"from_probabilities=True is for {' and '.join(_OF_PROBABILITIES)}, got True and kind "
                f"{kind!r}, which "
                + ("compares logits" if kind in _OF_LOGITS else "takes any scores as they are")
            )
        self.kind = kind
        self.critic_sign = int(critic_sign)
        self.real_label, self.fake_label = real_label, fake_label
        self.from_probabilities = from_probabilities
        self._check = ProbabilityCheck(f"AdversarialLoss({kind!r})")
        if kind not in _OF_PROBABILITIES:
            self._check.advice = "remove it"
        self._check.undecided = kind in _OF_LOGITS and not from_probabilities

    @overload
    def discriminator(
        self, real_logits: Tensor, fake_logits: Tensor, *, return_statistics: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def discriminator(
        self, real_logits: Tensor, fake_logits: Tensor, *, return_statistics: Literal[True]
    ) -> tuple[Tensor, AdversarialStatistics]: ...

    def discriminator(
        self, real_logits: Tensor, fake_logits: Tensor, *, return_statistics: bool = False
    ) -> Tensor | tuple[Tensor, AdversarialStatistics]:
        """D's loss, 0-d; with `return_statistics` also statistics from the same sweep.

        Args:
            real_logits, fake_logits: any shapes (relativistic: equal ones); fakes detached from G.

        Raises:
            TypeError, ValueError: tensors that are not floating-point, are empty or on different devices.
        """
        return_statistics = as_flag("return_statistics", return_statistics)
        if self.from_probabilities:
            real_loss, fake_loss = self.halves(real_logits, fake_logits)
            loss = real_loss + fake_loss
            return (loss, self._statistics(real_logits, fake_logits)) if return_statistics else loss
        loss, statistics = discriminator_loss(
            real_logits, fake_logits, _GAMES[self.kind], sign=self.critic_sign,
            real_label=self.real_label, fake_label=self.fake_label,
        )  # fmt: skip
        if not is_compiling() and self._check.undecided:
            self._check.look(real_logits, fake_logits)
        return (loss, AdversarialStatistics(*statistics.unbind())) if return_statistics else loss

    def halves(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """D's loss on reals and on fakes, 0-d each, in plain PyTorch; their sum is `discriminator`'s.

        Args:
            real_logits, fake_logits: any shapes.

        Raises:
            ValueError: the relativistic game, which pairs reals with fakes.
        """
        if self.kind == "relativistic":
            raise ValueError("the relativistic loss pairs reals with fakes and has no halves")
        if self.from_probabilities:
            return (
                self._cross_entropy("real_logits", real_logits, self.real_label),
                self._cross_entropy("fake_logits", fake_logits, self.fake_label),
            )
        for name, logits in (("real_logits", real_logits), ("fake_logits", fake_logits)):
            check_floating(name, logits)
        if not is_compiling() and self._check.undecided:
            self._check.look(real_logits, fake_logits)
        return reference.discriminator_halves(
            wide(real_logits), wide(fake_logits), _GAMES[self.kind], self.critic_sign,
            self.real_label, self.fake_label,
        )  # fmt: skip

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """G's loss, 0-d; `real_logits` are for the relativistic game and otherwise ignored."""
        if self.from_probabilities:
            return self._cross_entropy("fake_logits", fake_logits, 1.0)
        loss = generator_loss(fake_logits, real_logits, _GAMES[self.kind], sign=self.critic_sign)
        if not is_compiling() and self._check.undecided:
            self._check.look(fake_logits)
        return loss

    def _cross_entropy(self, name: str, probabilities: Tensor, label: float) -> Tensor:
        # If high logits mean fake, D returns the probability of being fake.
        check_floating(name, probabilities)
        if probabilities.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(probabilities.shape)}")
        return cross_entropy_of_probabilities(
            name, probabilities, label if self.critic_sign == 1 else 1 - label
        )

    @torch.no_grad()
    def _statistics(self, real: Tensor, fake: Tensor) -> AdversarialStatistics:
        """Statistics of the probabilities' logits, which may be infinite."""
        real, fake = wide(real), wide(fake)
        values = reference.statistics(real.logit(), fake.logit(), self.critic_sign, 0.0)
        statistics = AdversarialStatistics(*values.unbind())
        return statistics._replace(D_real=real.mean(), D_fake=fake.mean())


# --- functions ---------------------------------------------------------------------------------------------


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
    real_logits: Tensor,
    fake_logits: Tensor,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    *,
    from_probabilities: bool = False,
) -> Tensor:
    """Binary cross entropy of D; see :class:`AdversarialLoss`."""
    loss = _loss("bce", from_probabilities, real_label, fake_label)
    return loss.discriminator(real_logits, fake_logits)


def d_nonsaturating_loss(
    real_logits: Tensor, fake_logits: Tensor, *, from_probabilities: bool = False
) -> Tensor:
    """Mean softplus(-real) + mean softplus(fake)"""
    return _loss("nonsaturating", from_probabilities).discriminator(real_logits, fake_logits)


def d_lsgan_loss(
    real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """(mean (real - real_label)^2 + mean (fake - fake_label)^2) / 2"""
    loss = _loss("lsgan", real_label=real_label, fake_label=fake_label)
    return loss.discriminator(real_logits, fake_logits)


def d_hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean max(0, 1 - real) + mean max(0, 1 + fake)"""
    return _SHARED["hinge"].discriminator(real_logits, fake_logits)


def d_wgan_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean fake - mean real"""
    return _SHARED["wgan"].discriminator(real_logits, fake_logits)


def d_relativistic_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean softplus(fake - real), pair by pair"""
    return _SHARED["relativistic"].discriminator(real_logits, fake_logits)


def g_bce_loss(fake_logits: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Binary cross entropy of the fakes with the label 1: mean softplus(-fake)."""
    return _loss("bce", from_probabilities).generator(fake_logits)


def g_nonsaturating_loss(fake_logits: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Mean softplus(-fake)"""
    return _loss("nonsaturating", from_probabilities).generator(fake_logits)


def g_lsgan_loss(fake_logits: Tensor) -> Tensor:
    """Mean (fake - 1)^2 / 2"""
    return _SHARED["lsgan"].generator(fake_logits)


def g_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """-mean fake: G's loss of hinge and Wasserstein games."""
    return _SHARED["hinge"].generator(fake_logits)


g_hinge_loss = g_wgan_loss = g_adversarial_loss


def g_relativistic_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Mean softplus(real - fake), pair by pair"""
    return _SHARED["relativistic"].generator(fake_logits, real_logits)
