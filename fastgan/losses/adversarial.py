"""Adversarial losses, from logits of any shape: the mean is taken over space first, then over the batch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Kind = Literal["wgan", "wgan-gp", "hinge", "nonsaturating", "lsgan"]
KINDS = ("wgan", "wgan-gp", "hinge", "nonsaturating", "lsgan")


class AdversarialLoss:
    """The losses of discriminator and generator for one kind of game.

    ============== ====================================================== ========================
    kind           discriminator                                          generator
    ============== ====================================================== ========================
    wgan, wgan-gp  mean D(G) - mean D(x)                                  -mean D(G)
    hinge          mean max(0, 1 - D(x)) + mean max(0, 1 + D(G))          -mean D(G)
    nonsaturating  mean softplus(-D(x)) + mean softplus(D(G))             mean softplus(-D(G))
    lsgan          (mean (D(x) - 1)^2 + mean D(G)^2) / 2                  mean (D(G) - 1)^2 / 2
    ============== ====================================================== ========================

    Args:
        kind: see the table. "wgan" expects clipped weights, "wgan-gp" a gradient penalty beside it.
        critic_sign: +1: high logits mean real, as in most code. -1: high logits mean fake, as in
            StegaStamp, whose D minimizes D(real) - D(fake) and whose G minimizes D(fake). The logits
            are multiplied by it before anything else, so the two steps cannot be mixed.

    Sources: Arjovsky et al. 2017 (wgan), Gulrajani et al. 2017 (wgan-gp), Lim and Ye 2017 (hinge),
    Goodfellow et al. 2014 (nonsaturating), Mao et al. 2017 (lsgan).
    """

    def __init__(self, kind: Kind = "nonsaturating", critic_sign: int = 1) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if critic_sign not in (1, -1):
            raise ValueError(f"critic_sign must be +1 or -1, got {critic_sign!r}")
        self.kind = kind
        self.critic_sign = critic_sign

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What D minimizes, 0-d; `fake_logits` come from detached fakes."""
        real, fake = self.critic_sign * real_logits, self.critic_sign * fake_logits
        if self.kind in ("wgan", "wgan-gp"):
            return _mean(fake) - _mean(real)
        if self.kind == "hinge":
            return _mean(F.relu(1 - real)) + _mean(F.relu(1 + fake))
        if self.kind == "nonsaturating":
            return _mean(F.softplus(-real)) + _mean(F.softplus(fake))
        return (_mean((real - 1).square()) + _mean(fake.square())) / 2

    def generator(self, fake_logits: Tensor) -> Tensor:
        """What G minimizes, 0-d."""
        fake = self.critic_sign * fake_logits
        if self.kind == "nonsaturating":
            return _mean(F.softplus(-fake))
        if self.kind == "lsgan":
            return _mean((fake - 1).square()) / 2
        return -_mean(fake)


def _mean(values: Tensor) -> Tensor:
    values = values.float()
    return values.flatten(1).mean(dim=1).mean() if values.dim() > 1 else values.mean()
