"""As in BasicSR and Real-ESRGAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan import losses
from fastgan.compat._interpolate import interpolated
from fastgan.ops.jpeg import jpeg_round_trip


class DiffJPEG(nn.Module):
    """JPEG whose quality comes with each call; `basicsr.utils.DiffJPEG`.

    Args:
        differentiable: round coefficients by the cubic surrogate of Shin and Song (2017); False is the
            codec itself, without a gradient.
    """

    def __init__(self, differentiable: bool = True) -> None:
        super().__init__()
        self.differentiable = differentiable

    def forward(self, x: Tensor, quality: float | Tensor) -> Tensor:
        """The decoded images.

        Args:
            x: B 3 H W in [0, 1].
            quality: in [1, 100]; a number, or a tensor of B. It is left as it is.
        """
        if not self.differentiable:
            return jpeg_round_trip(x.detach(), quality)
        return jpeg_round_trip(x, quality, rounding="cubic")


class GANLoss(nn.Module):
    """One side's adversarial loss; `basicsr.losses.GANLoss`.

    Args:
        gan_type: vanilla (cross entropy), lsgan, wgan, wgan_softplus or hinge.
        real_label_val, fake_label_val: labels of vanilla and lsgan.
        loss_weight: factor of G's losses, and of those alone.

    Raises:
        NotImplementedError: an unknown gan_type, as there.
    """

    def __init__(
        self,
        gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"],
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if gan_type not in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"):
            raise NotImplementedError(f"GAN type {gan_type} is not implemented.")
        self.gan_type = gan_type
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val
        self.loss_weight = loss_weight

    def forward(self, input: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The mean over logits of any shape, 0-d; for G (``is_disc=False``) times loss_weight."""
        label = self.real_label_val if target_is_real else self.fake_label_val
        sign = -1 if target_is_real else 1
        if self.gan_type == "vanilla":
            loss = F.binary_cross_entropy_with_logits(input, torch.full_like(input, label))
        elif self.gan_type == "lsgan":
            loss = (input - label).square().mean()
        elif self.gan_type == "wgan":
            loss = sign * input.mean()
        elif self.gan_type == "wgan_softplus":
            loss = F.softplus(sign * input).mean()
        else:
            loss = F.relu(1 + sign * input).mean() if is_disc else -input.mean()
        return loss if is_disc else loss * self.loss_weight


def r1_penalty(real_pred: Tensor, real_img: Tensor) -> Tensor:
    """Mean squared norm of the gradient, without 1/2; `basicsr.losses.r1_penalty`."""
    return losses.r1_penalty(real_pred, real_img)


def gradient_penalty_loss(
    discriminator: Callable[[Tensor], Tensor],
    real_data: Tensor,
    fake_data: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """WGAN-GP with the norm over channels alone; `basicsr.losses.gradient_penalty_loss`.

    Args:
        weight: one factor per pixel of the gradient (N 1 H W), by whose mean the result is divided.
    """
    x = interpolated(real_data, fake_data)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    if weight is not None:
        gradient = gradient * weight
    penalty = (gradient.norm(2, dim=1) - 1).square().mean()
    return penalty if weight is None else penalty / weight.mean()
