"""RAE's losses against their published formulas, and a short training of its stage one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import rae
from tests.compat.tokenizers import Autoencoder, Distance, adaptive_weight, train_both


class Stage(nn.Module):
    """The networks beside the autoencoder."""

    def __init__(self, disc_loss="hinge"):
        super().__init__()
        self.perceptual_loss = Distance()
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, bias=False), nn.BatchNorm2d(8), nn.Softplus(), nn.Conv2d(8, 1, 3)
        )
        self.disc_loss = disc_loss


def losses_of(stage, autoencoder, images):
    """(recon, recon_total, gan_loss), from the lines of the trainer; what is normalized is shared by both."""
    recon = autoencoder(images)
    normed = (recon * 2.0 - 1.0).tanh()
    recon_total = (recon - images).abs().mean() + 0.5 * stage.perceptual_loss(images, normed).mean()
    stage.discriminator.eval()
    return recon, recon_total, rae.vanilla_g_loss(stage.discriminator(normed))


def of_discriminator(stage, autoencoder, images, d_loss):
    stage.discriminator.train()
    fake = autoencoder(images).detach()
    loss = d_loss(stage.discriminator(images), stage.discriminator(fake))
    return loss, {"disc_loss": loss.detach()}


def ours(stage, autoencoder, images, index, step):
    d_loss, _ = rae.select_gan_losses(stage.disc_loss, "vanilla")
    if index:
        return of_discriminator(stage, autoencoder, images, d_loss)
    recon, recon_total, gan_loss = losses_of(stage, autoencoder, images)
    layer = autoencoder.conv_out.weight
    loss, weight, shares = rae.generator_loss(recon, recon_total, gan_loss, layer, 0.75, 3.0)
    assert all(p.grad is None for p in stage.discriminator.parameters())
    assert 0 < shares.share["gan"] < 1
    return loss, {"weight": weight}


def theirs(stage, autoencoder, images, index, step):
    softly = {"hinge": lambda x: F.relu(1 + x), "vanilla": F.softplus}[stage.disc_loss]
    if index:
        d_loss = lambda real, fake: 0.5 * (softly(-real).mean() + softly(fake).mean())  # noqa: E731
        return of_discriminator(stage, autoencoder, images, d_loss)
    _, recon_total, gan_loss = losses_of(stage, autoencoder, images)
    weight = adaptive_weight(recon_total, gan_loss, autoencoder.conv_out.weight, 1e-6, 3.0)
    return recon_total + 0.75 * weight * gan_loss, {"weight": weight}


@pytest.mark.parametrize("kind", ["hinge", "vanilla"])
def test_a_training_is_the_published_one(kind):
    weights = [log["weight"] for log in train_both(Stage(kind), ours, theirs)]
    assert len(weights) == 20 and min(weights) > 0 and min(weights) < 3


def test_the_adaptive_weight_has_the_published_formula():
    stage, autoencoder, images = Stage(), Autoencoder(), torch.rand(2, 3, 16, 16)
    _, recon_total, gan_loss = losses_of(stage, autoencoder, images)
    layer = autoencoder.conv_out.weight
    for most in (1e4, 1e-3):
        expected = adaptive_weight(recon_total, gan_loss, layer, 1e-6, most)
        assert_close(rae.calculate_adaptive_weight(recon_total, gan_loss, layer, most), expected)
    (recon_total + gan_loss).backward()  # the graphs are kept


def test_losses_of_logits_and_their_sums():
    real, fake = 3 * torch.randn(2, 5, 1, 4, 4)
    for reduce, kind in ((torch.mean, "mean"), (torch.sum, "sum")):
        hinge = 0.5 * (reduce(F.relu(1 - real)) + reduce(F.relu(1 + fake)))
        assert_close(rae.hinge_d_loss(real, fake, kind), hinge)
        vanilla = 0.5 * (reduce(F.softplus(-real)) + reduce(F.softplus(fake)))
        assert_close(rae.vanilla_d_loss(real, fake, kind), vanilla)
        assert_close(rae.vanilla_g_loss(fake, kind), -reduce(fake))


def test_a_loss_of_another_tensor_is_refused():
    stage, autoencoder, images = Stage(), Autoencoder(), torch.rand(2, 3, 16, 16)
    recon, recon_total, gan_loss = losses_of(stage, autoencoder, images)
    layer = autoencoder.conv_out.weight
    with pytest.raises(ValueError, match="gan_loss must be computed from recon alone"):
        rae.generator_loss(recon, recon_total, gan_loss + autoencoder.mean.mean(), layer)
    with pytest.raises(ValueError, match="recon_loss must be computed from recon alone"):
        rae.generator_loss(recon * 1.0, recon_total, gan_loss, layer)
    with pytest.raises(ValueError, match="layer must be a weight behind recon"):
        rae.generator_loss(recon, recon_total, gan_loss, nn.Parameter(torch.ones(3)))
