"""Names and signatures of latent-diffusion and of Stability's generative-models: losses of KL autoencoders.

`LPIPSWithDiscriminator` is that of `ldm/modules/losses/contperceptual.py`, `GeneralLPIPSWithDiscriminator`
that of `sgm/modules/autoencoding/losses/discriminator_loss.py`. Only the import changes, see
:mod:`fastgan.compat.taming`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from fastgan.compat._generative_models import GeneralLPIPSWithDiscriminator
from fastgan.compat._likelihood import LikelihoodLoss, check_weights
from fastgan.compat._patchgan import NLayerDiscriminator, as_sizes
from fastgan.compat._tokenizer import Log, check_cond
from fastgan.losses import LPIPS
from fastgan.losses._backbones import Weights as BackboneWeights
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    check_floating,
    check_instance,
    check_one_of,
    described,
)

__all__ = ["GeneralLPIPSWithDiscriminator", "LPIPSWithDiscriminator", "NLayerDiscriminator"]


class Posterior(Protocol):
    """A distribution of codes, such as LDM's `DiagonalGaussianDistribution`."""

    def kl(self) -> Tensor:
        """Of each sample, (N,)."""


class LPIPSWithDiscriminator(LikelihoodLoss):
    r"""Losses of generator and discriminator of latent-diffusion's KL autoencoder.

    .. math::
        L_G = \frac{1}{N} \sum \Big( \frac{\lvert x - \hat x \rvert + w_p \, \text{LPIPS}(x, \hat x)}{e^s} +
        s \Big) + \frac{w_{kl}}{N} \sum \text{KL} + \lambda \, f \, \text{mean}(-D(\hat x))

    with sums over all values of the images and s = `logvar`, a parameter that the published trainer does not
    optimize. :math:`\lambda`, f, the discriminator's loss and the differences to the published code are those
    of :class:`fastgan.compat.taming.VQLPIPSWithDiscriminator`, and so are the other arguments and attributes.

    Args:
        disc_start: the step from which the discriminator counts.
        logvar_init: s at the start.
        kl_weight: :math:`w_{kl}`.
        disc_factor: f from disc_start on; without one (not positive) the discriminator has no part in the
            loss, and its weight is 0.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022.
    """

    def __init__(
        self,
        disc_start: int,
        logvar_init: float = 0.0,
        kl_weight: float = 1.0,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
        disc_loss: Literal["hinge", "vanilla"] = "hinge",
        *,
        weights: BackboneWeights = "default",
        download: bool = False,
        seed: int = 0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        as_sizes(disc_in_channels=disc_in_channels, disc_num_layers=disc_num_layers)
        super().__init__(
            LPIPS(net="vgg", weights=weights, download=download, seed=seed),
            NLayerDiscriminator(disc_in_channels, n_layers=disc_num_layers, use_actnorm=use_actnorm),
            perceptual_weight=perceptual_weight,
            disc_start=disc_start,
            disc_factor=disc_factor,
            disc_weight=disc_weight,
            disc_loss=disc_loss,
            scaler=scaler,
        )
        self.kl_weight = as_finite("kl_weight", kl_weight)
        self.pixel_weight = as_finite("pixelloss_weight", pixelloss_weight)
        self.logvar = nn.Parameter(torch.full((), as_finite("logvar_init", logvar_init)))
        self.disc_conditional = as_flag("disc_conditional", disc_conditional)

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        posteriors: Posterior,
        optimizer_idx: int,
        global_step: int,
        last_layer: nn.Parameter | None = None,
        cond: Tensor | None = None,
        split: str = "train",
        weights: float | Tensor | None = None,
    ) -> tuple[Tensor, Log]:
        """(loss, log): 0-d, and 0-d tensors without a graph, by the published names.

        Args:
            inputs, reconstructions: N C H W in [-1, 1], at least 16 x 16.
            posteriors: have a method kl() that gives the divergence of each sample, (N,).
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: compared with disc_start.
            last_layer: the weight of the decoder's last layer, where there is a gradient.
            cond: N C' H W, with disc_conditional.
            split: the first part of the log's names.
            weights: of the negative log likelihood of each value, or of all, but not for the adaptive weight:
                VGG then runs backward twice.

        Raises:
            TypeError, ValueError: arguments of another kind, reconstructions without a graph in training
                mode, or a last_layer that they do not depend on.
        """
        self._check_images(inputs, reconstructions)
        check_one_of("optimizer_idx", optimizer_idx, (0, 1))
        check_instance("split", split, str, "a string")
        check_cond(cond, self.disc_conditional, reconstructions)
        weights = check_weights(weights, reconstructions)
        factor = self._disc_factor(global_step)
        if optimizer_idx == 1:
            real, fake = self._discriminator_logits(inputs, reconstructions, cond)
            d_loss = factor * self.disc_loss(real, fake)
            return d_loss, {
                f"{split}/disc_loss": d_loss.detach().clone(),
                f"{split}/logits_real": real.detach().mean(),
                f"{split}/logits_fake": fake.detach().mean(),
            }

        kl_loss = _kl(posteriors)
        images, budget = self._cut(reconstructions, last_layer)
        likelihood = self._likelihood(inputs, images, weights)
        counts = self.disc_factor > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and counts):
            g_loss = self._g_loss(images, cond)
        loss, d_weight = self._weighed(
            budget,
            last_layer,
            likelihood.terms,
            likelihood.weights,
            g_loss if counts else None,
            factor,
            likelihood.beside + self.kl_weight * kl_loss,
            likelihood.relative_to,
        )
        return loss, {
            f"{split}/total_loss": loss.detach().clone(),
            f"{split}/logvar": self.logvar.detach(),
            f"{split}/kl_loss": kl_loss.detach(),
            f"{split}/nll_loss": likelihood.nll,
            f"{split}/rec_loss": likelihood.rec,
            f"{split}/d_weight": d_weight,
            f"{split}/disc_factor": torch.tensor(factor),
            f"{split}/g_loss": g_loss.detach(),
        }


def _kl(posteriors: Posterior) -> Tensor:
    if not callable(getattr(posteriors, "kl", None)):
        raise TypeError(f"posteriors must have a method kl(), got {described(posteriors)}")
    divergence = posteriors.kl()
    check_floating("posteriors.kl()", divergence)
    if divergence.dim() == 0 or divergence.numel() == 0:
        raise ValueError(
            f"posteriors must give a divergence for each sample, (N,), got {described(divergence)}"
        )
    return divergence.sum() / divergence.shape[0]
