"""Entries of fastgan.compat."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.compat import (
    basicsr,
    dists_pytorch,
    ldm,
    pix2pix,
    pytorch_msssim,
    rosinality,
    stegastamp,
    studiogan,
    taming,
    trainner,
    videoseal,
)
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import Critic, images, judged, logits, mapped, network

# An unknown kind, as in the libraries that these stand in for.
UNKNOWN = (NotImplementedError,)
# And weights that are not on this machine.
MISSING = (FileNotFoundError, NotImplementedError)


def _samples() -> dict[str, Tensor]:
    return {"real_data": images(), "fake_data": images()}


# --- BasicSR -----------------------------------------------------------------------------------------------

constructor("compat.basicsr.DiffJPEG", dict, lambda codec: codec(images(), 50.0))
method("compat.basicsr.DiffJPEG.forward", lambda: {"x": images(), "quality": 50.0}, basicsr.DiffJPEG)
constructor(
    "compat.basicsr.GANLoss", lambda: {"gan_type": "lsgan"}, lambda loss: loss(logits(), True), UNKNOWN
)
method(
    "compat.basicsr.GANLoss.forward",
    lambda: {"input": logits(), "target_is_real": True},
    lambda: basicsr.GANLoss("hinge"),
)
constructor(
    "compat.basicsr.MultiScaleGANLoss",
    lambda: {"gan_type": "lsgan"},
    lambda loss: loss([logits(), logits(3)], True),
    UNKNOWN,
)
method(
    "compat.basicsr.MultiScaleGANLoss.forward",
    lambda: {"input": [logits(), logits(3)], "target_is_real": True},
    lambda: basicsr.MultiScaleGANLoss("hinge"),
)
method(
    "compat.basicsr.GANLoss.get_target_label",
    lambda: {"input": logits(), "target_is_real": True},
    lambda: basicsr.GANLoss("lsgan"),
)


def _features() -> dict[str, Any]:
    return {"layer_weights": {"conv1_1": 1.0}, "vgg_type": "vgg16", "backbone": None}


@functools.cache
def _perceptual() -> basicsr.PerceptualLoss:
    return basicsr.PerceptualLoss(**_features())


constructor("compat.basicsr.PerceptualLoss", _features, lambda loss: loss(images(), images()), MISSING)
method("compat.basicsr.PerceptualLoss.forward", lambda: {"x": images(), "gt": images()}, _perceptual)
entry("compat.basicsr.g_path_regularize", lambda: {**mapped("fake_img", "latents"), "mean_path_length": 0.5})
entry("compat.basicsr.r1_penalty", lambda: judged("real_pred", "real_img"))
entry("compat.basicsr.gradient_penalty_loss", lambda: {"discriminator": Critic(), **_samples()})

for _name in ("L1Loss", "MSELoss", "CharbonnierLoss"):
    constructor(
        f"compat.basicsr.{_name}", lambda: {"loss_weight": 0.5}, lambda loss: loss(images(), images())
    )
    method(
        f"compat.basicsr.{_name}.forward",
        lambda: {"pred": images(), "target": images(), "weight": images(1)},
        getattr(basicsr, _name),
    )
constructor("compat.basicsr.WeightedTVLoss", lambda: {"loss_weight": 0.5}, lambda loss: loss(images()))
method(
    "compat.basicsr.WeightedTVLoss.forward",
    lambda: {"pred": images(), "weight": images(1)},
    basicsr.WeightedTVLoss,
)

# --- StyleGAN2's ops, of BasicSR and rosinality ------------------------------------------------------------

for _module in (basicsr, rosinality):
    _name = f"compat.{_module.__name__.rpartition('.')[2]}"
    entry(
        f"{_name}.upfirdn2d", lambda: {"input": images(), "kernel": torch.rand(2, 3), "up": 2, "pad": (2, 1)}
    )
    entry(
        f"{_name}.fused_leaky_relu",
        lambda: {"input": images(), "bias": torch.rand(3), "negative_slope": 0.1, "scale": 1.5},
    )
    constructor(
        f"{_name}.FusedLeakyReLU",
        lambda: {"channel": 3, "negative_slope": 0.1, "scale": 1.5},
        lambda relu: relu(images()),
    )
    method(
        f"{_name}.FusedLeakyReLU.forward",
        lambda: {"input": images()},
        functools.partial(_module.FusedLeakyReLU, 3),
    )

# --- traiNNer ----------------------------------------------------------------------------------------------

constructor("compat.trainner.CharbonnierLoss", dict, lambda loss: loss(images(), images()))
method(
    "compat.trainner.CharbonnierLoss.forward",
    lambda: {"x": images(), "y": images()},
    trainner.CharbonnierLoss,
)
constructor("compat.trainner.TVLoss", lambda: {"p": "l1", "beta": 1.5}, lambda loss: loss(images()), UNKNOWN)
method("compat.trainner.TVLoss.forward", lambda: {"x": images()}, trainner.TVLoss)

# --- pix2pix -----------------------------------------------------------------------------------------------

constructor(
    "compat.pix2pix.GANLoss", lambda: {"gan_mode": "lsgan"}, lambda loss: loss(logits(), True), UNKNOWN
)
method(
    "compat.pix2pix.GANLoss.forward",
    lambda: {"prediction": logits(), "target_is_real": True},
    lambda: pix2pix.GANLoss("lsgan"),
)
method(
    "compat.pix2pix.GANLoss.get_target_tensor",
    lambda: {"prediction": logits(), "target_is_real": True},
    lambda: pix2pix.GANLoss("lsgan"),
)
entry(
    "compat.pix2pix.cal_gradient_penalty",
    lambda: {"netD": Critic(), **_samples(), "device": "cpu"},
    raises=UNKNOWN,
)

# --- pytorch-msssim ----------------------------------------------------------------------------------------


def _compared(**options: Any) -> dict[str, Any]:
    return {"X": images(), "Y": images(), "data_range": 1.0, **options}


# Two scales, for which images of 16 x 16 are large enough.
_TWO_SCALES = {"weights": (0.3, 0.7), "win_size": 7}
entry("compat.pytorch_msssim.ssim", _compared, raises=(RuntimeError,))
entry("compat.pytorch_msssim.ms_ssim", lambda: _compared(**_TWO_SCALES), raises=(RuntimeError,))
for _name, _options in (("SSIM", {}), ("MS_SSIM", _TWO_SCALES)):
    _make = functools.partial(getattr(pytorch_msssim, _name), data_range=1.0, **_options)
    constructor(
        f"compat.pytorch_msssim.{_name}",
        lambda options=_options: {"data_range": 1.0, **options},
        lambda loss: loss(images(), images()),
        (RuntimeError,),
    )
    method(f"compat.pytorch_msssim.{_name}.forward", lambda: {"X": images(), "Y": images()}, _make)


def _predictions() -> list[list[Tensor]]:
    return [[images(5, 4), logits()] for _ in range(2)]


entry(
    "compat.pix2pix.feature_matching_loss",
    lambda: {"pred_fake": _predictions(), "pred_real": _predictions()},
)

# --- dists-pytorch -----------------------------------------------------------------------------------------


@functools.cache
def _dists() -> dists_pytorch.DISTS:
    return dists_pytorch.DISTS(load_weights=False, weights=None)


constructor(
    "compat.dists_pytorch.DISTS",
    lambda: {"load_weights": False, "weights": None},
    lambda loss: loss(images(size=16), images(size=16)),
    MISSING,
)
method("compat.dists_pytorch.DISTS.forward", lambda: {"x": images(size=16), "y": images(size=16)}, _dists)

# --- RAE ---------------------------------------------------------------------------------------------------


def _reconstruction(size: int = 32) -> tuple[Tensor, nn.Parameter]:
    """What a decoder's last layer makes, and its weight."""
    layer = nn.Conv2d(3, 3, 1)
    return layer(images(size=size)), layer.weight  # type: ignore[return-value]


def _stage_one() -> dict[str, Any]:
    recon, layer = _reconstruction()
    return {"recon": recon, "recon_loss": recon.abs().mean(), "gan_loss": -recon.mean(), "layer": layer}


def _two_losses() -> dict[str, Any]:
    return {name: value for name, value in _stage_one().items() if name != "recon"}


entry("compat.rae.generator_loss", _stage_one)
entry("compat.rae.calculate_adaptive_weight", _two_losses)
for _name in ("hinge_d_loss", "vanilla_d_loss"):
    entry(f"compat.rae.{_name}", lambda: {"logits_real": logits(), "logits_fake": logits()})
entry("compat.rae.vanilla_g_loss", lambda: {"logits_fake": logits()})
entry("compat.rae.select_gan_losses", lambda: {"disc_kind": "hinge", "gen_kind": "vanilla"})

# --- taming-transformers, latent-diffusion, generative-models -----------------------------------------------


class _Posterior:
    def kl(self) -> Tensor:
        return torch.ones(2)


@functools.cache
def _distance() -> nn.Module:
    """In place of LPIPS, whose VGG takes long to make."""
    return nn.MSELoss()


def _used(loss: Any, call: dict[str, Any]) -> None:
    if not getattr(loss, "disc_conditional", False):  # whose call and channels are others
        _small(loss)(**call)


def _small(loss: Any) -> Any:
    loss.perceptual_loss = _distance()
    return loss


def _vqgan_call() -> dict[str, Any]:
    reconstructions, last_layer = _reconstruction()
    return {
        "codebook_loss": torch.ones(()), "inputs": images(size=32), "reconstructions": reconstructions,
        "optimizer_idx": 0, "global_step": 0, "last_layer": last_layer,
    }  # fmt: skip


def _kl_call() -> dict[str, Any]:
    call = {name: value for name, value in _vqgan_call().items() if name != "codebook_loss"}
    return call | {"posteriors": _Posterior()}


def _general_call() -> dict[str, Any]:
    call = {name: value for name, value in _kl_call().items() if name != "posteriors"}
    return call | {"regularization_log": {"kl_loss": torch.ones(())}}


_NARROW = {"disc_start": 0, "disc_num_layers": 1, "weights": None}

constructor(
    "compat.taming.VQLPIPSWithDiscriminator",
    lambda: _NARROW | {"disc_ndf": 4},
    lambda loss: _used(loss, _vqgan_call()),
    MISSING,
)
method(
    "compat.taming.VQLPIPSWithDiscriminator.forward",
    _vqgan_call,
    lambda: _small(taming.VQLPIPSWithDiscriminator(**_NARROW)),
)
constructor(
    "compat.ldm.LPIPSWithDiscriminator",
    lambda: dict(_NARROW),
    lambda loss: _used(loss, _kl_call()),
    MISSING,
)
method(
    "compat.ldm.LPIPSWithDiscriminator.forward",
    _kl_call,
    lambda: _small(ldm.LPIPSWithDiscriminator(**_NARROW)),
)
constructor(
    "compat.ldm.GeneralLPIPSWithDiscriminator",
    lambda: _NARROW | {"regularization_weights": {"kl_loss": 1.0}},
    lambda loss: _used(loss, _general_call()),
    MISSING,
)
method(
    "compat.ldm.GeneralLPIPSWithDiscriminator.forward",
    _general_call,
    lambda: _small(ldm.GeneralLPIPSWithDiscriminator(**_NARROW)),
    UNKNOWN,
)
entry("compat.taming.adopt_weight", lambda: {"weight": 1.0, "global_step": 3})
for _name in ("hinge_d_loss", "vanilla_d_loss"):
    entry(f"compat.taming.{_name}", lambda: {"logits_real": logits(), "logits_fake": logits()})
for _module in ("taming", "videoseal"):
    constructor(
        f"compat.{_module}.NLayerDiscriminator",
        lambda: {"ndf": 4, "n_layers": 1},
        lambda network: network(images(size=32)),
    )
method(
    "compat.taming.NLayerDiscriminator.forward",
    lambda: {"input": images(size=32)},
    lambda: taming.NLayerDiscriminator(n_layers=1),
)
method(
    "compat.videoseal.NLayerDiscriminator.forward",
    lambda: {"input": images(size=32)},
    lambda: videoseal.NLayerDiscriminator(1, n_layers=1),
)

# --- Videoseal ---------------------------------------------------------------------------------------------


def _videoseal_call() -> dict[str, Any]:
    reconstructions, last_layer = _reconstruction()
    return {
        "inputs": images(size=32), "reconstructions": reconstructions, "masks": torch.ones(2, 1, 32, 32),
        "msgs": torch.tensor([[0, 1], [1, 1]]), "preds": reconstructions, "optimizer_idx": 0,
        "global_step": 0, "last_layer": last_layer,
    }  # fmt: skip


_WATERMARK = {"disc_num_layers": 1, "percep_loss": "mse", "decode_weight": 1.0}
constructor(
    "compat.videoseal.VideosealLoss",
    lambda: _WATERMARK | {"weights": None},
    lambda loss: loss(**_videoseal_call()),
    MISSING,
)
method(
    "compat.videoseal.VideosealLoss.forward",
    _videoseal_call,
    lambda: videoseal.VideosealLoss(**_WATERMARK),
)

# --- R3GAN, StarGAN v2, StudioGAN ------------------------------------------------------------------------

entry("compat.r3gan.ZeroCenteredGradientPenalty", lambda: judged("Critics", "Samples"))
entry("compat.starganv2.adv_loss", lambda: {"logits": logits(), "target": 1})
entry("compat.starganv2.r1_reg", lambda: judged("d_out", "x_in"))
for _game in ("vanilla", "logistic", "ls", "hinge", "wasserstein"):
    entry(
        f"compat.studiogan.d_{_game}",
        lambda: {"d_logit_real": logits(), "d_logit_fake": logits(), "DDP": False},
    )
    entry(f"compat.studiogan.g_{_game}", lambda: {"d_logit_fake": logits(), "DDP": False})
constructor(
    "compat.studiogan.PathLengthRegularizer",
    lambda: {"device": "cpu"},
    lambda regularizer: regularizer.cal_pl_reg(**mapped("fake_images", "ws")),
)
method(
    "compat.studiogan.PathLengthRegularizer.cal_pl_reg",
    lambda: mapped("fake_images", "ws"),
    lambda: studiogan.PathLengthRegularizer("cpu"),
)
entry("compat.studiogan.cal_r1_reg", lambda: {**judged("adv_output", "images"), "device": "cpu"})
entry("compat.studiogan.stylegan_cal_r1_reg", lambda: judged("adv_output", "images"))
entry(
    "compat.studiogan.crammer_singer_loss",
    lambda: {"adv_output": logits(4, 3), "label": torch.tensor([0, 2, 1, 1]), "DDP": False},
)
entry(
    "compat.studiogan.feature_matching_loss",
    lambda: {"real_embed": logits(4, 3), "fake_embed": logits(4, 3)},
)


def _studiogan_critic(images: Tensor, labels: Tensor, eval: bool) -> dict[str, Tensor]:
    return {"adv_output": Critic()(images)}


entry(
    "compat.studiogan.cal_grad_penalty",
    lambda: {
        "real_images": images(),
        "real_labels": torch.tensor([0, 1]),
        "fake_images": images(),
        "discriminator": _studiogan_critic,
        "device": "cpu",
    },
)
entry(
    "compat.studiogan.cal_maxgrad_penalty",
    lambda: {
        "real_images": images(),
        "real_labels": torch.tensor([0, 1]),
        "fake_images": images(),
        "discriminator": _studiogan_critic,
        "device": "cpu",
    },
)
entry(
    "compat.studiogan.cal_dra_penalty",
    lambda: {
        "real_images": images(),
        "real_labels": torch.tensor([0, 1]),
        "discriminator": _studiogan_critic,
        "device": "cpu",
    },
)

# --- StyleGAN3 ---------------------------------------------------------------------------------------------

entry("compat.stylegan3.setup_filter", lambda: {"f": [1.0, 3.0, 3.0, 1.0]})
for _name in ("upfirdn2d", "filter2d", "upsample2d", "downsample2d"):
    entry(f"compat.stylegan3.{_name}", lambda: {"x": images(), "f": torch.rand(4)})
entry(
    "compat.stylegan3.filtered_lrelu",
    lambda: {"x": images(), "fu": torch.rand(4), "fd": torch.rand(2, 3), "b": torch.rand(3), "clamp": 2.0},
)

# --- zi2zi -------------------------------------------------------------------------------------------------

constructor(
    "compat.zi2zi.CategoryLoss",
    lambda: {"category_num": 3},
    lambda loss: loss(logits(4, 3), torch.tensor([0, 2, 1, 1])),
)


# --- rosinality, PyTorch-GAN, StegaStamp's port -----------------------------------------------


def _two_networks(average: str, model: str) -> dict[str, Any]:
    return {average: network(), model: network()}


entry("compat.rosinality.d_logistic_loss", lambda: {"real_pred": logits(), "fake_pred": logits()})
entry("compat.rosinality.g_nonsaturating_loss", lambda: {"fake_pred": logits()})
entry(
    "compat.rosinality.g_path_regularize", lambda: {**mapped("fake_img", "latents"), "mean_path_length": 0.5}
)
entry("compat.rosinality.d_r1_loss", lambda: judged("real_pred", "real_img"))
entry("compat.rosinality.accumulate", lambda: _two_networks("model1", "model2"))
entry("compat.starganv2.moving_average", lambda: _two_networks("model", "model_test"))
entry(
    "compat.pytorch_gan.compute_gradient_penalty",
    lambda: {"D": Critic(), "real_samples": images(), "fake_samples": images()},
)
constructor(
    "compat.stegastamp.LPIPSLoss",
    lambda: {"net": "squeeze", "weights": None, "pretrained": False},
    lambda loss: loss(images(size=32), images(size=32)),
    MISSING,
)
method(
    "compat.stegastamp.LPIPSLoss.forward",
    lambda: {"in0": images(size=32), "in1": images(size=32)},
    functools.cache(lambda: stegastamp.LPIPSLoss("squeeze", weights=None, pretrained=False)),
)
constructor("compat.stegastamp.RandomJPEG", lambda: {"min_quality": 50}, lambda codec: codec(images(), 0.5))
method("compat.stegastamp.RandomJPEG.forward", lambda: {"x": images(), "scale": 0.5}, stegastamp.RandomJPEG)
entry(
    "compat.stegastamp.bce_secret_loss",
    lambda: {"logits": logits(2, 8), "target_bits": torch.ones(2, 8)},
)


# --- stylegan3 --------------------------------------------------------------------------------

entry(
    "compat.stylegan3.bias_act",
    lambda: {"x": images(), "b": torch.rand(3), "act": "lrelu", "alpha": 0.1, "gain": 1.5, "clamp": 2.0},
    raises=(RuntimeError,),
)
