"""VQGAN's loss against its published formula, step by step, over a short training."""

from __future__ import annotations

import pytest
import torch

from fastgan.compat import taming
from fastgan.losses import LPIPS
from tests.compat.tokenizers import Distance, adaptive_weight, d_loss, judged, lpips_by_hand, train_both


@pytest.fixture
def distance(monkeypatch):
    """A small network in place of VGG."""
    monkeypatch.setattr(taming, "LPIPS", Distance)


def ours(loss, autoencoder, images, index, step, **options):
    fake = autoencoder(images)
    cond = images[:, :1] if loss.disc_conditional else None
    return loss(
        autoencoder.codebook_loss, images, fake, index, step, autoencoder.conv_out.weight, cond, **options
    )


def theirs(loss, autoencoder, images, index, step, split="train"):
    fake = autoencoder(images)
    cond = images[:, :1] if loss.disc_conditional else None
    factor = loss.disc_factor if step >= loss.discriminator_iter_start else 0.0
    kind = loss.disc_loss.__name__.removesuffix("_d_loss")
    if index == 1:
        real, fake = judged(loss, images, cond), judged(loss, fake.detach(), cond)
        value = factor * d_loss(kind, real, fake)
        log = {"disc_loss": value, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return value, {f"{split}/{name}": entry.detach() for name, entry in log.items()}
    rec_loss = (images - fake).abs()
    p_loss = torch.zeros(1)
    if loss.perceptual_weight > 0:
        network = loss.perceptual_loss
        p_loss = lpips_by_hand(network, images, fake) if isinstance(network, LPIPS) else network(images, fake)
        rec_loss = rec_loss + loss.perceptual_weight * p_loss
    nll_loss = rec_loss.mean()
    g_loss = -judged(loss, fake, cond).mean()
    weight = loss.discriminator_weight * adaptive_weight(nll_loss, g_loss, autoencoder.conv_out.weight)
    codebook_loss = autoencoder.codebook_loss.mean()
    value = nll_loss + weight * factor * g_loss + loss.codebook_weight * codebook_loss
    log = {
        "total_loss": value, "quant_loss": codebook_loss, "nll_loss": nll_loss, "rec_loss": rec_loss.mean(),
        "p_loss": p_loss.mean(), "d_weight": weight, "disc_factor": torch.tensor(factor), "g_loss": g_loss,
    }  # fmt: skip
    return value, {f"{split}/{name}": entry.detach() for name, entry in log.items()}


CASES = {
    "hinge": {"disc_num_layers": 2},
    "vanilla, weights": {
        "disc_loss": "vanilla", "disc_weight": 0.8, "disc_factor": 0.7, "codebook_weight": 0.3,
        "perceptual_weight": 2.5, "disc_ndf": 8,
    },
    "conditional, activation normalization": {
        "disc_conditional": True, "disc_in_channels": 4, "use_actnorm": True, "disc_num_layers": 1,
    },
    "no perceptual loss": {"perceptual_weight": 0.0, "disc_loss": "vanilla", "disc_num_layers": 1},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_the_published_one(distance, case):
    loss = taming.VQLPIPSWithDiscriminator(10, **{"disc_num_layers": 2, "disc_ndf": 16} | CASES[case])
    weights = [log["train/d_weight"] for log in train_both(loss, ours, theirs)]
    assert len(weights) == 20 and min(weights) > 0


def test_a_training_with_lpips_is_the_published_one():
    loss = taming.VQLPIPSWithDiscriminator(2, disc_num_layers=2, disc_ndf=8, weights=None)
    logs = list(train_both(loss, ours, theirs, steps=4, split="val"))
    assert logs[-1]["val/p_loss"] > 0
