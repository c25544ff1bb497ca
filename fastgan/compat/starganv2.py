"""Names and signatures of StarGAN v2 (`core/solver.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses.labels import cross_entropy
from fastgan.losses.penalties import penalty_of_logits
from fastgan.ops._checks import check_floating, is_among, shown

# Shared by all calls of the function.
_ADV_LOSS = ProbabilityCheck("adv_loss", of_function=True)


def adv_loss(logits: Tensor, target: int, *, from_probabilities: bool = False) -> Tensor:
    """Mean binary cross entropy of the logits with one constant target, 0-d.

    Args:
        logits: of any shape.
        target: 1 (real) or 0 (fake).
        from_probabilities: the discriminator ends in a sigmoid.

    Raises:
        TypeError: logits that are not a floating-point tensor.
        ValueError: target is neither 1 (real) nor 0 (fake).
    """
    if not is_among(target, (0, 1)):
        raise ValueError(f"target must be 1 (real) or 0 (fake), got {shown(target)}")
    check_floating("logits", logits)
    return cross_entropy("logits", logits, int(target), from_probabilities, _ADV_LOSS)


def r1_reg(d_out: Tensor, x_in: Tensor, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Half the mean squared norm of the gradient.

    Args:
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    return penalty_of_logits(d_out, x_in, scale=0.5, scaler=scaler, names=("d_out", "x_in"))
