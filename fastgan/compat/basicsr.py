"""Names and signatures of BasicSR and Real-ESRGAN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastgan import losses
from fastgan.compat._basicsr_ops import FusedLeakyReLU, fused_leaky_relu, upfirdn2d
from fastgan.compat._basicsr_pixels import CharbonnierLoss, L1Loss, MSELoss, WeightedTVLoss
from fastgan.compat._shared import (
    as_probabilities_flag,
    broadcast,
    check_kind,
    check_pair,
    interpolated,
)
from fastgan.losses._backbones import Weights, check_comparable, one_backbone
from fastgan.losses._input_gradient import input_gradient
from fastgan.losses._probabilities import ProbabilityCheck
from fastgan.losses._scales import scales_of, side_cross_entropy, side_mean
from fastgan.losses.jpeg import check_images
from fastgan.losses.path_length import penalized_lengths
from fastgan.losses.penalties import penalty_of_logits
from fastgan.losses.perceptual import NETWORKS, layer_names
from fastgan.ops._checks import (
    as_factor,
    as_finite,
    as_flag,
    check_callable,
    check_floating,
    check_instance,
    check_one_of,
    check_real,
    check_same_device,
    described,
)
from fastgan.ops._value_range import GrossRangeCheck, RangeCheck
from fastgan.ops.jpeg import jpeg_round_trip
from fastgan.reference.precision import wide

__all__ = [
    "CharbonnierLoss",
    "DiffJPEG",
    "FusedLeakyReLU",
    "GANLoss",
    "L1Loss",
    "MSELoss",
    "MultiScaleGANLoss",
    "PerceptualLoss",
    "WeightedTVLoss",
    "fused_leaky_relu",
    "gradient_penalty_loss",
    "r1_penalty",
    "upfirdn2d",
]


class DiffJPEG(nn.Module):
    """JPEG whose quality comes with each call, with the signature of `basicsr.utils.DiffJPEG`.

    Its values are libjpeg's, as of :func:`fastgan.ops.jpeg_round_trip`; those of BasicSR's codec differ.

    Args:
        differentiable: round coefficients by the cubic surrogate of Shin and Song (2017); False is the
            codec itself, without a gradient.
        check_range: as in :func:`fastgan.ops.jpeg_round_trip`, for this module's first images.
    """

    def __init__(self, differentiable: bool = True, *, check_range: bool = True) -> None:
        super().__init__()
        self.differentiable = as_flag("differentiable", differentiable)
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("DiffJPEG", ("x",))

    def forward(self, x: Tensor, quality: float | Tensor) -> Tensor:
        """The decoded images.

        Args:
            x: B 3 H W in [0, 1].
            quality: in [1, 100]; a number, or a tensor of B, which is not modified.
        """
        check_images("x", x)
        if self.check_range:
            self._range_check.look((0, 1), x)
        if not self.differentiable:
            return jpeg_round_trip(x.detach(), quality, check_range=False)
        return jpeg_round_trip(x, quality, rounding="cubic", check_range=False)


class PerceptualLoss(nn.Module):
    """Distances of VGG's features and of their Gram matrices; `basicsr.losses.PerceptualLoss`.

    Args:
        layer_weights: weights by name of the layer; conv5_4 is before its activation, relu5_4 after it.
        vgg_type: "vgg11", "vgg13", "vgg16", "vgg19"; or with batch normalization, "vgg11_bn" and so on.
        use_input_norm: whether images in [0, 1] are normalized with ImageNet's statistics.
        range_norm: whether images are in [-1, 1], and are converted to [0, 1] first.
        perceptual_weight, style_weight: factors of the two parts; a part with factor 0 is None.
        criterion: "l1", "l2" or "fro".
        weights, download, seed: of the network, as in :class:`fastgan.losses.LPIPS`. Like BasicSR's, it finds
            files with torchvision's names in ``experiments/pretrained_models``.
        backbone: another name of `weights`.

    The constructor draws no random numbers, whereas BasicSR's initializes a whole VGG: to compare the two
    with the same seed, set it afterwards.

    Raises:
        NotImplementedError: another criterion, as in BasicSR.
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: as
            :class:`fastgan.losses.PerceptualLoss`.
    """

    def __init__(
        self,
        layer_weights: dict[str, float],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: Literal["l1", "l2", "fro"] = "l1",
        *,
        weights: Weights = "default",
        backbone: Weights = "default",
        download: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        known = ("l1", "l2", "fro")
        check_kind("{} criterion has not been supported", "criterion", criterion, known)
        self.criterion = criterion
        perceptual_weight = as_finite("perceptual_weight", perceptual_weight)
        style_weight = as_finite("style_weight", style_weight)
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        use_input_norm = as_flag("use_input_norm", use_input_norm)
        range_norm = as_flag("range_norm", range_norm)
        check_one_of("vgg_type", vgg_type, NETWORKS)
        check_instance("layer_weights", layer_weights, Mapping, "a dict of numbers by layers' names")
        names = layer_names(vgg_type)
        if not layer_weights or not all(name in names for name in layer_weights):
            raise ValueError(
                f"layer_weights must have names of layers of {vgg_type} ({', '.join(names)}), got "
                f"{described(layer_weights)}"
            )
        layer_weights = {
            name: as_finite(f"layer_weights[{name!r}]", weight) for name, weight in layer_weights.items()
        }
        order = sorted(layer_weights, key=names.index)
        self._shift_range = range_norm and not use_input_norm
        self.loss = losses.PerceptualLoss(
            order,
            [perceptual_weight * layer_weights[name] for name in order],
            style_weights=[style_weight * layer_weights[name] for name in order],
            criterion="l2" if criterion == "l2" else "l1",
            network=vgg_type,
            value_range=((-1, 1) if range_norm else (0, 1)) if use_input_norm else None,
            backbone=one_backbone(weights, backbone),
            download=download,
            seed=seed,
        )
        self.loss._range_check = RangeCheck(
            type(self).__name__, {(0, 1): "range_norm=False", (-1, 1): "range_norm=True"}
        )

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(percep, style), each 0-d, or None where its weight is 0.

        Args:
            x, gt: N 3 H W; a single image on either side is compared with all N on the other; gt gets no
                gradient.

        Raises:
            TypeError, ValueError: arguments that are not such images, too small for the layers, or of unequal
                shapes.
        """
        check_comparable(x=self.loss._checked("x", x).shape, gt=self.loss._checked("gt", gt).shape)
        if self._shift_range:
            x, gt = (x + 1) / 2, (gt + 1) / 2
        parts = self._frobenius(x, gt) if self.criterion == "fro" else self.loss.parts(x, gt)
        weights = (self.perceptual_weight, self.style_weight)
        percep, style = (part if weight > 0 else None for part, weight in zip(parts, weights, strict=True))
        return percep, style

    def _frobenius(self, x: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        maps_gt = self.loss.precompute(gt).layers
        percep = style = wide(x.new_zeros(()))
        weights = zip(self.loss.weights, self.loss.style_weights, strict=True)
        for map_x, map_gt, (weight, style_weight) in zip(
            self.loss.feature_maps(x), maps_gt, weights, strict=True
        ):
            percep = percep + weight * (wide(map_x) - wide(map_gt)).norm()
            style = style + style_weight * (losses.gram_matrix(map_x) - losses.gram_matrix(map_gt)).norm()
        return percep, style


class GANLoss(nn.Module):
    """One side's adversarial loss; `basicsr.losses.GANLoss`.

    Args:
        gan_type: vanilla (cross entropy), lsgan, wgan, wgan_softplus or hinge.
        real_label_val, fake_label_val: labels of vanilla and lsgan.
        loss_weight: factor of G's losses only.
        from_probabilities: the discriminator ends in a sigmoid; for vanilla.

    Losses are float32 (float64 for float64 logits), also under autocast.

    Raises:
        NotImplementedError: an unknown gan_type, as in BasicSR.
        ValueError: probabilities for another gan_type than vanilla.
    """

    def __init__(
        self,
        gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"],
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
        *,
        from_probabilities: bool = False,
    ) -> None:
        super().__init__()
        known = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")
        check_kind("GAN type {} is not implemented", "gan_type", gan_type, known)
        self.from_probabilities = as_probabilities_flag(from_probabilities, "gan_type", gan_type)
        self.gan_type = gan_type
        self._check = ProbabilityCheck("GANLoss('vanilla')")
        self._no_check = ProbabilityCheck("GANLoss('wgan_softplus')")
        self._no_check.undecided = False
        self.real_label_val = as_finite("real_label_val", real_label_val)
        self.fake_label_val = as_finite("fake_label_val", fake_label_val)
        self.loss_weight = as_factor("loss_weight", loss_weight)

    def get_target_label(self, input: Tensor, target_is_real: bool) -> bool | Tensor:
        """A tensor of labels like the input, or for wgan and wgan_softplus `target_is_real` itself."""
        target_is_real = as_flag("target_is_real", target_is_real)
        if self.gan_type in ("wgan", "wgan_softplus"):
            return target_is_real
        check_floating("input", input)
        return torch.full_like(input, self.real_label_val if target_is_real else self.fake_label_val)

    def forward(self, input: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The mean over logits of any shape, 0-d; for G (``is_disc=False``) times loss_weight."""
        check_floating("input", input)
        return self._mean_of([input], target_is_real, is_disc)

    def _mean_of(self, scales: list[Tensor], target_is_real: bool, is_disc: bool) -> Tensor:
        target_is_real, is_disc = as_flag("target_is_real", target_is_real), as_flag("is_disc", is_disc)
        label = self.real_label_val if target_is_real else self.fake_label_val
        factor, weight = 1 / len(scales), None if is_disc else self.loss_weight
        if weight is not None and not isinstance(weight, Tensor):
            factor, weight = factor * weight, None
        loss: Tensor
        if self.gan_type in ("vanilla", "wgan_softplus"):
            is_labelled = self.gan_type == "vanilla"
            loss = side_cross_entropy(
                "input", scales, label if is_labelled else float(target_is_real), self.from_probabilities,
                self._check if is_labelled else self._no_check, factor=factor,
            )  # fmt: skip
        elif self.gan_type == "lsgan":  # without the 1/2 of ours
            loss = side_mean("input", scales, True, "least_squares", label, 2 * factor)
        elif self.gan_type == "wgan":
            loss = side_mean("input", scales, target_is_real, "wasserstein", factor=factor)
        else:
            game, real = ("hinge", target_is_real) if is_disc else ("wasserstein", True)
            loss = side_mean("input", scales, real, game, factor=factor)
        return loss if weight is None else loss * weight


class MultiScaleGANLoss(GANLoss):
    """:class:`GANLoss` of a discriminator of several scales; `basicsr.losses.MultiScaleGANLoss`.

    Args: as of :class:`GANLoss`.
    """

    def forward(  # type: ignore[override]
        self, input: Tensor | Sequence[Any], target_is_real: bool, is_disc: bool = False
    ) -> Tensor:
        """The mean over the scales of their losses, 0-d.

        Args:
            input: logits of any shape; or a list with a tensor for each scale, or with a list of features
                for each, of which the last are the logits.
        """
        return self._mean_of(scales_of("input", input, of_features=True), target_is_real, is_disc)


def r1_penalty(real_pred: Tensor, real_img: Tensor, *, scaler: torch.amp.GradScaler | None = None) -> Tensor:
    """Mean squared norm of the gradient, without 1/2; `basicsr.losses.r1_penalty`.

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
    """Path length regularization, (penalty, mean of the lengths, moved mean); `basicsr.losses`' function.

    Args:
        fake_img: N C H W, made from the latents; the noise is drawn like it.
        latents: N L D, or N D; must have required grad.
        mean_path_length: the running mean, a number or 0-d tensor.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    names = ("fake_img", "latents", "mean_path_length")
    penalty, mean, lengths = penalized_lengths(
        fake_img, latents, mean_path_length, decay, None, None, scaler, names
    )
    return penalty, lengths.detach().mean(), mean.detach()


def gradient_penalty_loss(
    discriminator: Callable[[Tensor], Tensor],
    real_data: Tensor,
    fake_data: Tensor,
    weight: Tensor | None = None,
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """WGAN-GP with the norm over channels only; `basicsr.losses.gradient_penalty_loss`.

    Args:
        weight: one factor per pixel of the gradient (N 1 H W); the result is divided by its mean.
        scaler: the GradScaler in use, if any; see :func:`fastgan.losses.r1_penalty`.
    """
    check_callable("discriminator", discriminator)
    check_pair(real_data=real_data, fake_data=fake_data)
    if real_data.dim() < 2:
        raise ValueError(f"real_data must have channels, N C ..., got shape {tuple(real_data.shape)}")
    x = interpolated(real_data, fake_data, dtype=real_data.dtype)
    names = ("output of discriminator", "its input")
    gradient = wide(input_gradient(discriminator(x), x, scaler, names))
    if weight is not None:
        check_real("weight", weight)
        check_same_device(weight=weight, real_data=real_data)
        if broadcast(weight.shape, gradient.shape) != gradient.shape:
            raise ValueError(
                f"weight must go with samples of shape {tuple(gradient.shape)}, got {tuple(weight.shape)}"
            )
        gradient = gradient * weight
    penalty = (gradient.norm(2, dim=1) - 1).square().mean()
    return penalty if weight is None else penalty / wide(weight).mean()
