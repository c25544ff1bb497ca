"""The loss of Stability's generative-models for autoencoders with any regularization."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat._likelihood import LikelihoodLoss, check_weights
from fastgan.compat._patchgan import NLayerDiscriminator, as_sizes, weights_init
from fastgan.compat._tokenizer import Log
from fastgan.losses import LPIPS
from fastgan.losses._backbones import Weights as BackboneWeights
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_number,
    check_floating,
    check_instance,
    check_one_of,
    check_real,
    described,
    is_among,
    shown,
)

# The names that configuration files of generative-models have for it.
OWN_DISCRIMINATOR = "sgm.modules.autoencoding.lpips.model.model.NLayerDiscriminator"


class GeneralLPIPSWithDiscriminator(LikelihoodLoss):
    """Losses of generator and discriminator of generative-models' `AutoencodingEngine`.

    Like :class:`LPIPSWithDiscriminator`, but: before disc_start the generator's step leaves the discriminator
    out; terms that regularize the code come by name, in place of a posterior; in evaluation mode the
    adversarial term has the weight 1; images may be videos. `log_images`, which draws the discriminator's
    logits, is missing; the engine then goes without.

    Args:
        disc_start: the step from which the discriminator counts.
        logvar_init: logvar at the start.
        disc_num_layers, disc_in_channels: of the discriminator.
        disc_factor, disc_weight, perceptual_weight, disc_loss: as in :class:`LPIPSWithDiscriminator`.
        scale_input_to_tgt_size: bring inputs to the size of the reconstructions, bicubically.
        dims: 2 for images; 3 for videos, whose frames are judged as images.
        learn_logvar: whether logvar is among `get_trainable_autoencoder_parameters()`.
        regularization_weights: of terms in `regularization_log`, by name; others are left out.
        additional_log_keys: further names of terms to log.
        discriminator_config: another discriminator, as `{"target": "package.module.Class", "params": {...}}`;
            its weights are initialized as the published code does.
        weights, download, seed, scaler: as in :class:`fastgan.compat.taming.VQLPIPSWithDiscriminator`.

    Attributes:
        shares: as in :class:`fastgan.compat.taming.VQLPIPSWithDiscriminator`; with `weights`, of the terms
            "nll" and "weighting" in place of the pixels' and the perceptual term.

    Source: Podell et al., "SDXL", ICLR 2024, whose code this is.
    """

    def __init__(
        self,
        disc_start: int,
        logvar_init: float = 0.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        disc_loss: Literal["hinge", "vanilla"] = "hinge",
        scale_input_to_tgt_size: bool = False,
        dims: int = 2,
        learn_logvar: bool = False,
        regularization_weights: Mapping[str, float] | None = None,
        additional_log_keys: Sequence[str] | None = None,
        discriminator_config: Mapping[str, Any] | None = None,
        *,
        weights: BackboneWeights = "default",
        download: bool = False,
        seed: int = 0,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        as_sizes(disc_in_channels=disc_in_channels, disc_num_layers=disc_num_layers)
        if discriminator_config is None:
            params = {"input_nc": disc_in_channels, "n_layers": disc_num_layers}
            discriminator_config = {"target": OWN_DISCRIMINATOR, "params": params}
        super().__init__(
            LPIPS(net="vgg", weights=weights, download=download, seed=seed),
            _instantiated(discriminator_config),
            perceptual_weight=perceptual_weight,
            disc_start=disc_start,
            disc_factor=disc_factor,
            disc_weight=disc_weight,
            disc_loss=disc_loss,
            scaler=scaler,
        )
        check_one_of("dims", dims, (2, 3))
        self.dims = int(dims)
        self.scale_input_to_tgt_size = as_flag("scale_input_to_tgt_size", scale_input_to_tgt_size)
        self.learn_logvar = as_flag("learn_logvar", learn_logvar)
        logvar = torch.full((), as_finite("logvar_init", logvar_init))
        self.logvar = nn.Parameter(logvar, requires_grad=self.learn_logvar)
        self.regularization_weights = _checked_weights(regularization_weights)
        keys = () if additional_log_keys is None else additional_log_keys
        check_instance("additional_log_keys", keys, (Sequence, set, frozenset), "names of terms")
        if not all(isinstance(key, str) for key in keys):
            raise TypeError(f"additional_log_keys must be names of terms, got {described(keys)}")
        self.additional_log_keys = {*keys, *self.regularization_weights}
        self.forward_keys = ["optimizer_idx", "global_step", "last_layer", "split", "regularization_log"]

    def get_trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The discriminator's."""
        return self.discriminator.parameters()

    def get_trainable_autoencoder_parameters(self) -> Iterator[nn.Parameter]:
        """Logvar, with learn_logvar."""
        if self.learn_logvar:
            yield self.logvar

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        *,
        regularization_log: Mapping[str, Tensor],
        optimizer_idx: int,
        global_step: int,
        last_layer: nn.Parameter | None,
        split: str = "train",
        weights: float | Tensor | None = None,
    ) -> tuple[Tensor, Log]:
        """(loss, log): 0-d, and 0-d tensors without a graph, by the published names.

        Args:
            inputs, reconstructions: N C H W, or with ``dims=3`` N C T H W, in [-1, 1], at least 16 x 16.
            regularization_log: 0-d terms of the code, by name.
            optimizer_idx, global_step, last_layer, split, weights: as in :class:`LPIPSWithDiscriminator`.

        Raises:
            NotImplementedError: another optimizer_idx, as published.
            TypeError, ValueError: as :class:`LPIPSWithDiscriminator`.
        """
        check_floating("inputs", inputs)
        check_floating("reconstructions", reconstructions)
        if self.scale_input_to_tgt_size:
            inputs = self._resized(inputs, reconstructions)
        self._check_images(inputs, reconstructions, dims=2 + self.dims)
        if not is_among(optimizer_idx, (0, 1)):
            raise NotImplementedError(
                f"Unknown optimizer_idx {shown(optimizer_idx)}: optimizer_idx must be 0 or 1, got "
                f"{shown(optimizer_idx)}"
            )
        check_instance("split", split, str, "a string")
        inputs = self._frames(inputs)
        has_started = as_number("global_step", global_step) >= self.discriminator_iter_start
        counts = has_started or not self.training
        if optimizer_idx == 1:
            real, fake = self._discriminator_logits(inputs, self._frames(reconstructions), None)
            d_loss = torch.zeros((), device=real.device, requires_grad=True)
            if counts:
                d_loss = self.disc_factor * self.disc_loss(real, fake)
            return d_loss, {
                f"{split}/loss/disc": d_loss.detach().clone(),
                f"{split}/logits/real": real.detach().mean(),
                f"{split}/logits/fake": fake.detach().mean(),
            }

        regularization, log = self._regularization(regularization_log, split)
        images, budget = self._cut(reconstructions, last_layer)
        images = self._frames(images)
        likelihood = self._likelihood(inputs, images, check_weights(weights, images))
        terms, own_weights = likelihood.terms, likelihood.weights
        g_loss = self._g_loss(images, None) if counts else None
        if g_loss is not None and not self.training:
            terms, own_weights, g_loss = (
                {**terms, "gan": g_loss},
                {**own_weights, "gan": self.disc_factor},
                None,
            )
        loss, d_weight = self._weighed(
            budget,
            last_layer,
            terms,
            own_weights,
            g_loss,
            self.disc_factor,
            likelihood.beside + regularization,
            likelihood.relative_to,
        )
        none = loss.detach().new_zeros(())
        log |= {
            f"{split}/loss/total": loss.detach().clone(),
            f"{split}/loss/nll": likelihood.nll,
            f"{split}/loss/rec": likelihood.rec,
            f"{split}/loss/g": terms.get("gan", none if g_loss is None else g_loss).detach(),
            f"{split}/scalars/logvar": self.logvar.detach(),
            f"{split}/scalars/d_weight": d_weight if self.training else none + 1,
        }
        return loss, log

    def _resized(self, inputs: Tensor, reconstructions: Tensor) -> Tensor:
        for name, images in (("inputs", inputs), ("reconstructions", reconstructions)):
            if images.dim() != 4 or images.numel() == 0:
                raise ValueError(
                    f"{name} must have shape (N, C, H, W) with scale_input_to_tgt_size, got "
                    f"{tuple(images.shape)}"
                )
        return F.interpolate(inputs, reconstructions.shape[2:], mode="bicubic", antialias=True)

    def _frames(self, images: Tensor) -> Tensor:
        """Videos as batches of images."""
        return images.transpose(1, 2).flatten(0, 1) if self.dims > 2 else images

    def _regularization(self, terms: Mapping[str, Tensor], split: str) -> tuple[Tensor, Log]:
        """(their weighted sum, log)"""
        check_instance("regularization_log", terms, Mapping, "a dict of tensors by name")
        total, log = torch.zeros(()), {}
        for name, term in terms.items():
            if name in self.regularization_weights:
                check_floating(f"regularization_log[{name!r}]", term)
                if term.dim() != 0:
                    raise ValueError(f"regularization_log[{name!r}] must be 0-d, got {described(term)}")
                total = total + self.regularization_weights[name] * term
            if name in self.additional_log_keys:
                check_real(f"regularization_log[{name!r}]", term)
                log[f"{split}/{name}"] = term.detach().float().mean()
        return total, log


def _checked_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    if weights is None:
        return {}
    check_instance("regularization_weights", weights, Mapping, "a dict of numbers by terms' names")
    return {name: as_finite(f"regularization_weights[{name!r}]", weight) for name, weight in weights.items()}


def _instantiated(config: Mapping[str, Any]) -> nn.Module:
    """The discriminator that a configuration names."""
    check_instance("discriminator_config", config, Mapping, "a dict with target and params")
    target, params = config.get("target"), config.get("params", {})
    if not isinstance(target, str) or "." not in target or not isinstance(params, Mapping):
        raise ValueError(
            "discriminator_config must be {'target': 'package.module.Class', 'params': {...}}, got "
            f"{described(config)}"
        )
    if target == OWN_DISCRIMINATOR:
        return NLayerDiscriminator(**params)
    module, name = target.rsplit(".", 1)
    discriminator = getattr(importlib.import_module(module), name)(**params)
    check_instance("discriminator_config", discriminator, nn.Module, "that of a module")
    return discriminator.apply(weights_init)
