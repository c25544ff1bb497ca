"""Names and signatures of rosinality's stylegan2-pytorch (`train.py` and `op`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan import losses
from fastgan.compat._shared import check_logits, lerp_parameters
from fastgan.compat._stylegan2_ops import FusedLeakyReLU, fused_leaky_relu, upfirdn2d
from fastgan.losses.path_length import penalized_lengths
from fastgan.losses.penalties import penalty_of_logits

__all__ = [
    "FusedLeakyReLU", "accumulate", "d_logistic_loss", "d_r1_loss", "fused_leaky_relu",
    "g_nonsaturating_loss", "g_path_regularize", "upfirdn2d",
]  # fmt: skip


def d_logistic_loss(real_pred: Tensor, fake_pred: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Mean softplus(-real) + mean softplus(fake), 0-d, in float32 or better; logits of any shapes."""
    check_logits(real_pred=real_pred, fake_pred=fake_pred)
    loss: Tensor = losses.d_nonsaturating_loss(real_pred, fake_pred, from_probabilities=from_probabilities)
    return loss


def g_nonsaturating_loss(fake_pred: Tensor, *, from_probabilities: bool = False) -> Tensor:
    """Mean softplus(-fake), 0-d, in float32 or better; logits of any shape."""
    check_logits(fake_pred=fake_pred)
    loss: Tensor = losses.g_nonsaturating_loss(fake_pred, from_probabilities=from_probabilities)
    return loss


def d_r1_loss(real_pred: Tensor, real_img: Tensor, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Mean squared norm of the gradient, without 1/2.

    Args:
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    return penalty_of_logits(real_pred, real_img, scaler=scaler, names=("real_pred", "real_img"))


def g_path_regularize(
    fake_img: Tensor,
    latents: Tensor,
    mean_path_length: float | Tensor,
    decay: float = 0.01,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Path length regularization: (penalty, moved mean, lengths).

    Args:
        fake_img: N C H W, made from the latents; the noise is drawn like it.
        latents: N L D, or N D; must have required grad.
        mean_path_length: the running mean, a number or 0-d tensor.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.

    Returns:
        Penalty and lengths (N,) with a graph, the mean without one, as in the original.
    """
    names = ("fake_img", "latents", "mean_path_length")
    penalty, mean, lengths = penalized_lengths(
        fake_img, latents, mean_path_length, decay, None, None, scaler, names
    )
    return penalty, mean.detach(), lengths


def accumulate(model1: nn.Module, model2: nn.Module, decay: float = 0.999) -> None:
    """Moves the parameters of `model1` a share of 1 - decay towards those of `model2` with the same names.

    Buffers stay, as in the original. In one launch for all parameters on a GPU.

    Args:
        decay: in [0, 1].

    Raises:
        TypeError, ValueError: arguments that are not modules, parameters that are missing or of other shapes,
            or another decay.
    """
    lerp_parameters(model1, model2, decay, ("model1", "model2", "decay"), by_name=True)
