"""Adversarial losses of logits of any shape (N, N 1, patches N 1 H W): means over space, then over the batch.

All samples have equally many logits, so that is the mean over all logits. Discriminators of several scales
return a list of tensors; the loss is then the sum of the scales' means.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastgan._torch_internals import forward_mode_active
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses._scales import (
    Logits,
    check_devices,
    check_not_empty,
    check_reduction,
    is_mean,
    named,
    scales_of,
    side_cross_entropy,
    side_loss,
)
from fastgan.losses._sides import added, pairs_of, relativistic_losses
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    check_floating,
    check_one_of,
    described,
    is_among,
    shown,
)
from fastgan.ops.adversarial import discriminator_loss, generator_loss
from fastgan.ops.side_losses import mean_if_few, side_losses
from fastgan.reference import adversarial as reference
from fastgan.reference.precision import wide

Reduction = Literal["mean", "sum", "none"]
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
    of the discriminator's outputs, which may be probabilities. Of a list of scales, each is a vector with one
    number for each.
    """

    D_real: Tensor
    probability_real: Tensor
    accuracy_real: Tensor
    margin_violations_real: Tensor
    D_fake: Tensor
    probability_fake: Tensor
    accuracy_fake: Tensor
    margin_violations_fake: Tensor


class SideStatistics(NamedTuple):
    """:class:`AdversarialStatistics` of one side, the real or the fake."""

    D: Tensor
    probability: Tensor
    accuracy: Tensor
    margin_violations: Tensor


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

    Logits may be lists of tensors, one for each scale of the discriminator (pix2pixHD, SPADE): the scales'
    losses are added. `reduction` of all methods is what becomes of the losses of a tensor's logits: their
    "mean", their "sum", or "none": each as it is, in the logits' shape, in a list for a list. For "none", D's
    loss of both sides adds those of the n-th real and the n-th fake logit.

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

    def discriminator(
        self,
        real_logits: Logits,
        fake_logits: Logits,
        *,
        reduction: Reduction = "mean",
        return_statistics: bool = False,
    ) -> Any:
        """D's loss, 0-d; with `return_statistics` (loss, :class:`AdversarialStatistics`) from the same sweep.

        Args:
            real_logits, fake_logits: any shapes (relativistic, and reduction "none": equal ones); fakes
                detached from G; or a list of as many scales each.

        Raises:
            TypeError, ValueError: tensors that are not floating-point, are empty or on different devices, or
                as many scales of one side as the other has not.
        """
        return_statistics = as_flag("return_statistics", return_statistics)
        both_are_tensors = isinstance(real_logits, Tensor) and isinstance(fake_logits, Tensor)
        real, fake = self._two_sides(real_logits, fake_logits)
        check_reduction(reduction)
        losses: Any
        statistics: Any
        if self.from_probabilities:
            losses = self._cross_entropies(real, fake, reduction)
            statistics = self._of_probabilities(real, fake) if return_statistics else None
        elif self.kind == "relativistic":
            losses, statistics = relativistic_losses(
                real, fake, self.critic_sign, reduction, return_statistics
            )
        elif both_are_tensors and reduction == "mean":
            losses, statistics = discriminator_loss(real[0], fake[0], _GAMES[self.kind], **self._options())
            statistics = statistics.view(2, 4)
        else:
            losses, statistics = side_losses(
                real, fake, _GAMES[self.kind], reduction=reduction, with_statistics=return_statistics,
                **self._options(),
            )  # fmt: skip
            if reduction == "none":
                losses = added(real, fake, losses)
        self._look(*real, *fake)
        loss = losses[0] if reduction == "none" and both_are_tensors else losses
        if not return_statistics:
            return loss
        sides = statistics.view(2, len(real), 4) if not both_are_tensors else statistics
        return loss, AdversarialStatistics(*sides[0].unbind(-1), *sides[1].unbind(-1))

    def real(self, logits: Logits, *, reduction: Reduction = "mean", return_statistics: bool = False) -> Any:
        """D's loss on reals alone, for trainers that take the sides apart; not for the relativistic game.

        Args:
            logits: of any shape, or a list of one for each scale.

        Returns:
            The loss, 0-d; with `return_statistics` (loss, :class:`SideStatistics`) from the same sweep.

        Raises:
            TypeError, ValueError: as by `discriminator`; the relativistic game, which pairs reals with fakes.
        """
        return self._side(logits, True, reduction, return_statistics)

    def fake(self, logits: Logits, *, reduction: Reduction = "mean", return_statistics: bool = False) -> Any:
        """D's loss on fakes alone; as `real`."""
        return self._side(logits, False, reduction, return_statistics)

    def halves(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
        """D's loss on reals and on fakes, 0-d each, in plain PyTorch; their sum is `discriminator`'s.

        Args:
            real_logits, fake_logits: any shapes.

        Raises:
            TypeError, ValueError: as by `discriminator`; the relativistic game, which pairs reals with fakes.
        """
        self._check_halves()
        both = (("real_logits", real_logits), ("fake_logits", fake_logits))
        for name, logits in both:
            check_floating(name, logits)
            check_not_empty(name, logits)
        check_devices(both)
        if self.from_probabilities:
            return (
                self._cross_entropy("real_logits", real_logits, self.real_label),
                self._cross_entropy("fake_logits", fake_logits, self.fake_label),
            )
        self._look(real_logits, fake_logits)
        return reference.discriminator_halves(
            wide(real_logits), wide(fake_logits), _GAMES[self.kind], self.critic_sign,
            self.real_label, self.fake_label,
        )  # fmt: skip

    def generator(
        self, fake_logits: Logits, real_logits: Logits | None = None, *, reduction: Reduction = "mean"
    ) -> Any:
        """G's loss, 0-d; `real_logits` are for the relativistic game and otherwise ignored."""
        scales = scales_of("fake_logits", fake_logits)
        check_reduction(reduction)
        is_tensor = isinstance(fake_logits, Tensor)
        if self.from_probabilities:
            return self._cross_entropy("fake_logits", fake_logits, 1.0, reduction)
        if self.kind == "relativistic":
            if real_logits is None:
                raise ValueError("the relativistic generator loss needs real_logits, got None")
            real, _ = self._two_sides(real_logits, fake_logits)
            loss, _ = relativistic_losses(real, scales, self.critic_sign, reduction, False, generator=True)
            self._look(*scales)
            return loss[0] if reduction == "none" and is_tensor else loss
        game = "wasserstein" if self.kind == "hinge" else _GAMES[self.kind]
        few = None
        if is_tensor and reduction == "mean":
            few = mean_if_few(fake_logits, True, game, self.critic_sign)
        if few is not None:
            loss = few
        elif is_tensor and reduction == "mean" and not forward_mode_active():
            loss = generator_loss(scales[0], None, _GAMES[self.kind], sign=self.critic_sign)
        else:
            options = {"sign": self.critic_sign, "reduction": reduction}
            loss, _ = side_loss("fake_logits", scales, True, game, **options)
        self._look(*scales)
        return loss[0] if reduction == "none" and is_tensor else loss

    def _options(self) -> dict[str, Any]:
        return {"sign": self.critic_sign, "real_label": self.real_label, "fake_label": self.fake_label}

    def _look(self, *logits: Tensor) -> None:
        """Looks for probabilities among the first logits."""
        if not is_compiling() and self._check.undecided:
            self._check.look(*logits)

    def _check_halves(self) -> None:
        if self.kind == "relativistic":
            raise ValueError("the relativistic loss pairs reals with fakes and has no halves")

    def _two_sides(self, real_logits: Logits, fake_logits: Logits) -> tuple[list[Tensor], list[Tensor]]:
        if isinstance(real_logits, Tensor) != isinstance(fake_logits, Tensor):
            names = ("real_logits", "fake_logits")
            wrong, name, other = (
                (fake_logits, *names[::-1]) if isinstance(real_logits, Tensor) else (real_logits, *names)
            )
            raise TypeError(
                f"{name} must be a floating-point tensor, got {described(wrong)}: {other} is a tensor"
            )
        real, fake = scales_of("real_logits", real_logits), scales_of("fake_logits", fake_logits)
        if len(real) != len(fake):
            raise ValueError(
                f"real_logits and fake_logits must have as many scales, got {len(real)} and {len(fake)}"
            )
        return real, fake

    def _side(self, logits: Logits, real: bool, reduction: Reduction, return_statistics: bool) -> Any:
        return_statistics = as_flag("return_statistics", return_statistics)
        self._check_halves()
        scales = scales_of("logits", logits)
        is_tensor = isinstance(logits, Tensor)
        if self.from_probabilities:
            loss = self._cross_entropy(
                "logits", logits, self.real_label if real else self.fake_label, reduction
            )
            if not return_statistics:
                return loss
            statistics = torch.stack([self._statistics_of(scale, real) for scale in scales])
        else:
            if is_tensor and is_mean(reduction) and not return_statistics:
                label = self.real_label if real else self.fake_label
                few = mean_if_few(logits, real, _GAMES[self.kind], self.critic_sign, label)
                if few is not None:
                    self._look(*scales)
                    return few
            loss, statistics = side_loss(
                "logits", scales, real, _GAMES[self.kind], reduction=reduction,
                with_statistics=return_statistics, **self._options(),
            )  # fmt: skip
            self._look(*scales)
            loss = loss[0] if reduction == "none" and is_tensor else loss
        if not return_statistics:
            return loss
        return loss, SideStatistics(*(statistics.view(4) if is_tensor else statistics).unbind(-1))

    def _cross_entropies(self, real: list[Tensor], fake: list[Tensor], reduction: str) -> Any:
        check_devices(each for side in pairs_of(real, fake) for each in side)
        losses = [
            *self._each_cross_entropy("real_logits", real, self.real_label, reduction),
            *self._each_cross_entropy("fake_logits", fake, self.fake_label, reduction),
        ]
        return added(real, fake, losses) if reduction == "none" else sum(losses[1:], start=losses[0])

    def _each_cross_entropy(
        self, name: str, scales: list[Tensor], label: float, reduction: str
    ) -> list[Tensor]:
        return [
            self._cross_entropy(of_scale, scale, label, reduction) for of_scale, scale in named(name, scales)
        ]

    def _cross_entropy(self, name: str, probabilities: Logits, label: float, reduction: str = "mean") -> Any:
        # If high logits mean fake, D returns the probability of being fake.
        label = label if self.critic_sign == 1 else 1 - label
        return side_cross_entropy(name, probabilities, label, True, self._check, reduction=reduction)

    def _of_probabilities(self, real: list[Tensor], fake: list[Tensor]) -> Tensor:
        """(2 scales, 4)"""
        sides = [(each, True) for each in real] + [(each, False) for each in fake]
        return torch.stack([self._statistics_of(*each) for each in sides])

    @torch.no_grad()
    def _statistics_of(self, probabilities: Tensor, real: bool) -> Tensor:
        """Statistics of the probabilities' logits, which may be infinite; the mean is theirs."""
        probabilities = wide(probabilities)
        values = reference.statistics_of_side(probabilities.logit(), real, self.critic_sign, 0.0)
        return torch.cat([probabilities.mean()[None], values[1:]])
