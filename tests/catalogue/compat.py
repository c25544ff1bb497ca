"""Entries of fastgan.compat."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import basicsr, pix2pix
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import Critic, images, judged, logits

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


def _features() -> dict[str, Any]:
    return {"layer_weights": {"conv1_1": 1.0}, "vgg_type": "vgg16", "backbone": None}


@functools.cache
def _perceptual() -> basicsr.PerceptualLoss:
    return basicsr.PerceptualLoss(**_features())


constructor("compat.basicsr.PerceptualLoss", _features, lambda loss: loss(images(), images()), MISSING)
method("compat.basicsr.PerceptualLoss.forward", lambda: {"x": images(), "gt": images()}, _perceptual)
entry("compat.basicsr.r1_penalty", lambda: judged("real_pred", "real_img"))
entry("compat.basicsr.gradient_penalty_loss", lambda: {"discriminator": Critic(), **_samples()})

# --- pix2pix -----------------------------------------------------------------------------------------------

constructor(
    "compat.pix2pix.GANLoss", lambda: {"gan_mode": "lsgan"}, lambda loss: loss(logits(), True), UNKNOWN
)
method(
    "compat.pix2pix.GANLoss.forward",
    lambda: {"prediction": logits(), "target_is_real": True},
    lambda: pix2pix.GANLoss("lsgan"),
)
entry(
    "compat.pix2pix.cal_gradient_penalty",
    lambda: {"netD": Critic(), **_samples(), "device": "cpu"},
    raises=UNKNOWN,
)

# --- R3GAN, StarGAN v2, StudioGAN ------------------------------------------------------------------------

entry("compat.r3gan.ZeroCenteredGradientPenalty", lambda: judged("Critics", "Samples"))
entry("compat.starganv2.adv_loss", lambda: {"logits": logits(), "target": 1})
entry("compat.starganv2.r1_reg", lambda: judged("d_out", "x_in"))
for _game in ("vanilla", "ls", "hinge", "wasserstein"):
    entry(
        f"compat.studiogan.d_{_game}",
        lambda: {"d_logit_real": logits(), "d_logit_fake": logits(), "DDP": False},
    )
    entry(f"compat.studiogan.g_{_game}", lambda: {"d_logit_fake": logits(), "DDP": False})
entry("compat.studiogan.cal_r1_reg", lambda: {**judged("adv_output", "images"), "device": "cpu"})


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
    "compat.studiogan.cal_dra_penalty",
    lambda: {
        "real_images": images(),
        "real_labels": torch.tensor([0, 1]),
        "discriminator": _studiogan_critic,
        "device": "cpu",
    },
)

# --- zi2zi -------------------------------------------------------------------------------------------------

constructor(
    "compat.zi2zi.CategoryLoss",
    lambda: {"category_num": 3},
    lambda loss: loss(logits(4, 3), torch.tensor([0, 2, 1, 1])),
)
