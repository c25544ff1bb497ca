"""Names and signatures of R3GAN (`R3GAN/Trainer.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.losses.penalties import penalty_of_logits


def ZeroCenteredGradientPenalty(
    Samples: Tensor, Critics: Tensor, *, scaler: torch.amp.GradScaler | None = None
) -> Tensor:
    """The squared norm of each sample's gradient, (N,); a method of R3GAN's `AdversarialTraining`.

    Args:
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    names = ("Critics", "Samples")
    return penalty_of_logits(Critics, Samples, reduction="none", scaler=scaler, names=names)
