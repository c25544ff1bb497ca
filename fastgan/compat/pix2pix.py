"""As in pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat._interpolate import interpolated
from fastgan.losses._input_gradient import input_gradient
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses.labels import cross_entropy
from fastgan.ops._checks import check_floating
from fastgan.reference.precision import wide


class GANLoss(nn.Module):
    """One side's adversarial loss; `models.networks.GANLoss`.

    Args:
        gan_mode: lsgan, vanilla (cross entropy) or wgangp.
        target_real_label, target_fake_label: labels of lsgan and vanilla.
        from_probabilities: the discriminator ends in a sigmoid; for vanilla.

    Losses are float32 (float64 for float64 predictions), also under autocast.

    Raises:
        NotImplementedError: an unknown gan_mode, as there.
        ValueError: probabilities for another gan_mode than vanilla.
    """

    def __init__(
        self,
        gan_mode: Literal["lsgan", "vanilla", "wgangp"],
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        *,
        from_probabilities: bool = False,
    ) -> None:
        super().__init__()
        if gan_mode not in ("lsgan", "vanilla", "wgangp"):
            raise NotImplementedError(f"gan mode {gan_mode} not implemented")
        if from_probabilities and gan_mode != "vanilla":
            raise ValueError(f"from_probabilities=True is for vanilla, got gan_mode {gan_mode!r}")
        self.gan_mode, self.from_probabilities = gan_mode, from_probabilities
        self._check = ProbabilityCheck("GANLoss('vanilla')")
        self.real_label: Tensor
        self.fake_label: Tensor
        self.register_buffer("real_label", torch.tensor(target_real_label))
        self.register_buffer("fake_label", torch.tensor(target_fake_label))

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The mean over a prediction of any shape, 0-d."""
        check_floating("prediction", prediction)
        prediction = wide(prediction)
        if self.gan_mode == "wgangp":
            return -prediction.mean() if target_is_real else prediction.mean()
        label = self.real_label if target_is_real else self.fake_label
        target = label.to(prediction.dtype).expand_as(prediction)
        if self.gan_mode == "lsgan":
            return F.mse_loss(prediction, target)
        return cross_entropy("prediction", prediction, target, self.from_probabilities, self._check)


def cal_gradient_penalty(
    netD: Callable[[Tensor], Tensor],
    real_data: Tensor,
    fake_data: Tensor,
    device: torch.device | str,
    type: Literal["mixed", "real", "fake"] = "mixed",
    constant: float = 1.0,
    lambda_gp: float = 10.0,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Tensor, Tensor] | tuple[float, None]:
    """WGAN-GP's penalty and the gradients; `models.networks.cal_gradient_penalty`.

    Args:
        device: where the points are drawn.
        type: where the gradient is taken: between the samples, at the real or at the fake ones.
        constant: the norm aimed at.
        lambda_gp: factor; 0 or less: nothing is computed.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.

    Returns:
        (penalty times lambda_gp, gradients (N, values)), both float32 or float64, or (0.0, None).

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
    gradients = wide(input_gradient(netD(x), x, scaler)).flatten(1)
    # The tiny number is theirs, and on the gradient itself: a gradient of zero has a norm with a gradient.
    penalty = ((gradients + 1e-16).norm(2, dim=1) - constant).square().mean() * lambda_gp
    return penalty, gradients
