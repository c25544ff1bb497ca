"""As in R3GAN (`R3GAN/Trainer.py`)."""

from __future__ import annotations

from torch import Tensor

from fastgan import losses


def ZeroCenteredGradientPenalty(Samples: Tensor, Critics: Tensor) -> Tensor:
    """The squared norm of each sample's gradient, (N,); a method of `AdversarialTraining` there."""
    return losses.r1_penalty(Critics, Samples, reduction="none")
