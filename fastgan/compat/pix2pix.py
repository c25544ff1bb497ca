"""As in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat._interpolate import interpolated


class GANLoss(nn.Module):
    """One side's adversarial loss; `models.networks.GANLoss`.

    Args:
        gan_mode: lsgan, vanilla (cross entropy) or wgangp.
        target_real_label, target_fake_label: labels of lsgan and vanilla.

    Raises:
        NotImplementedError: an unknown gan_mode, as there.
    """

    def __init__(
        self,
        gan_mode: Literal["lsgan", "vanilla", "wgangp"],
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
    ) -> None:
        super().__init__()
        if gan_mode not in ("lsgan", "vanilla", "wgangp"):
            raise NotImplementedError(f"gan mode {gan_mode} not implemented")
        self.gan_mode = gan_mode
        self.real_label: Tensor
        self.fake_label: Tensor
        self.register_buffer("real_label", torch.tensor(target_real_label))
        self.register_buffer("fake_label", torch.tensor(target_fake_label))

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The mean over a prediction of any shape, 0-d."""
        if self.gan_mode == "wgangp":
            return -prediction.mean() if target_is_real else prediction.mean()
        label = self.real_label if target_is_real else self.fake_label
        target = label.expand_as(prediction)
        if self.gan_mode == "lsgan":
            return F.mse_loss(prediction, target)
        return F.binary_cross_entropy_with_logits(prediction, target)


def cal_gradient_penalty(
    netD: Callable[[Tensor], Tensor],
    real_data: Tensor,
    fake_data: Tensor,
    device: torch.device | str,
    type: Literal["mixed", "real", "fake"] = "mixed",
    constant: float = 1.0,
    lambda_gp: float = 10.0,
) -> tuple[Tensor, Tensor] | tuple[float, None]:
    """WGAN-GP's penalty and the gradients; `models.networks.cal_gradient_penalty`.

    Args:
        device: where the points are drawn.
        type: where the gradient is taken: between the samples, at the real or at the fake ones.
        constant: the norm aimed at.
        lambda_gp: factor; 0 or less: nothing is computed.

    Returns:
        (penalty times lambda_gp, gradients (N, values)), or (0.0, None).

    Raises:
        NotImplementedError: an unknown type, as there.
    """
    if lambda_gp <= 0:
        return 0.0, None
    if type not in ("mixed", "real", "fake"):
        raise NotImplementedError(f"{type} not implemented")
    if type == "mixed":
        x = interpolated(real_data, fake_data, device)
    else:
        x = (real_data if type == "real" else fake_data).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(netD(x).sum(), x, create_graph=True)
    gradients = gradients.flatten(1)
    # The tiny number is theirs, and on the gradient itself: a gradient of zero has a norm with a gradient.
    penalty = ((gradients + 1e-16).norm(2, dim=1) - constant).square().mean() * lambda_gp
    return penalty, gradients
