"""Losses of KL autoencoders against their published formulas, step by step, over a short training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan.compat import _generative_models, ldm
from tests.compat.tokenizers import Distance, adaptive_weight, d_loss, judged, train_both


@pytest.fixture(autouse=True)
def distance(monkeypatch):
    """A small network in place of VGG."""
    for module in (ldm, _generative_models):
        monkeypatch.setattr(module, "LPIPS", Distance)


def small(loss, channels=3):
    """With a narrow discriminator: that of LDM has 64 channels."""
    loss.discriminator = ldm.NLayerDiscriminator(channels, ndf=8, n_layers=1)
    return loss


def kind_of(loss):
    return loss.disc_loss.__name__.removesuffix("_d_loss")


def likelihood(loss, images, fake, weights):
    """(nll, weighted nll, rec), the first two sums over each image."""
    rec = (images - fake).abs()
    if loss.perceptual_weight > 0:
        rec = rec + loss.perceptual_weight * loss.perceptual_loss(images, fake)
    nll = rec / loss.logvar.exp() + loss.logvar
    weighted = nll if weights is None else weights * nll
    return nll.sum() / len(nll), weighted.sum() / len(weighted), rec


# --- latent-diffusion --------------------------------------------------------------------------------------


def ours(loss, autoencoder, images, index, step, weights=None):
    fake = autoencoder(images)
    cond = images[:, :1] if loss.disc_conditional else None
    layer = autoencoder.conv_out.weight
    return loss(images, fake, autoencoder, index, step, layer, cond, "train", weights)


def theirs(loss, autoencoder, images, index, step, weights=None):
    fake = autoencoder(images)
    cond = images[:, :1] if loss.disc_conditional else None
    factor = loss.disc_factor if step >= loss.discriminator_iter_start else 0.0
    if index == 1:
        real, fake = judged(loss, images, cond), judged(loss, fake.detach(), cond)
        value = factor * d_loss(kind_of(loss), real, fake)
        log = {"disc_loss": value, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return value, {f"train/{name}": entry.detach() for name, entry in log.items()}
    nll, weighted, rec = likelihood(loss, images, fake, weights)
    kl = autoencoder.kl().sum() / len(images)
    g_loss = -judged(loss, fake, cond).mean()
    weight = torch.tensor(0.0)
    if loss.disc_factor > 0:
        weight = loss.discriminator_weight * adaptive_weight(nll, g_loss, autoencoder.conv_out.weight)
    value = weighted + loss.kl_weight * kl + weight * factor * g_loss
    log = {
        "total_loss": value, "logvar": loss.logvar, "kl_loss": kl, "nll_loss": nll, "rec_loss": rec.mean(),
        "d_weight": weight, "disc_factor": torch.tensor(factor), "g_loss": g_loss,
    }  # fmt: skip
    return value, {f"train/{name}": entry.detach() for name, entry in log.items()}


CASES = {
    "hinge": {},
    "vanilla, weights": {
        "disc_loss": "vanilla", "disc_weight": 0.5, "disc_factor": 0.7, "kl_weight": 1e-3,
        "logvar_init": -0.5, "perceptual_weight": 2.5,
    },
    "conditional": {"disc_conditional": True, "disc_in_channels": 4},
    "no discriminator, no perceptual loss": {"disc_factor": 0.0, "perceptual_weight": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_ldms(case):
    options = CASES[case]
    loss = small(ldm.LPIPSWithDiscriminator(10, **options), options.get("disc_in_channels", 3))
    assert len(list(train_both(loss, ours, theirs))) == 20


@pytest.mark.parametrize("weights", [0.25, "of pixels"])
def test_weights_of_pixels_leave_the_adaptive_weight_as_it_is(weights):
    if isinstance(weights, str):
        weights = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    loss = small(ldm.LPIPSWithDiscriminator(1))
    assert len(list(train_both(loss, ours, theirs, steps=3, weights=weights))) == 3


# --- generative-models -------------------------------------------------------------------------------------


def ours_in_general(loss, autoencoder, images, index, step, weights=None):
    fake = autoencoder(images)
    terms = {"kl_loss": autoencoder.kl().mean(), "codes": autoencoder.mean.mean()}
    if loss.dims == 3:
        images, fake = (x.unflatten(0, (1, 2)).transpose(1, 2) for x in (images, fake))
    if loss.scale_input_to_tgt_size:
        images = images[..., ::2, ::2]
    return loss(
        images, fake, regularization_log=terms, optimizer_idx=index, global_step=step, weights=weights,
        last_layer=autoencoder.conv_out.weight,
    )  # fmt: skip


def theirs_in_general(loss, autoencoder, images, index, step, weights=None):
    fake = autoencoder(images)
    if loss.scale_input_to_tgt_size:
        images = F.interpolate(images[..., ::2, ::2], 16, mode="bicubic", antialias=True)
    started = step >= loss.discriminator_iter_start
    if index == 1:
        real, fake = judged(loss, images, None), judged(loss, fake.detach(), None)
        value = loss.disc_factor * d_loss(kind_of(loss), real, fake)
        value = value if started else torch.zeros((), requires_grad=True)
        log = {"loss/disc": value, "logits/real": real.mean(), "logits/fake": fake.mean()}
        return value, {f"train/{name}": entry.detach() for name, entry in log.items()}
    nll, weighted, rec = likelihood(loss, images, fake, weights)
    g_loss = weight = torch.tensor(0.0)
    if started:
        g_loss = -judged(loss, fake, None).mean()
        weight = loss.discriminator_weight * adaptive_weight(nll, g_loss, autoencoder.conv_out.weight)
    kl = autoencoder.kl().mean()
    value = weighted + weight * loss.disc_factor * g_loss + loss.regularization_weights["kl_loss"] * kl
    log = {
        "kl_loss": kl, "codes": autoencoder.mean.mean(), "loss/total": value, "loss/nll": nll,
        "loss/rec": rec.mean(), "loss/g": g_loss, "scalars/logvar": loss.logvar, "scalars/d_weight": weight,
    }  # fmt: skip
    return value, {f"train/{name}": entry.detach() for name, entry in log.items()}


GENERAL_CASES = {
    "hinge": {},
    "vanilla, weights, learned variance": {
        "disc_loss": "vanilla", "disc_weight": 0.5, "disc_factor": 0.7, "logvar_init": -0.5,
        "perceptual_weight": 2.5, "learn_logvar": True,
    },
    "frames": {"dims": 3},
    "resized inputs": {"scale_input_to_tgt_size": True, "perceptual_weight": 0.0},
}  # fmt: skip


def general(start, **options):
    return ldm.GeneralLPIPSWithDiscriminator(
        start, regularization_weights={"kl_loss": 0.1}, additional_log_keys=["codes"], **options
    )


@pytest.mark.parametrize("case", GENERAL_CASES)
def test_a_training_is_that_of_generative_models(case):
    loss = small(general(10, **GENERAL_CASES[case]))
    learned = list(loss.get_trainable_autoencoder_parameters())
    assert [p is loss.logvar for p in learned] == [True] * loss.learn_logvar
    assert set(loss.get_trainable_parameters()) == set(loss.discriminator.parameters())
    logs = list(train_both(loss, ours_in_general, theirs_in_general))
    assert [log["train/scalars/d_weight"] > 0 for log in logs] == [False] * 10 + [True] * 10


def test_weights_of_pixels_are_those_of_generative_models():
    loss, weights = small(general(1)), torch.rand(16, dtype=torch.float64)
    assert len(list(train_both(loss, ours_in_general, theirs_in_general, steps=3, weights=weights))) == 3


class OtherDiscriminator(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 4), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 1))


def test_a_configured_discriminator_is_initialized_as_published():
    config = {"target": f"{__name__}.OtherDiscriminator", "params": {"width": 600}}
    loss = ldm.GeneralLPIPSWithDiscriminator(0, discriminator_config=config)
    first, norm, _ = loss.discriminator
    assert 0.018 < first.weight.std() < 0.022 and 0.018 < norm.weight.std() < 0.022
    own = {"target": _generative_models.OWN_DISCRIMINATOR, "params": {"n_layers": 1, "ndf": 8}}
    loss = ldm.GeneralLPIPSWithDiscriminator(0, discriminator_config=own)
    assert loss.discriminator.main[0].out_channels == 8
    for wrong in ({}, {"target": "Discriminator"}, {"target": own["target"], "params": 3}):
        with pytest.raises(ValueError, match="discriminator_config must be"):
            ldm.GeneralLPIPSWithDiscriminator(0, discriminator_config=wrong)
