"""As in StarGAN v2 (`core/solver.py`)."""

from __future__ import annotations

from torch import Tensor

from fastgan import losses


def adv_loss(logits: Tensor, target: int) -> Tensor:
    """Mean binary cross entropy with the constant target 1 or 0."""
    assert target in [1, 0]
    return losses.adv_loss(logits, target)


def r1_reg(d_out: Tensor, x_in: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient."""
    return losses.r1_penalty(d_out, x_in, scale=0.5)
