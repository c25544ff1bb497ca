"""The negative log likelihood of the losses of latent-diffusion and of generative-models."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.compat._tokenizer import AdaptiveTokenizerLoss, Terms, Weights, weighted_sum
from fastgan.ops._checks import (
    as_finite,
    check_real,
    check_same_device,
)


class Likelihood(NamedTuple):
    """The terms of the negative log likelihood, and what of it does not depend on the images."""

    terms: Terms
    weights: Weights
    relative_to: tuple[str, ...]
    beside: Tensor
    nll: Tensor
    """Without the weights of the call, without a graph."""
    rec: Tensor


class LikelihoodLoss(AdaptiveTokenizerLoss):
    """With a Laplace distribution's scale, whose logarithm may be trained."""

    logvar: nn.Parameter

    def _likelihood(self, inputs: Tensor, images: Tensor, weights: float | Tensor | None) -> Likelihood:
        """Sums over each image of rec / exp(logvar) + logvar, and their mean over the batch."""
        pixel = (inputs - images).abs()
        batch, values = images.shape[0], images.numel()
        variance = self.logvar.exp()
        distance = self._perceptual(inputs, images) if self.perceptual_weight > 0 else None
        rec = pixel.detach().mean()
        if distance is not None:
            rec = rec + self.perceptual_weight * distance.detach().mean()
        if weights is None:
            terms: Terms = {"pixel": pixel.sum() / batch / variance}
            own_weights: Weights = {"pixel": 1.0}
            if distance is not None:
                # The distance of an image counts at each of its values.
                spread = values / distance.numel()
                terms["perceptual"] = spread * distance.sum() / batch / variance
                own_weights["perceptual"] = self.perceptual_weight
            beside = self.logvar * (values / batch)
            nll = (weighted_sum(terms, own_weights) + beside).detach()
            return Likelihood(terms, own_weights, tuple(own_weights), beside, nll, rec)
        # The adaptive weight is relative to the sum without weights, so both are needed.
        each = pixel if distance is None else pixel + self.perceptual_weight * distance
        each = each / variance + self.logvar
        total = each.sum() / batch
        terms = {"nll": total, "weighting": (weights * each).sum() / batch - total}
        own_weights = {"nll": 1.0, "weighting": 1.0}
        return Likelihood(terms, own_weights, ("nll",), total.new_zeros(()), total.detach(), rec)


def check_weights(weights: object, images: Tensor) -> float | Tensor | None:
    if weights is None or not isinstance(weights, Tensor):
        return None if weights is None else as_finite("weights", weights)
    check_real("weights", weights)
    check_same_device(weights=weights, reconstructions=images)
    try:
        fits = torch.broadcast_shapes(weights.shape, images.shape) == images.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"weights must go with reconstructions of shape {tuple(images.shape)}, got {tuple(weights.shape)}"
        )
    return weights
