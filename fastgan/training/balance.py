"""Policies that keep D and G in balance, decided on the device.

A policy decides three things in a training step: whether D trains, whether G trains (both by counting steps),
and, from D's own logits, what D minimizes and whether its update applies. The last is a tensor, so that no
step waits for the device; `step_where` hands it to the optimizer.

.. code-block:: python

    balance = Threshold(0.3)
    decision = balance.discriminator_loss(adversarial, real_logits, fake_logits)
    decision.loss.backward()
    step_where(d_optimizer, decision.applies)
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fastgan._torch_internals import supports_amp_scaling
from fastgan.losses._over_processes import AveragedOverProcesses
from fastgan.losses.adversarial import AdversarialLoss, AdversarialStatistics
from fastgan.monitor.look import auc
from fastgan.ops._checks import (
    as_number,
    as_whole_number,
    check_instance,
    check_one_of,
    check_tensor,
    described,
)
from fastgan.optim._step import FusedStep
from fastgan.reference.precision import wide

Balance = Literal["every_step", "ratio", "threshold", "adaptive"]


class Judged(NamedTuple):
    """A policy's decision on one step, from D's logits."""

    loss: Tensor
    """What D minimizes; 0-d."""
    statistics: AdversarialStatistics
    applies: Tensor | None
    """Whether D's update applies: 0-d bool on the logits' device; None: always."""
    auc: Tensor
    """How often D scores a real sample as more real than a fake one: 0-d, 0.5 by chance."""

    def terms(self) -> dict[str, Tensor]:
        """The loss and statistics to log, by their column in metrics.csv."""
        statistics = self.statistics
        return {
            "D_loss": self.loss.detach(),
            "D_real": statistics.D_real, "D_fake": statistics.D_fake,
            "D_probability_real": statistics.probability_real,
            "D_probability_fake": statistics.probability_fake,
            "D_accuracy_real": statistics.accuracy_real, "D_accuracy_fake": statistics.accuracy_fake,
            "D_auc": self.auc,
        }  # fmt: skip


class EveryStep(AveragedOverProcesses):
    """D and G train on every step. Base of the other policies, whose state is in their state_dict.

    All processes decide alike if :attr:`average` is set to a function that averages a tensor over them.
    """

    def trains_discriminator(self, step: int) -> bool:
        """Whether D is trained on this step, counted from 0."""
        as_whole_number("step", step, least=0)
        return True

    def trains_generator(self, step: int) -> bool:
        """Whether G is trained on this step, counted from 0."""
        as_whole_number("step", step, least=0)
        return True

    def check(self, adversarial: AdversarialLoss) -> None:
        """Raises a ValueError if the policy does not support this loss, as `discriminator_loss` does."""
        _check_adversarial(adversarial)

    def discriminator_loss(
        self, adversarial: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor
    ) -> Judged:
        """D's loss, its statistics and whether its update applies.

        Args:
            adversarial: the adversarial loss.
            real_logits, fake_logits: as :meth:`AdversarialLoss.discriminator` takes them.

        Raises:
            TypeError, ValueError: wrong types or shapes, or a loss that the policy does not support.
        """
        _check_adversarial(adversarial)
        loss, statistics = adversarial.discriminator(real_logits, fake_logits, return_statistics=True)
        return Judged(loss, statistics, None, auc(real_logits, fake_logits, adversarial.critic_sign))


class Ratio(EveryStep):
    """Updates of D for updates of G: (5, 1) trains D on every step and G on every fifth.

    Args:
        n_critic, n_generator: at least 1. A cycle has as many steps as the larger; each network trains in
            the first ones.

    Raises:
        TypeError, ValueError: one is not a whole number, or below 1.

    Source: n_critic of Arjovsky et al., "Wasserstein GAN", 2017.
    """

    def __init__(self, n_critic: int, n_generator: int) -> None:
        super().__init__()
        self.n_critic = as_whole_number("n_critic", n_critic)
        self.n_generator = as_whole_number("n_generator", n_generator)

    def trains_discriminator(self, step: int) -> bool:
        return as_whole_number("step", step, least=0) % max(self.n_critic, self.n_generator) < self.n_critic

    def trains_generator(self, step: int) -> bool:
        return (
            as_whole_number("step", step, least=0) % max(self.n_critic, self.n_generator) < self.n_generator
        )


class Threshold(EveryStep):
    """Each half of D's loss, on reals and on fakes, counts only while it is above a threshold.

    Where both are below it, D is winning, and its update does not apply: neither the weights nor the
    optimizer's averages change.

    Args:
        threshold: at least 0, in the units of the loss: 0.3 of a cross entropy is a probability of 0.74.

    Raises:
        ValueError: a negative threshold; later, an adversarial loss without halves (relativistic) or without
            a lower bound (wgan, wgan-gp).
    """

    def __init__(self, threshold: float = 0.3) -> None:
        super().__init__()
        self.threshold = as_number("threshold", threshold)
        if not self.threshold >= 0:
            raise ValueError(f"threshold must not be negative, got {threshold}")

    def check(self, adversarial: AdversarialLoss) -> None:
        _check_has_lower_bound("threshold", adversarial)

    def discriminator_loss(
        self, adversarial: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor
    ) -> Judged:
        self.check(adversarial)
        with torch.no_grad():
            statistics = adversarial.discriminator(real_logits, fake_logits, return_statistics=True)[1]
        halves = torch.stack(adversarial.halves(real_logits, fake_logits))
        above = self._averaged(halves.detach().clone()) > self.threshold
        ranking = auc(real_logits, fake_logits, adversarial.critic_sign)
        return Judged((halves * above).sum(), statistics, above.any(), ranking)


class Adaptive(EveryStep):
    """Trains D only while r, the mean sign of its logits on reals, is below a target.

    r is 1 where D recognizes every real sample and 0 where it guesses; ADA measures D's overfitting by it. It
    is averaged over about the last `images` real samples, and measured whether D trains or not.

    Args:
        target: in (-1, 1); 0.6: D classifies 80% of the reals correctly.
        images: real samples, over all processes, that the moving average covers.

    Raises:
        ValueError: a target or number of images out of range; later, an adversarial loss whose logits have no
            decision boundary at 0 (wgan, wgan-gp, relativistic).

    Source: r_t of Karras et al., "Training generative adversarial networks with limited data", 2020, which
    steers the strength of augmentation.
    """

    measure: Tensor

    def __init__(self, target: float = 0.6, images: int = 256) -> None:
        super().__init__()
        self.target, self.images = as_number("target", target), as_whole_number("images", images)
        if not -1 < self.target < 1:
            raise ValueError(f"target must lie in (-1, 1), got {target}")
        self.register_buffer("measure", torch.zeros(()))

    def check(self, adversarial: AdversarialLoss) -> None:
        _check_has_lower_bound("adaptive", adversarial)

    def discriminator_loss(
        self, adversarial: AdversarialLoss, real_logits: Tensor, fake_logits: Tensor
    ) -> Judged:
        self.check(adversarial)
        decision = super().discriminator_loss(adversarial, real_logits, fake_logits)
        mean_sign = self._averaged(2 * decision.statistics.accuracy_real - 1)
        weight = min(1.0, real_logits.shape[0] / self.images if real_logits.dim() else 1.0)
        self.measure = wide(self.measure)  # half precision would round its small steps off
        self.measure.lerp_(mean_sign.to(self.measure.dtype), weight)
        return decision._replace(applies=self.measure < self.target)


def make_balance(
    name: str, *, ratio: tuple[int, int] = (1, 1), threshold: float = 0.3, target: float = 0.6
) -> EveryStep:
    """Makes the policy that a configuration names.

    Args:
        name: "every_step", "ratio", "threshold" or "adaptive". `ratio`, `threshold` and `target` (of
            "adaptive") each apply to one policy.

    Raises:
        TypeError, ValueError: an unknown name (the message lists the known ones), or an invalid argument.
    """
    check_one_of("name", name, get_args(Balance))
    if name == "ratio":
        if not isinstance(ratio, (tuple, list)) or len(ratio) != 2:
            raise TypeError(f"ratio must be two numbers of updates, D's and G's, got {described(ratio)}")
        return Ratio(*(as_whole_number("ratio", count) for count in ratio))
    if name == "threshold":
        return Threshold(threshold)
    return Adaptive(target) if name == "adaptive" else EveryStep()


def step_where(optimizer: torch.optim.Optimizer, applies: Tensor | None) -> None:
    """Steps the optimizer, or leaves it untouched where `applies` is false, without waiting for the device.

    Args:
        optimizer: one of :mod:`fastgan.optim`, or torch's Adam or AdamW with ``fused=True``. (torch's
            fused SGD is refused: if its first step is skipped, its momentum stays uninitialized memory.)
        applies: 0-d bool on the parameters' device; None: an ordinary step.

    Raises:
        TypeError: not an optimizer, or not a tensor.
        ValueError: an optimizer that cannot skip a step on the device; a tensor that is not a 0-d bool, or
            has no value (meta).
    """
    check_instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
    if applies is not None:
        check_tensor("applies", applies)
        if applies.dtype != torch.bool or applies.dim():
            raise ValueError(f"applies must be a 0-d bool tensor, got {described(applies)}")
        device = optimizer.param_groups[0]["params"][0].device
        if applies.is_meta and device.type != "meta":
            raise ValueError(f"applies must be on the parameters' device, {device}, got {described(applies)}")
    if applies is None:
        optimizer.step()
    elif isinstance(optimizer, (FusedStep, torch.optim.Adam)) and supports_amp_scaling(optimizer):
        # The protocol by which GradScaler makes fused optimizers skip a step.
        optimizer.found_inf = (~applies).float()  # type: ignore[union-attr]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf  # type: ignore[union-attr]
    else:
        raise ValueError(
            f"{type(optimizer).__name__} cannot leave out a step on the device as it is; take an optimizer "
            "of fastgan.optim, or torch's Adam or AdamW with fused=True"
        )


def _check_adversarial(adversarial: AdversarialLoss) -> None:
    check_instance("adversarial", adversarial, AdversarialLoss, "a fastgan.losses.AdversarialLoss")


def _check_has_lower_bound(policy: str, adversarial: AdversarialLoss) -> None:
    _check_adversarial(adversarial)
    if adversarial.kind in ("wgan", "wgan-gp", "relativistic"):
        raise ValueError(
            f"balance {policy!r} judges each logit by itself, which the kind {adversarial.kind!r} has no "
            "measure for; take bce, nonsaturating, lsgan or hinge, or balance 'ratio'"
        )
