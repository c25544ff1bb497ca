"""Each shim against the formula of the code that it replaces, in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import basicsr, pix2pix, r3gan, starganv2, studiogan, zi2zi


def logits():
    return 3 * torch.randn(5, 1, 4, 4)


def critic():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Conv2d(4, 1, 3, 2, 1))


def images(count=2):
    return torch.rand(count, 4, 3, 9, 8)


def points(real, fake, seed):
    part = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return (part * real + (1 - part) * fake).requires_grad_()


def gradient_at(network, x):
    return torch.autograd.grad(network(x).sum(), x, create_graph=True)[0]


BCE = F.binary_cross_entropy_with_logits


@pytest.mark.parametrize("is_disc", [True, False])
@pytest.mark.parametrize("real", [True, False])
def test_basicsr_ganloss(real, is_disc):
    x, label = logits(), 0.9 if real else 0.1
    sign = -1 if real else 1
    expected = {
        "vanilla": BCE(x, torch.full_like(x, label)),
        "lsgan": F.mse_loss(x, torch.full_like(x, label)),
        "wgan": sign * x.mean(),
        "wgan_softplus": F.softplus(sign * x).mean(),
        "hinge": F.relu(1 + sign * x).mean() if is_disc else -x.mean(),
    }
    for kind, value in expected.items():
        loss = basicsr.GANLoss(kind, 0.9, 0.1, loss_weight=0.25)(x, real, is_disc=is_disc)
        assert_close(loss, value if is_disc else 0.25 * value)
    with pytest.raises(NotImplementedError, match="GAN type nothing is not implemented"):
        basicsr.GANLoss("nothing")


def test_penalties_from_logits():
    network = critic()
    x = images(1)[0].requires_grad_()
    squared = gradient_at(network, x).square().sum(dim=(1, 2, 3))
    assert_close(basicsr.r1_penalty(network(x), x), squared.mean())
    assert_close(starganv2.r1_reg(network(x), x), 0.5 * squared.mean())
    assert_close(studiogan.cal_r1_reg(network(x), x, "cpu"), 0.5 * squared.mean())
    assert_close(r3gan.ZeroCenteredGradientPenalty(x, network(x)), squared)


@pytest.mark.parametrize("weighted", [False, True])
def test_basicsr_gradient_penalty_takes_the_norm_over_channels(weighted):
    network, (real, fake) = critic(), images()
    weight = torch.rand(4, 1, 9, 8) if weighted else None
    torch.manual_seed(3)
    penalty = basicsr.gradient_penalty_loss(network, real, fake, weight)
    gradient = gradient_at(network, points(real, fake, 3))
    if weighted:
        gradient = gradient * weight
    expected = ((gradient.norm(2, dim=1) - 1) ** 2).mean()
    assert_close(penalty, expected / weight.mean() if weighted else expected)
    penalty.backward()
    assert network[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("real", [True, False])
def test_pix2pix_ganloss(real):
    x, label = logits(), 0.9 if real else 0.1
    target = torch.full_like(x, label)
    expected = {
        "lsgan": F.mse_loss(x, target),
        "vanilla": BCE(x, target),
        "wgangp": -x.mean() if real else x.mean(),
    }
    for kind, value in expected.items():
        assert_close(pix2pix.GANLoss(kind, 0.9, 0.1)(x, real), value)
    with pytest.raises(NotImplementedError, match="gan mode nothing not implemented"):
        pix2pix.GANLoss("nothing")


@pytest.mark.parametrize("kind", ["mixed", "real", "fake"])
def test_pix2pix_gradient_penalty(kind):
    network, (real, fake) = critic(), images()
    torch.manual_seed(4)
    penalty, gradients = pix2pix.cal_gradient_penalty(network, real, fake, "cpu", kind, 0.5, 7.0)
    x = {
        "mixed": points(real, fake, 4),
        "real": real.clone().requires_grad_(),
        "fake": fake.clone().requires_grad_(),
    }
    expected = gradient_at(network, x[kind]).flatten(1)
    assert_close(gradients, expected)
    assert_close(penalty, ((expected.norm(2, dim=1) - 0.5) ** 2).mean() * 7.0)
    assert pix2pix.cal_gradient_penalty(network, real, fake, "cpu", lambda_gp=0.0) == (0.0, None)
    with pytest.raises(NotImplementedError, match="nothing not implemented"):
        pix2pix.cal_gradient_penalty(network, real, fake, "cpu", "nothing")


def test_starganv2_adv_loss():
    x = torch.randn(6)
    for target in (0, 1):
        assert_close(starganv2.adv_loss(x, target), BCE(x, torch.full_like(x, target)))
    with pytest.raises(ValueError, match=r"target must be 1 \(real\) or 0 \(fake\), got 2"):
        starganv2.adv_loss(x, 2)


def test_studiogan_losses():
    r, f = logits(), logits()
    expected = {
        "d_vanilla": F.softplus(-r).mean() + F.softplus(f).mean(),
        "d_hinge": F.relu(1 - r).mean() + F.relu(1 + f).mean(),
        "d_ls": (0.5 * (r - 1) ** 2 + 0.5 * f**2).mean(),
        "d_wasserstein": (f - r).mean(),
    }
    for name, value in expected.items():
        assert_close(getattr(studiogan, name)(r, f, DDP=False), value)
    expected = {
        "g_vanilla": F.softplus(-f).mean(),
        "g_hinge": -f.mean(),
        "g_ls": (0.5 * (f - 1) ** 2).mean(),
        "g_wasserstein": -f.mean(),
    }
    for name, value in expected.items():
        assert_close(getattr(studiogan, name)(f, DDP=False), value)


def test_studiogan_gradient_penalty():
    network, (real, fake) = critic(), images()
    labels = torch.arange(4)

    def discriminator(x, label, eval):
        assert label is labels and eval is False
        return {"adv_output": network(x).mean(dim=(1, 2, 3))}

    torch.manual_seed(5)
    penalty = studiogan.cal_grad_penalty(real, labels, fake, discriminator, "cpu")
    x = points(real, fake, 5)
    gradient = torch.autograd.grad(network(x).mean(dim=(1, 2, 3)).sum(), x)[0]
    assert_close(penalty, ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean())


def test_zi2zi_losses():
    x, labels = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    loss = zi2zi.CategoryLoss(6)
    assert_close(loss(x, labels), BCE(x, F.one_hot(labels, 6).float()))
    assert not list(loss.parameters()), "the one-hot table must not be trainable"
    for real in (True, False):
        assert_close(zi2zi.BinaryLoss(real)(x), BCE(x, torch.full_like(x, float(real))))


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_basicsrs_perceptual_loss_names_images_of_other_shapes(criterion):
    loss = basicsr.PerceptualLoss({"conv1_1": 1.0}, "vgg11", weights=None, criterion=criterion)
    for shape in ((2, 3, 40, 40), (3, 3, 32, 32)):
        with pytest.raises(ValueError, match="x and gt must have one shape, got"):
            loss(torch.rand(2, 3, 32, 32), torch.rand(shape))
