"""Names and signatures of Videoseal (`videoseal/losses/videosealloss.py`): losses of a watermark's training.

Only the import changes: `loss, log = criterion(...)` and `loss.backward()` as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat._late_cut import LateCut
from fastgan.compat._patchgan import ActNorm, PatchGAN, as_sizes, patch_layers
from fastgan.compat._tokenizer import (
    TokenizerLoss,
    adopt_weight,
    budget_at,
    check_cond,
    hinge_d_loss,
    weighted_sum,
)
from fastgan.losses import LPIPS, yuv_color_l2
from fastgan.losses._backbones import Weights
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    check_floating,
    check_instance,
    check_one_of,
    check_real,
    check_same_device,
    described,
    shown,
)
from fastgan.ops._value_range import RangeCheck
from fastgan.reference.precision import wide
from fastgan.reference.yuv_l2 import RGB_TO_YUV

__all__ = ["NLayerDiscriminator", "VideosealLoss", "adopt_weight", "hinge_d_loss"]

# Added to the norms.
EPSILON = 1e-12


class NLayerDiscriminator(PatchGAN):
    """Videoseal's PatchGAN: with group normalization, and for one channel the luma of colour images.

    Args:
        input_nc: channels of the images; with 1, colour images are seen as their Y of YUV.
        ndf: channels of the first layer, a multiple of 4; they double with each layer, up to 8 times.
        n_layers: halvings, of 1 to 10.
        use_actnorm: activation normalization in place of group normalization.

    It has the published `state_dict`, random numbers and initial weights.
    """

    def __init__(
        self, input_nc: int = 3, ndf: int = 32, n_layers: int = 3, use_actnorm: bool = False
    ) -> None:
        use_actnorm = as_flag("use_actnorm", use_actnorm)
        if not use_actnorm and isinstance(ndf, int) and ndf % 4:
            raise ValueError(f"ndf must be a multiple of 4 for group normalization, got {ndf}")
        norm: Callable[[int], nn.Module] = ActNorm if use_actnorm else _four_groups
        super().__init__(patch_layers(input_nc, ndf, n_layers, norm, bias=True))
        self.input_nc = int(input_nc)
        self.rgb2yuv = _RGB2YUV()

    def _seen(self, images: Tensor) -> Tensor:
        """Also takes N 3 H W with ``input_nc=1``."""
        is_colour = images.dim() == 4 and images.shape[1] == 3
        return self.rgb2yuv(images) if self.input_nc == 1 and is_colour else images


def _four_groups(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


class _RGB2YUV(nn.Module):
    """The Y of images; the matrix is a buffer as in checkpoints."""

    M: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("M", torch.tensor(RGB_TO_YUV))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.M[0].view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


class VideosealLoss(TokenizerLoss):
    r"""Videoseal's losses of embedder with extractor, and of the discriminator.

    With the terms perceptual, adversarial (-mean D), detection and decoding (binary cross entropies), and
    their weights w, the generator's loss is

    .. math::
        \sum_i s_i t_i, \qquad s_i = \frac{w_i}{\sum_j w_j} \, \frac{T}{\lVert \nabla_L t_i \rVert +
        10^{-12}}

    with the gradients of the embedder's last layer and T `total_norm`, or without one the norm of the last
    term's; or, not balanced or without last_layer or gradient, the sum of w t. A term whose weight is not
    positive is left out.

    Values, gradients and logs are the published ones. Differences are:

    * Perceptual loss, discriminator and extractor run backward once, when the generator's loss is computed,
      and their graphs are freed then. The loss can be run backward once. If preds depend on the embedder
      in another way than by reconstructions, the embedder runs backward once more.
    * The discriminator's "vanilla" loss is taming-transformers'; the published one takes the logits of
      reconstructions as targets of a cross entropy.
    * Without a graph, as in validation, the terms keep their weights; published, they become 0.
    * In several processes the scales are those of each process, as published.
    * The constructor prints nothing, and draws random numbers for the discriminator alone.

    Args:
        balanced: whether gradients are balanced.
        total_norm: T; 0 for the norm of the last term's gradient.
        disc_weight, percep_weight, detect_weight, decode_weight: w. The adversarial term's is 0 before
            disc_start.
        disc_start: the step from which the discriminator counts, in units of global_step: epochs, published.
        disc_num_layers, disc_in_channels, use_actnorm: of :class:`NLayerDiscriminator`.
        disc_loss: "hinge" or "vanilla".
        percep_loss: "lpips", "mse", "yuv" or "none", or a weighted sum such as "lpips+0.1_mse"; for another
            one, set the attribute `perceptual_loss` to a module that takes inputs and reconstructions.
        weights, download, seed: of LPIPS's VGG, as in :class:`fastgan.losses.LPIPS`.
        scaler: the GradScaler in use, if any; the trainer calls `scaler.scale(loss).backward()` as before.

    Attributes:
        shares: what the terms "percep", "disc", "detect" and "decode" contributed to the gradient of the
            reconstructions in the last balanced step, as :class:`fastgan.monitor.Shares`, or None.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as :class:`fastgan.losses.LPIPS`.
        NotImplementedError: another percep_loss of Videoseal's.
        TypeError, ValueError: arguments of a wrong kind or value.

    Source: Fernandez et al., "Video Seal: Open and Efficient Video Watermarking", 2024.
    """

    def __init__(
        self,
        balanced: bool = True,
        total_norm: float = 0.0,
        disc_weight: float = 1.0,
        percep_weight: float = 1.0,
        detect_weight: float = 1.0,
        decode_weight: float = 0.0,
        disc_start: int = 0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_loss: Literal["hinge", "vanilla"] = "hinge",
        use_actnorm: bool = False,
        percep_loss: str = "lpips",
        *,
        weights: Weights = "default",
        download: bool = False,
        seed: int = 0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        as_sizes(disc_in_channels=disc_in_channels, disc_num_layers=disc_num_layers)
        super().__init__(
            _PerceptualLoss(percep_loss, weights, download, seed),
            NLayerDiscriminator(disc_in_channels, n_layers=disc_num_layers, use_actnorm=use_actnorm),
            disc_start,
            disc_loss,
            scaler,
        )
        self.balanced = as_flag("balanced", balanced)
        self.total_norm = as_finite("total_norm", total_norm)
        self.percep_weight = as_finite("percep_weight", percep_weight)
        self.disc_weight = as_finite("disc_weight", disc_weight)
        self.detect_weight = as_finite("detect_weight", detect_weight)
        self.decode_weight = as_finite("decode_weight", decode_weight)

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        masks: Tensor,
        msgs: Tensor,
        preds: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: nn.Parameter | None = None,
        cond: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """(loss, log): 0-d, and 0-d tensors without a graph (or numbers), by the published names.

        Args:
            inputs, reconstructions: images and watermarked images, N C H W in [0, 1].
            masks: N 1 H W, of ones where there is a watermark.
            msgs: N K bits, 0 or 1.
            preds: the extractor's logits, N 1+K or N 1+K H W: of the mask, and of the bits.
            optimizer_idx: 0 for the loss of embedder and extractor, 1 for the discriminator's.
            global_step: compared with disc_start.
            last_layer: the weight of the embedder's last layer; None for terms that are not balanced.
            cond: N C' H W, concatenated to the images in the discriminator's step alone, as published.

        Raises:
            TypeError, ValueError: arguments of another kind, or all of the weights 0.
        """
        self._check_images(inputs, reconstructions)
        check_one_of("optimizer_idx", optimizer_idx, (0, 1))
        disc_factor = adopt_weight(1.0, global_step, self.discriminator_iter_start)
        if optimizer_idx == 1:
            if cond is not None:
                check_cond(cond, True, reconstructions)
            real, fake = self._discriminator_logits(inputs, reconstructions, cond)
            d_loss = disc_factor * self.disc_loss(real, fake)
            return d_loss, {
                "disc_loss": d_loss.detach().clone(),
                "disc_factor": disc_factor,
                "logits_real": real.detach().mean(),
                "logits_fake": fake.detach().mean(),
            }

        self.shares = None
        losses, weights = self._terms(inputs, reconstructions, masks, msgs, preds, disc_factor)
        scales: dict[str, float] | dict[str, Tensor] = weights
        if last_layer is not None and self.balanced and reconstructions.grad_fn and torch.is_grad_enabled():
            loss, scales = self._balance(reconstructions, last_layer, losses, weights)
        else:
            loss = weighted_sum(losses, weights)
        return loss, {
            "total_loss": loss.detach().clone(),
            **{f"loss_{name}": term.detach().clone() for name, term in losses.items()},
            **{f"scale_{name}": scale for name, scale in scales.items()},
        }

    def _terms(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        masks: Tensor,
        msgs: Tensor,
        preds: Tensor,
        disc_factor: float,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """(terms, weights), in the published order: the last one's gradient is the measure of all."""
        losses: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if self.percep_weight > 0:
            losses["percep"] = self._perceptual(inputs, reconstructions).mean()
            weights["percep"] = self.percep_weight
        if self.disc_weight > 0:
            weights["disc"] = disc_factor * self.disc_weight
            # Without a weight only the last term's gradient is of use.
            counts = disc_factor > 0 or max(self.detect_weight, self.decode_weight) <= 0
            with torch.set_grad_enabled(torch.is_grad_enabled() and counts):
                losses["disc"] = self._g_loss(reconstructions)
        if self.detect_weight > 0:
            losses["detect"] = _detection_loss(preds, masks)
            weights["detect"] = self.detect_weight
        if self.decode_weight > 0:
            losses["decode"] = _decoding_loss(preds, masks, msgs)
            weights["decode"] = self.decode_weight
        if not losses:
            raise ValueError(
                "one of percep_weight, disc_weight, detect_weight and decode_weight must be positive, got "
                f"{self.percep_weight}, {self.disc_weight}, {self.detect_weight} and {self.decode_weight}"
            )
        return losses, weights

    def _balance(
        self,
        reconstructions: Tensor,
        last_layer: nn.Parameter,
        losses: dict[str, Tensor],
        weights: dict[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, scales)"""
        budget = budget_at(reconstructions, last_layer)
        cut = LateCut(reconstructions, budget, self.scaler)
        if not cut.depends_on(last_layer):
            raise ValueError(
                f"last_layer must be a weight behind reconstructions, got {described(last_layer)} that is not"
            )
        moved = cut.move(losses)
        norms = {name: cut.norm(each, last_layer) for name, each in moved.items()}
        total_norm = self.total_norm if self.total_norm > 0 else norms[list(norms)[-1]]
        sum_of_weights = sum(weights.values())
        if sum_of_weights == 0:
            raise ValueError(f"balanced losses need a weight above 0 in every step, got {weights}")
        scales = {
            name: weights[name] / sum_of_weights * total_norm / (EPSILON + norm)
            for name, norm in norms.items()
        }
        terms = {name: each.loss for name, each in moved.items()}
        loss, self.shares = budget.loss(terms, scales, scaler=self.scaler)
        return loss, scales


def _detection_loss(preds: Tensor, masks: Tensor) -> Tensor:
    check_floating("preds", preds)
    check_real("masks", masks)
    check_same_device(preds=preds, masks=masks)
    if preds.dim() not in (2, 4) or preds[:, 0:1].shape != masks.shape or masks.numel() == 0:
        raise ValueError(
            f"masks must have the shape of preds' first channel, got {tuple(masks.shape)} and preds of shape "
            f"{tuple(preds.shape)}"
        )
    logits = wide(preds[:, 0:1])
    return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype))


def _decoding_loss(preds: Tensor, masks: Tensor, msgs: Tensor) -> Tensor:
    """The mean over bits, or with logits for each pixel over bits and pixels of the mask."""
    check_floating("preds", preds)
    check_real("msgs", msgs)
    check_same_device(preds=preds, msgs=msgs)
    if preds.dim() not in (2, 4) or preds.shape[0] == 0 or preds.shape[1] < 2:
        raise ValueError(f"preds must have shape (N, 1 + K) or (N, 1 + K, H, W), got {tuple(preds.shape)}")
    logits = wide(preds[:, 1:])
    if msgs.shape != logits.shape[:2]:
        raise ValueError(
            f"msgs must have shape {tuple(logits.shape[:2])} for preds of shape {tuple(preds.shape)}, got "
            f"{tuple(msgs.shape)}"
        )
    bits = msgs.to(logits.dtype)
    if logits.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, bits)
    check_real("masks", masks)
    check_same_device(preds=preds, masks=masks)
    if masks.shape != (preds.shape[0], 1, *preds.shape[2:]):
        raise ValueError(
            f"masks must have shape (N, 1, H, W) for preds of shape {tuple(preds.shape)}, got "
            f"{tuple(masks.shape)}"
        )
    # Not by selecting pixels, whose number the device would have to tell.
    each = F.binary_cross_entropy_with_logits(
        logits, bits[:, :, None, None].expand_as(logits), reduction="none"
    )
    inside = (masks != 0).expand_as(logits)
    return torch.where(inside, each, 0.0).sum() / inside.sum()


class _PerceptualLoss(nn.Module):
    """A distance of images, or a weighted sum of distances."""

    def __init__(self, percep_loss: str, weights: Weights, download: bool, seed: int) -> None:
        super().__init__()
        check_instance("percep_loss", percep_loss, str, "a name such as 'lpips' or 'lpips+0.1_mse'")
        self.percep_loss = percep_loss
        parts = percep_loss.split("+")
        self.factors: list[tuple[str, float]] = []
        for part in parts:
            factor, _, name = part.rpartition("_") if len(parts) > 1 else ("", "", part)
            if name not in ("lpips", *_DISTANCES):
                raise NotImplementedError(
                    f"Loss type {shown(name)} not supported: percep_loss must be of lpips, "
                    f"{', '.join(_DISTANCES)}, got {shown(percep_loss)}; set perceptual_loss to a module"
                )
            self.factors.append((name, _factor(factor, percep_loss)))
        if "lpips" in dict(self.factors):
            self.lpips = LPIPS(net="vgg", weights=weights, download=download, seed=seed)
            # Videoseal gives it images in [0, 1] as they are.
            self.lpips._range_check = _NoCheck("LPIPS", {})

    def forward(self, inputs: Tensor, reconstructions: Tensor) -> Tensor:
        total = torch.zeros((), device=inputs.device)
        for name, factor in self.factors:
            distance = self.lpips if name == "lpips" else _DISTANCES[name]
            total = total + factor * distance(inputs, reconstructions).mean()
        return total


def _factor(text: str, percep_loss: str) -> float:
    try:
        return as_finite("percep_loss", float(text)) if text else 1.0
    except ValueError as error:
        raise ValueError(f"percep_loss must have numbers before _, got {shown(percep_loss)}") from error


def _yuv(inputs: Tensor, reconstructions: Tensor) -> Tensor:
    """The mean of the squared differences of Y, U and V."""
    third = 1 / 3
    return yuv_color_l2(reconstructions, inputs, (third, third, third), check_range=False)


def _none(inputs: Tensor, reconstructions: Tensor) -> Tensor:
    return 0 * reconstructions.mean()


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "yuv": _yuv, "none": _none}


class _NoCheck(RangeCheck):
    def look(self, *_: object) -> None:
        pass
