"""Entries of fastgan.losses."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastgan import losses
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import Critic, images, judged, logits, mapped, synthesis, two_logits

# RuntimeError: a backend that cannot serve.
BACKEND = (RuntimeError,)
# Weights that are not on this machine; the lpips package.
MISSING = (FileNotFoundError, ModuleNotFoundError)

# --- adversarial losses, labels ----------------------------------------------------------------------


def _play(loss: losses.AdversarialLoss) -> None:
    loss.discriminator(**two_logits())
    loss.generator(**two_logits())
    if loss.kind != "relativistic":
        loss.real(logits())
        loss.fake([logits(), logits(3)])


constructor("losses.AdversarialLoss", lambda: {"kind": "bce", "real_label": 0.9}, _play)
method("losses.AdversarialLoss.discriminator", two_logits, lambda: losses.AdversarialLoss("hinge"))
method("losses.AdversarialLoss.halves", two_logits, lambda: losses.AdversarialLoss("lsgan"))
method("losses.AdversarialLoss.generator", two_logits, lambda: losses.AdversarialLoss("relativistic"))
for _side in ("real", "fake"):
    method(
        f"losses.AdversarialLoss.{_side}",
        lambda: {"logits": logits()},
        lambda: losses.AdversarialLoss("hinge"),
    )
for _game in ("bce", "hinge", "lsgan", "nonsaturating", "relativistic", "wgan"):
    entry(f"losses.d_{_game}_loss", two_logits)
for _game in ("adversarial", "bce", "lsgan", "nonsaturating"):
    entry(f"losses.g_{_game}_loss", lambda: {"fake_logits": logits()})
entry("losses.g_relativistic_loss", two_logits)


def _labels() -> Tensor:
    return torch.tensor([0, 2, 1, 1])


entry("losses.adv_loss", lambda: {"logits": logits(), "target": 1})
entry("losses.bce_secret_loss", lambda: {"logits": logits(2, 8), "bits": torch.ones(2, 8)})
constructor("losses.BinaryLoss", lambda: {"real": True}, lambda loss: loss(logits()))
method("losses.BinaryLoss.forward", lambda: {"logits": logits()}, lambda: losses.BinaryLoss(True))
constructor("losses.CategoryLoss", lambda: {"category_num": 3}, lambda loss: loss(logits(4, 3), _labels()))
method(
    "losses.CategoryLoss.forward",
    lambda: {"category_logits": logits(4, 3), "labels": _labels()},
    lambda: losses.CategoryLoss(3),
)

# --- penalties -------------------------------------------------------------------------------------------


def _discriminator() -> dict[str, Any]:
    return {"discriminator": Critic()}


entry("losses.check_supports_penalty", _discriminator)
entry("losses.r1_penalty", lambda: judged("logits", "x"))
entry("losses.r2_penalty", lambda: judged("logits", "x"))
entry("losses.r1_penalty_of", lambda: {**_discriminator(), "x": images()})
entry("losses.gradient_penalty", lambda: {**_discriminator(), "real": images(), "fake": images()})
entry("losses.approximate_r1", lambda: {**_discriminator(), "x": images(), "sigma": 0.1})
constructor(
    "losses.R1", lambda: {**_discriminator(), "weight": 5.0, "interval": 2}, lambda r1: r1(images(), 0)
)
method("losses.R1.due", lambda: {"step": 0}, lambda: losses.R1(Critic(), 5.0, 2))
method("losses.R1.__call__", lambda: {"x": images(), "step": 0}, lambda: losses.R1(Critic(), 5.0, 2))

entry("losses.path_length_penalty", lambda: {**mapped("images", "latents"), "mean": 0.5})
entry(
    "losses.path_length_penalty_of",
    lambda: {"synthesis": synthesis, "latents": mapped("images", "latents")["latents"], "mean": 0.5},
)
constructor(
    "losses.PathLength",
    lambda: {"interval": 2},
    lambda regularizer: regularizer(**mapped("images", "latents")),
)
method("losses.PathLength.due", lambda: {"step": 0}, losses.PathLength)
method("losses.PathLength.forward", lambda: mapped("images", "latents"), losses.PathLength)
method(
    "losses.PathLength.of",
    lambda: {"synthesis": synthesis, "latents": mapped("images", "latents")["latents"]},
    losses.PathLength,
)

# --- images ----------------------------------------------------------------------------------------------


def _two_images() -> dict[str, Tensor]:
    return {"x": images(), "y": images()}


entry("losses.pixel_loss", lambda: {**_two_images(), "weight": images(1)}, raises=BACKEND)
entry("losses.total_variation_loss", lambda: {"x": images(), "weight": images(1)}, raises=BACKEND)
constructor("losses.PixelLoss", lambda: {"kind": "l2"}, lambda loss: loss(**_two_images()), BACKEND)
method("losses.PixelLoss.forward", lambda: {**_two_images(), "weight": images(1)}, losses.PixelLoss)
entry("losses.yuv_color_l2", _two_images, raises=BACKEND)
constructor("losses.YUVColorL2", dict, lambda loss: loss(**_two_images()), BACKEND)
method("losses.YUVColorL2.forward", _two_images, losses.YUVColorL2)
for _name in ("ssim", "ssim_loss", "ssim_l1_loss"):
    entry(f"losses.{_name}", _two_images, raises=BACKEND)
constructor("losses.SSIMLoss", dict, lambda loss: loss(**_two_images()), BACKEND)
method("losses.SSIMLoss.forward", _two_images, losses.SSIMLoss)
# Two scales, for which images of 16 x 16 are large enough.
for _name in ("ms_ssim", "ms_ssim_loss"):
    entry(
        f"losses.{_name}", lambda: {**_two_images(), "weights": (0.3, 0.7), "window_size": 7}, raises=BACKEND
    )
constructor(
    "losses.MSSSIMLoss",
    lambda: {"weights": (0.3, 0.7), "window_size": 7},
    lambda loss: loss(**_two_images()),
    BACKEND,
)
method("losses.MSSSIMLoss.forward", _two_images, lambda: losses.MSSSIMLoss(weights=(0.3, 0.7), window_size=7))
constructor("losses.DiffJPEG", lambda: {"height": 16, "width": 16}, lambda codec: codec(images()))
method("losses.DiffJPEG.forward", lambda: {"x": images()}, lambda: losses.DiffJPEG(16, 16))
constructor("losses.RandomJPEG", lambda: {"min_quality": 50}, lambda codec: codec(images()))
method("losses.RandomJPEG.forward", lambda: {"x": images()}, lambda: losses.RandomJPEG(50))
entry("losses.jpeg_codec_differentiable", lambda: {"image_rgb": images(), "jpeg_quality": 50.0})
entry("losses.diff_jpeg_coding", lambda: {"image_rgb": 255 * images(), "jpeg_quality": 50.0})
entry("losses.cycle_consistency_loss", lambda: {"real": images(), "reconstructed": images()})
entry("losses.identity_loss", lambda: {"real": images(), "translated": images()})
entry("losses.diversity_sensitive_loss", lambda: {"fake_1": images(), "fake_2": images(), "margin": 0.5})
entry("losses.style_reconstruction_loss", lambda: {"style": logits(2, 8), "style_of_fake": logits(2, 8)})

# --- features --------------------------------------------------------------------------------------------


def _lpips_arguments() -> dict[str, Any]:
    return {"net": "squeeze", "weights": None, "pretrained": False}


@functools.cache
def _made(name: str) -> Any:
    if name == "PerceptualLoss":
        return losses.PerceptualLoss((3,), backbone=None)
    return getattr(losses, name)(**_lpips_arguments())


def _lpips_images() -> dict[str, Tensor]:
    return {"in0": images(size=32), "in1": images(size=32)}


for _name in ("LPIPS", "LPIPSLoss"):
    constructor(f"losses.{_name}", _lpips_arguments, lambda loss: loss(**_lpips_images()), MISSING)
    method(f"losses.{_name}.forward", _lpips_images, functools.partial(_made, _name))
method("losses.LPIPS.precompute", lambda: {"image": images(size=32)}, lambda: _made("LPIPS"))
entry("losses.lpips_weights_path")


def _dists_arguments() -> dict[str, Any]:
    return {"load_weights": False, "weights": None}


@functools.cache
def _dists() -> losses.DISTS:
    return losses.DISTS(**_dists_arguments())


def _dists_images() -> dict[str, Tensor]:
    return {"x": images(size=16), "y": images(size=16)}


for _name in ("DISTS", "DISTSLoss"):
    constructor(f"losses.{_name}", _dists_arguments, lambda loss: loss(**_dists_images()), MISSING)
method("losses.DISTS.forward", _dists_images, _dists)
method("losses.DISTSLoss.forward", _dists_images, lambda: losses.DISTSLoss(**_dists_arguments()))
method("losses.DISTS.precompute", lambda: {"image": images(size=16)}, _dists)
entry(
    "losses.dists_head",
    lambda: {
        "features_x": [images(5, 4)],
        "features_y": [images(5, 4)],
        "alpha": torch.rand(5),
        "beta": torch.rand(5),
    },
)
constructor("losses.FocalFrequencyLoss", lambda: {"alpha": 0.5}, lambda loss: loss(images(), images()))
method(
    "losses.FocalFrequencyLoss.forward",
    lambda: {"pred": images(), "target": images()},
    losses.FocalFrequencyLoss,
)
entry("losses.focal_frequency_loss", lambda: {"pred": images(), "target": images()})
entry(
    "losses.feature_matching_loss",
    lambda: {
        "fake_features": [[images(5, 4), logits()]] * 2,
        "real_features": [[images(5, 4), logits()]] * 2,
        "layer_weights": [2.0],
    },
)


def _to_perceive() -> dict[str, Tensor]:
    return {"x": images(), "target": images()}


constructor(
    "losses.PerceptualLoss",
    lambda: {"layers": (0, 3), "backbone": None},
    lambda loss: loss(**_to_perceive()),
    MISSING,
)
method("losses.PerceptualLoss.forward", _to_perceive, lambda: _made("PerceptualLoss"))
method("losses.PerceptualLoss.parts", _to_perceive, lambda: _made("PerceptualLoss"))
method("losses.PerceptualLoss.precompute", lambda: {"image": images()}, lambda: _made("PerceptualLoss"))
entry(
    "losses.PerceptualLoss.feature_maps",
    lambda: {"image": images()},
    lambda image: list(_made("PerceptualLoss").feature_maps(image=image)),
)
entry("losses.gram_matrix", lambda: {"features": images(5, 8), "patch_size": 4})
entry("losses.layer_index", lambda: {"layer": "relu1_2", "network": "vgg16"})
