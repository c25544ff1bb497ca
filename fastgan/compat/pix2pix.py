"""Names and signatures of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from fastgan._torch_internals import version
from fastgan.compat._shared import as_probabilities_flag, check_kind, check_pair, interpolated
from fastgan.losses._input_gradient import check_samples, input_gradient
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses._scales import scales_of, side_cross_entropy, side_loss, side_mean
from fastgan.losses.feature_matching import matched
from fastgan.ops._checks import (
    as_device,
    as_finite,
    as_flag,
    as_list,
    as_whole_number,
    check_callable,
    check_floating,
    check_same_device,
)
from fastgan.reference.precision import wide


class GANLoss(nn.Module):
    """One side's adversarial loss; `models.networks.GANLoss` of pix2pix and of CUT, lists as in pix2pixHD.

    Args:
        gan_mode: lsgan, vanilla (cross entropy), wgangp; nonsaturating as in CUT: the mean of each sample;
            hinge, as in SPADE.
        target_real_label, target_fake_label: labels of lsgan and vanilla. They are buffers, whose numbers
            are read once and after each change, which on a GPU waits for it.
        from_probabilities: the discriminator ends in a sigmoid; for vanilla.

    Losses are float32 (float64 for float64 predictions), also under autocast.

    Raises:
        NotImplementedError: an unknown gan_mode, as in the original.
        ValueError: probabilities for another gan_mode than vanilla.
    """

    def __init__(
        self,
        gan_mode: Literal["lsgan", "vanilla", "wgangp", "nonsaturating", "hinge"],
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        *,
        from_probabilities: bool = False,
    ) -> None:
        super().__init__()
        known = ("lsgan", "vanilla", "wgangp", "nonsaturating", "hinge")
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
        # By side: the buffer read last (its id alone may be a later one's, too), its version, and the number.
        self._read: dict[bool, tuple[Tensor | None, int, float]] = {
            True: (None, 0, real_label), False: (None, 0, fake_label)
        }  # fmt: skip

    def get_target_tensor(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        """The label in the prediction's shape."""
        check_floating("prediction", prediction)
        label = self.real_label if as_flag("target_is_real", target_is_real) else self.fake_label
        return label.expand_as(prediction)

    def forward(
        self, prediction: Tensor | Sequence[Any], target_is_real: bool, for_discriminator: bool = True
    ) -> Tensor:
        """The mean over a prediction, 0-d; of nonsaturating (N,), the means of its samples.

        Args:
            prediction: of any shape; or a list with a tensor for each scale, or with a list of features for
                each, of which the last are the prediction: the scales' losses are added (SPADE's trainer
                divides by their number).
            target_is_real: whether the prediction is to be real.
            for_discriminator: False is G's hinge loss; the other modes have the same for both.
        """
        target_is_real = as_flag("target_is_real", target_is_real)
        for_discriminator = as_flag("for_discriminator", for_discriminator)
        scales = scales_of("prediction", prediction, of_features=True)
        if self.gan_mode == "wgangp":
            return side_mean("prediction", scales, target_is_real, "wasserstein")
        if self.gan_mode == "hinge":
            if not for_discriminator and not target_is_real:
                raise ValueError("target_is_real must be True for G's hinge loss, got False")
            game = "hinge" if for_discriminator else "wasserstein"
            return side_mean("prediction", scales, target_is_real, game)
        if self.gan_mode == "nonsaturating":
            return self._of_samples(scales, target_is_real)
        label = self._label(target_is_real, scales[0])
        loss: Tensor
        if self.gan_mode == "lsgan":  # without the 1/2 of ours
            loss = side_mean("prediction", scales, True, "least_squares", label, 2.0)
        else:
            loss = side_cross_entropy("prediction", scales, label, self.from_probabilities, self._check)
        return loss

    def _of_samples(self, scales: list[Tensor], target_is_real: bool) -> Tensor:
        losses, _ = side_loss("prediction", scales, target_is_real, "cross_entropy", reduction="none")
        for scale in scales:
            if scale.dim() == 0 or scale.shape[0] != scales[0].shape[0]:
                raise ValueError(
                    f"prediction must have the samples of {tuple(scales[0].shape)} for nonsaturating, whose "
                    f"loss is of each, got shape {tuple(scale.shape)}"
                )
        means = [each.reshape(len(each), -1).mean(dim=1) for each in losses]
        return sum(means[1:], start=means[0])

    def _label(self, target_is_real: bool, prediction: Tensor) -> float:
        """The buffer's number, read again after each change."""
        label = self.real_label if target_is_real else self.fake_label
        if isinstance(prediction, Tensor):
            check_same_device(prediction=prediction, label=label)
        read, read_version, number = self._read[target_is_real]
        if is_compiling() or label.is_meta or (read is label and read_version == version(label)):
            return number
        if label.numel() != 1:
            name = "real_label" if target_is_real else "fake_label"
            raise ValueError(f"{name} must be one number, got shape {tuple(label.shape)}")
        number = float(label)
        self._read[target_is_real] = label, version(label), number
        return number


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


def feature_matching_loss(
    pred_fake: Sequence[Sequence[Tensor]],
    pred_real: Sequence[Sequence[Tensor]],
    n_layers_D: int = 3,
    num_D: int = 2,
    lambda_feat: float = 10.0,
) -> Tensor:
    """pix2pixHD's `loss_G_GAN_Feat`, of the predictions of its multiscale discriminator; 0-d.

    The sum over all features, without the logits, of mean |fake - real| times lambda_feat times
    4 / (n_layers_D + 1) / num_D; the real ones get no gradient.

    Args:
        pred_fake, pred_real: a list for each scale, with the features of its layers and, last, the logits.
        n_layers_D, num_D, lambda_feat: of pix2pixHD's options.

    Raises:
        TypeError, ValueError: as :func:`fastgan.losses.feature_matching_loss`.
    """
    n_layers_D, num_D = as_whole_number("n_layers_D", n_layers_D), as_whole_number("num_D", num_D)
    scales = len(as_list("pred_fake", pred_fake))
    if scales != num_D:
        kind = type(pred_fake).__name__
        raise ValueError(
            f"pred_fake must have a list for each of num_D={num_D} scales, got a {kind} of {scales}"
        )
    names = "pred_fake", "pred_real"
    return matched(pred_fake, pred_real, lambda_feat, 4 / (n_layers_D + 1), names=names)
