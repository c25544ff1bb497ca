"""Names and signatures of taming-transformers (`taming/modules/losses/vqperceptual.py`): VQGAN's loss.

Only the import changes: `loss, log = criterion(...)` and `loss.backward()`, also with Lightning's or
accelerate's `backward`, a GradScaler and accumulated gradients, give the published gradients.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fastgan.compat._patchgan import NLayerDiscriminator, as_sizes
from fastgan.compat._tokenizer import (
    AdaptiveTokenizerLoss,
    Log,
    Terms,
    Weights,
    adopt_weight,
    check_cond,
    hinge_d_loss,
    vanilla_d_loss,
    weighted_sum,
)
from fastgan.losses import LPIPS
from fastgan.losses._backbones import Weights as BackboneWeights
from fastgan.ops._checks import as_finite, as_flag, check_floating, check_instance, check_one_of

__all__ = [
    "NLayerDiscriminator",
    "VQLPIPSWithDiscriminator",
    "adopt_weight",
    "hinge_d_loss",
    "vanilla_d_loss",
]


class VQLPIPSWithDiscriminator(AdaptiveTokenizerLoss):
    r"""VQGAN's losses of generator and discriminator.

    .. math::
        L_G = \text{mean} \lvert x - \hat x \rvert + w_p \, \text{LPIPS}(x, \hat x)
        + \lambda \, f \, \text{mean}(-D(\hat x)) + w_c \, \text{codebook}, \qquad
        \lambda = w_d \, \text{clamp} \Big( \frac{\lVert \nabla_L (\text{first two}) \rVert}{\lVert
        \nabla_L \, \text{mean}(-D) \rVert + 10^{-4}}, 0, 10^4 \Big)

    with the gradients of the decoder's last layer and f 0 before disc_start. :math:`L_D` is f times
    :func:`hinge_d_loss` or :func:`vanilla_d_loss`.

    Values, gradients of the autoencoder and logs are the published ones. Differences are:

    * VGG and discriminator run backward once, when the generator's loss is computed, and VGG does not run for
      the discriminator's. The loss can be run backward once.
    * The discriminator's weights get no gradient from the generator's loss; the published code leaves one
      there, which the zero_grad before the discriminator's step removes.
    * LPIPS stays in evaluation mode; in the published code `train()` turns its dropout on.
    * In several processes :math:`\lambda` is that of the joined batch, in place of one for each process.
    * The constructor prints nothing, and draws random numbers for the discriminator alone.

    Args:
        disc_start: the step from which the discriminator counts.
        codebook_weight, perceptual_weight, disc_weight: :math:`w_c`, :math:`w_p` (LPIPS is left out if it is
            not positive) and :math:`w_d`.
        pixelloss_weight: kept as an attribute and unused, as published.
        disc_num_layers, disc_in_channels, use_actnorm, disc_ndf: of :class:`NLayerDiscriminator`.
        disc_factor: f from disc_start on.
        disc_conditional: whether the discriminator sees a condition, concatenated to the images; its channels
            are part of disc_in_channels.
        disc_loss: "hinge" or "vanilla".
        weights, download, seed: of LPIPS's VGG, as in :class:`fastgan.losses.LPIPS`.
        scaler: the GradScaler in use, if any, so that gradients of VGG and discriminator do not vanish in
            float16; the trainer calls `scaler.scale(loss).backward()` as before.

    Attributes:
        shares: what "pixel", "perceptual" and "gan" contributed to the gradient of the reconstructions in the
            last generator step, as :class:`fastgan.monitor.Shares`; None without a gradient.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as :class:`fastgan.losses.LPIPS`.
        TypeError, ValueError: arguments of a wrong kind or value.

    Source: Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021.
    """

    def __init__(
        self,
        disc_start: int,
        codebook_weight: float = 1.0,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
        disc_ndf: int = 64,
        disc_loss: Literal["hinge", "vanilla"] = "hinge",
        *,
        weights: BackboneWeights = "default",
        download: bool = False,
        seed: int = 0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        as_sizes(disc_in_channels=disc_in_channels, disc_ndf=disc_ndf, disc_num_layers=disc_num_layers)
        super().__init__(
            LPIPS(net="vgg", weights=weights, download=download, seed=seed),
            NLayerDiscriminator(disc_in_channels, disc_ndf, disc_num_layers, use_actnorm),
            perceptual_weight=perceptual_weight,
            disc_start=disc_start,
            disc_factor=disc_factor,
            disc_weight=disc_weight,
            disc_loss=disc_loss,
            scaler=scaler,
        )
        self.codebook_weight = as_finite("codebook_weight", codebook_weight)
        self.pixel_weight = as_finite("pixelloss_weight", pixelloss_weight)
        self.disc_conditional = as_flag("disc_conditional", disc_conditional)

    def forward(
        self,
        codebook_loss: Tensor,
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: nn.Parameter | None = None,
        cond: Tensor | None = None,
        split: str = "train",
    ) -> tuple[Tensor, Log]:
        """(loss, log): 0-d, and 0-d tensors without a graph, by the published names.

        Args:
            codebook_loss: of any shape; its mean counts.
            inputs, reconstructions: N C H W in [-1, 1], at least 16 x 16.
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: compared with disc_start.
            last_layer: the weight of the decoder's last layer, where there is a gradient.
            cond: N C' H W, with disc_conditional.
            split: the first part of the log's names.

        Raises:
            TypeError, ValueError: arguments of another kind, reconstructions without a graph in training
                mode, or a last_layer that they do not depend on.
        """
        check_floating("codebook_loss", codebook_loss)
        self._check_images(inputs, reconstructions)
        check_one_of("optimizer_idx", optimizer_idx, (0, 1))
        check_instance("split", split, str, "a string")
        check_cond(cond, self.disc_conditional, reconstructions)
        factor = self._disc_factor(global_step)
        if optimizer_idx == 1:
            real, fake = self._discriminator_logits(inputs, reconstructions, cond)
            d_loss = factor * self.disc_loss(real, fake)
            return d_loss, {
                f"{split}/disc_loss": d_loss.detach(),
                f"{split}/logits_real": real.detach().mean(),
                f"{split}/logits_fake": fake.detach().mean(),
            }

        images, budget = self._cut(reconstructions, last_layer)
        terms: Terms = {"pixel": (inputs - images).abs().mean()}
        weights: Weights = {"pixel": 1.0}
        if self.perceptual_weight > 0:
            terms["perceptual"] = self._perceptual(inputs, images).mean()
            weights["perceptual"] = self.perceptual_weight
        nll_loss = weighted_sum(terms, weights).detach()
        g_loss = self._g_loss(images, cond)
        beside = self.codebook_weight * codebook_loss.mean()
        loss, d_weight = self._weighed(budget, last_layer, terms, weights, g_loss, factor, beside)
        return loss, {
            f"{split}/total_loss": loss.detach().clone(),
            f"{split}/quant_loss": codebook_loss.detach().mean(),
            f"{split}/nll_loss": nll_loss,
            f"{split}/rec_loss": nll_loss,
            f"{split}/p_loss": terms.get("perceptual", nll_loss.new_zeros(())).detach(),
            f"{split}/d_weight": d_weight,
            f"{split}/disc_factor": torch.tensor(factor),
            f"{split}/g_loss": g_loss.detach(),
        }
