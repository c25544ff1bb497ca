"""As in StarGAN v2 (`core/solver.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan import losses
from fastgan.losses.penalties import penalty_of_logits


def adv_loss(logits: Tensor, target: int, *, from_probabilities: bool = False) -> Tensor:
    """Mean binary cross entropy with the constant target 1 or 0; see :func:`fastgan.losses.adv_loss`."""
    return losses.adv_loss(logits, target, from_probabilities=from_probabilities)


def r1_reg(d_out: Tensor, x_in: Tensor, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Half the mean squared norm of the gradient.

    Args:
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    return penalty_of_logits(d_out, x_in, scale=0.5, scaler=scaler, names=("d_out", "x_in"))
