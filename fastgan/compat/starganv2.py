"""Names and signatures of StarGAN v2 (`core/solver.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastgan.compat._shared import lerp_parameters
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses._scales import Logits, side_cross_entropy
from fastgan.losses.adversarial import Reduction
from fastgan.losses.penalties import penalty_of_logits
from fastgan.ops._checks import is_among, shown

# Shared by all calls of the function.
_ADV_LOSS = ProbabilityCheck("adv_loss", of_function=True)


def adv_loss(
    logits: Logits, target: int, *, from_probabilities: bool = False, reduction: Reduction = "mean"
) -> Any:
    """Mean binary cross entropy of the logits with one constant target, 0-d.

    Args:
        logits: of any shape; or a list of one tensor for each scale, whose means are added.
        target: 1 (real) or 0 (fake).
        from_probabilities: the discriminator ends in a sigmoid.
        reduction: of a tensor's losses: "mean", "sum" or "none"; see :class:`fastgan.losses.AdversarialLoss`.

    Raises:
        TypeError: logits that are not floating-point tensors.
        ValueError: target is neither 1 (real) nor 0 (fake), no logits, or an unknown reduction.
    """
    if not is_among(target, (0, 1)):
        raise ValueError(f"target must be 1 (real) or 0 (fake), got {shown(target)}")
    return side_cross_entropy(
        "logits", logits, float(target), from_probabilities, _ADV_LOSS, reduction=reduction
    )


def moving_average(model: nn.Module, model_test: nn.Module, beta: float = 0.999) -> None:
    """Moves the parameters of `model_test` a share of 1 - beta towards those of `model`, in order.

    Buffers stay, as in the original, which puts a new tensor in the place of each parameter's; here the
    parameters are written to, in one launch for all on a GPU.

    Args:
        beta: in [0, 1].

    Raises:
        TypeError, ValueError: arguments that are not modules, parameters of other shapes, or another beta.
    """
    lerp_parameters(model_test, model, beta, ("model_test", "model", "beta"))


def r1_reg(d_out: Tensor, x_in: Tensor, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Half the mean squared norm of the gradient.

    Args:
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    return penalty_of_logits(d_out, x_in, scale=0.5, scaler=scaler, names=("d_out", "x_in"))
