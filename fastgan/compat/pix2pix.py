"""Names and signatures of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat._shared import as_probabilities_flag, check_kind, check_pair, interpolated
from fastgan.losses._input_gradient import check_samples, input_gradient
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses.labels import cross_entropy
from fastgan.ops._checks import (
    as_device,
    as_finite,
    as_flag,
    check_callable,
    check_floating,
    check_same_device,
)
from fastgan.reference.precision import wide


class GANLoss(nn.Module):
    """One side's adversarial loss; `models.networks.GANLoss`.

    Args:
        gan_mode: lsgan, vanilla (cross entropy) or wgangp.
        target_real_label, target_fake_label: labels of lsgan and vanilla.
        from_probabilities: the discriminator ends in a sigmoid; for vanilla.

    Losses are float32 (float64 for float64 predictions), also under autocast.

    Raises:
        NotImplementedError: an unknown gan_mode, as in the original.
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
        known = ("lsgan", "vanilla", "wgangp")
        check_kind("gan mode {} not implemented", "gan_mode", gan_mode, known)
        self.from_probabilities = as_probabilities_flag(from_probabilities, "gan_mode", gan_mode)
        self.gan_mode = gan_mode
        self._check = ProbabilityCheck("GANLoss('vanilla')")
        self.real_label: Tensor
        self.fake_label: Tensor
        real_label = as_finite("target_real_label", target_real_label)
        fake_label = as_finite("target_fake_label", target_fake_label)
        self.register_buffer("real_label", torch.tensor(real_label))
        self.register_buffer("fake_label", torch.tensor(fake_label))

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The mean over a prediction of any shape, 0-d."""
        check_floating("prediction", prediction)
        target_is_real = as_flag("target_is_real", target_is_real)
        prediction = wide(prediction)
        if self.gan_mode == "wgangp":
            return -prediction.mean() if target_is_real else prediction.mean()
        label = self.real_label if target_is_real else self.fake_label
        check_same_device(prediction=prediction, label=label)
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
        device: on which the points are drawn.
        type: where the gradient is taken: between the samples, at the real or at the fake ones.
        constant: the target norm.
        lambda_gp: factor; if 0 or less, nothing is computed.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.

    Returns:
        (penalty times lambda_gp, gradients (N, values)), both float32 or float64, or (0.0, None).

    Raises:
        NotImplementedError: an unknown type, as in the original.
    """
    lambda_gp = as_finite("lambda_gp", lambda_gp)
    if lambda_gp <= 0:
        return 0.0, None
    constant = as_finite("constant", constant)
    check_kind("{} not implemented", "type", type, ("mixed", "real", "fake"))
    check_callable("netD", netD)
    if type == "mixed":
        check_pair(real_data=real_data, fake_data=fake_data)
        device = as_device("device", device)
        x = interpolated(real_data, fake_data, device)
    else:
        name, samples = ("real_data", real_data) if type == "real" else ("fake_data", fake_data)
        check_samples(name, samples)
        x = samples.detach().requires_grad_()
    gradients = wide(input_gradient(netD(x), x, scaler, ("output of netD", "its input"))).flatten(1)
    # The original's epsilon, added to the gradient itself: the norm of a zero gradient is differentiable.
    penalty = ((gradients + 1e-16).norm(2, dim=1) - constant).square().mean() * lambda_gp
    return penalty, gradients
