"""Adversarial losses, from logits of any shape (N, N 1, patches N 1 H W); means over space, then batch.

Every sample has as many logits as the others, so the mean over space and then over the batch is the mean.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

from torch import Tensor

from fastgan.ops._checks import check_one_of
from fastgan.ops.adversarial import discriminator_loss, generator_loss
from fastgan.reference.adversarial import discriminator_halves

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


class AdversarialStatistics(NamedTuple):
    """What the discriminator said, as 0-d tensors on its device, without gradient.

    Probabilities, accuracies and violations are of the logits times the critic's sign. An accuracy is the
    share on the right side of 0, for lsgan of the middle between the labels; margin violations are the
    share that the hinge loss still pushes: real below 1, fake above -1.
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
    real with the n-th fake logit. Infinite logits cost what the limit does: with the label 1, h is 0 at
    infinity, with 0.9 it is infinite. NaN makes the loss NaN, and the logit's gradient, but for
    Wasserstein terms, whose gradients are constants.

    Args:
        kind: see the table. "wgan" expects clipped weights, "wgan-gp" a gradient penalty beside it.
        critic_sign: +1: high logits mean real, as in most code. -1: high logits mean fake, as in
            StegaStamp, whose D minimizes D(real) - D(fake) and whose G minimizes D(fake). The logits
            are multiplied by it before anything else, so the two steps cannot be mixed.
        real_label, fake_label: D's labels, for bce and lsgan (one-sided smoothing: 0.9 and 0).

    Raises:
        ValueError: an unknown kind, another sign, or labels for a kind that has none.

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
    ) -> None:
        check_one_of("kind", kind, KINDS)
        if critic_sign not in (1, -1):
            raise ValueError(f"critic_sign must be +1 or -1, got {critic_sign!r}")
        if (real_label, fake_label) != (1.0, 0.0) and kind not in ("bce", "lsgan"):
            raise ValueError(f"kind {kind!r} has no labels, got {real_label} and {fake_label}")
        self.kind = kind
        self.critic_sign = critic_sign
        self.real_label, self.fake_label = real_label, fake_label

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
        """What D minimizes, 0-d; with `return_statistics` also what the same sweep counted.

        Args:
            real_logits, fake_logits: any shapes (relativistic: equal ones); fakes detached from G.

        Raises:
            TypeError, ValueError: no floating-point tensors, empty ones, or on different devices.
        """
        loss, statistics = discriminator_loss(
            real_logits, fake_logits, _GAMES[self.kind], sign=self.critic_sign,
            real_label=self.real_label, fake_label=self.fake_label,
        )  # fmt: skip
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
        return discriminator_halves(
            real_logits.float() if real_logits.element_size() < 4 else real_logits,
            fake_logits.float() if fake_logits.element_size() < 4 else fake_logits,
            _GAMES[self.kind], self.critic_sign, self.real_label, self.fake_label,
        )  # fmt: skip

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """What G minimizes, 0-d; `real_logits` are for the relativistic game and otherwise ignored."""
        return generator_loss(fake_logits, real_logits, _GAMES[self.kind], sign=self.critic_sign)


def d_bce_loss(
    real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """Binary cross entropy of D; see :class:`AdversarialLoss`."""
    return AdversarialLoss("bce", real_label=real_label, fake_label=fake_label).discriminator(
        real_logits, fake_logits
    )


def d_nonsaturating_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean softplus(-real) + mean softplus(fake)"""
    return AdversarialLoss("nonsaturating").discriminator(real_logits, fake_logits)


def d_lsgan_loss(
    real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """(mean (real - real_label)^2 + mean (fake - fake_label)^2) / 2"""
    return AdversarialLoss("lsgan", real_label=real_label, fake_label=fake_label).discriminator(
        real_logits, fake_logits
    )


def d_hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean max(0, 1 - real) + mean max(0, 1 + fake)"""
    return AdversarialLoss("hinge").discriminator(real_logits, fake_logits)


def d_wgan_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean fake - mean real"""
    return AdversarialLoss("wgan").discriminator(real_logits, fake_logits)


def d_relativistic_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean softplus(fake - real), pair by pair"""
    return AdversarialLoss("relativistic").discriminator(real_logits, fake_logits)


def g_bce_loss(fake_logits: Tensor) -> Tensor:
    """Binary cross entropy of the fakes with the label 1: mean softplus(-fake)."""
    return AdversarialLoss("bce").generator(fake_logits)


def g_nonsaturating_loss(fake_logits: Tensor) -> Tensor:
    """Mean softplus(-fake)"""
    return AdversarialLoss("nonsaturating").generator(fake_logits)


def g_lsgan_loss(fake_logits: Tensor) -> Tensor:
    """Mean (fake - 1)^2 / 2"""
    return AdversarialLoss("lsgan").generator(fake_logits)


def g_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """-mean fake: the generator of hinge and Wasserstein games."""
    return AdversarialLoss("hinge").generator(fake_logits)


g_hinge_loss = g_wgan_loss = g_adversarial_loss


def g_relativistic_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Mean softplus(real - fake), pair by pair"""
    return AdversarialLoss("relativistic").generator(fake_logits, real_logits)
