"""Each shim against the formula of the code that it replaces, in plain PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import losses
from fastgan.compat import (
    basicsr,
    pix2pix,
    pytorch_gan,
    r3gan,
    rosinality,
    starganv2,
    stegastamp,
    studiogan,
    taming,
    zi2zi,
)


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


# --- lists of scales, one side at a time ---------------------------------------------------


def scales():
    return [3 * torch.randn(5, 1, size, size) for size in (8, 4, 2)]


@pytest.mark.parametrize("is_disc", [True, False])
@pytest.mark.parametrize("real", [True, False])
def test_basicsr_multi_scale_ganloss_is_the_mean_over_scales(real, is_disc):
    lists = scales()
    features = [[torch.randn(2, 3), each] for each in lists]
    for kind in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"):
        single = basicsr.GANLoss(kind, 0.9, 0.1, loss_weight=0.25)
        loss = basicsr.MultiScaleGANLoss(kind, 0.9, 0.1, loss_weight=0.25)
        expected = sum(single(each, real, is_disc=is_disc) for each in lists) / 3
        assert_close(loss(lists, real, is_disc=is_disc), expected)
        assert_close(loss(features, real, is_disc=is_disc), expected)
        assert_close(loss(lists[0], real, is_disc=is_disc), single(lists[0], real, is_disc=is_disc))
        weight = torch.tensor(0.25, requires_grad=True)
        loss = basicsr.MultiScaleGANLoss(kind, 0.9, 0.1, loss_weight=weight)
        assert_close(loss(lists, real, is_disc=is_disc), expected.detach(), check_stride=False)


def test_basicsr_ganloss_has_target_labels():
    x = logits()
    for real, label in ((True, 0.9), (False, 0.1)):
        assert_close(basicsr.GANLoss("lsgan", 0.9, 0.1).get_target_label(x, real), torch.full_like(x, label))
        assert basicsr.GANLoss("wgan").get_target_label(x, real) is real


@pytest.mark.parametrize("real", [True, False])
def test_pix2pix_ganloss_adds_scales(real):
    lists = scales()
    features = [[torch.randn(2, 3), each] for each in lists]
    for kind in ("lsgan", "vanilla", "wgangp", "nonsaturating", "hinge"):
        loss = pix2pix.GANLoss(kind, 0.9, 0.1)
        expected = sum(loss(each, real) for each in lists)
        assert_close(loss(lists, real), expected)
        assert_close(loss(features, real), expected)


@pytest.mark.parametrize("real", [True, False])
def test_pix2pix_hinge_and_nonsaturating(real):
    x, sign = logits(), -1 if real else 1
    hinge = pix2pix.GANLoss("hinge")
    assert_close(hinge(x, real), F.relu(1 + sign * x).mean())
    nonsaturating = pix2pix.GANLoss("nonsaturating")(x, real)
    assert_close(nonsaturating, F.softplus(sign * x).view(5, -1).mean(dim=1))
    if real:
        assert_close(hinge(x, True, for_discriminator=False), -x.mean())
    else:
        with pytest.raises(ValueError, match="target_is_real must be True for G's hinge loss, got False"):
            hinge(x, False, for_discriminator=False)
    with pytest.raises(ValueError, match=r"prediction must have the samples of .*, got shape \(\)"):
        pix2pix.GANLoss("nonsaturating")(torch.tensor(1.0), real)


@pytest.mark.parametrize("kind", ["lsgan", "vanilla"])
def test_pix2pix_labels_are_buffers_whose_changes_are_seen(kind):
    x, loss = logits(), pix2pix.GANLoss(kind)
    formula = {"lsgan": F.mse_loss, "vanilla": BCE}[kind]
    assert_close(loss(x, True), formula(x, torch.ones_like(x)))
    assert_close(loss.get_target_tensor(x, True), torch.ones_like(x))
    loss.load_state_dict({"real_label": torch.tensor(0.75), "fake_label": torch.tensor(0.25)})
    assert_close(loss(x, True), formula(x, torch.full_like(x, 0.75)))
    assert_close(loss(x, False), formula(x, torch.full_like(x, 0.25)))
    loss.real_label.fill_(0.5)
    assert_close(loss(x, True), formula(x, torch.full_like(x, 0.5)))
    loss.fake_label = torch.tensor(0.125)
    assert_close(loss(x, False), formula(x, torch.full_like(x, 0.125)))


def test_a_pix2pix_label_at_the_address_of_an_earlier_one_is_read():
    loss, x = pix2pix.GANLoss("lsgan"), logits()
    for number in range(50):
        loss.real_label = torch.tensor(float(number))
        loss(x, True)
        loss.real_label = torch.tensor(-1.0)  # after which the next may have the identity of the one above
        loss.real_label = torch.tensor(number + 0.5)
        assert_close(loss(x, True), (x - number - 0.5).square().mean())
    assert_close(copy.deepcopy(loss)(x, True), loss(x, True))
    loss.real_label = torch.ones(5)
    with pytest.raises(ValueError, match=r"real_label must be one number, got shape \(5,\)"):
        loss(x, True)


def test_gradients_of_one_side_are_the_formulas():
    """Large enough that the kernel runs, in half types, too."""
    for dtype in (torch.float32, torch.bfloat16):
        x = (3 * torch.randn(16, 1, 70, 70)).to(dtype).requires_grad_()
        for loss, formula in (
            (lambda x: pix2pix.GANLoss("lsgan")(x, True), lambda x: (x - 1).square().mean()),
            (lambda x: basicsr.GANLoss("vanilla")(x, False, is_disc=True), lambda x: F.softplus(x).mean()),
            (lambda x: starganv2.adv_loss(x, 1), lambda x: F.softplus(-x).mean()),
            (zi2zi.BinaryLoss(False), lambda x: F.softplus(x).mean()),
        ):
            actual, expected = loss(x), formula(x.float())
            assert "side_losses" in actual.grad_fn.name()
            assert_close(actual, expected)
            one, other = torch.autograd.grad(1e4 * actual, x)[0], torch.autograd.grad(1e4 * expected, x)[0]
            assert_close(one, other, rtol=1e-5 if dtype == torch.float32 else 2.0**-7, atol=1e-5)


def test_adv_loss_and_binary_loss_take_scales_and_reductions():
    lists = scales()
    expected = [BCE(each, torch.ones_like(each), reduction="none") for each in lists]
    assert_close(starganv2.adv_loss(lists, 1), sum(each.mean() for each in expected))
    assert_close(starganv2.adv_loss(lists, 1, reduction="none"), expected)
    assert_close(starganv2.adv_loss(lists[0], 1, reduction="none"), expected[0])
    assert_close(zi2zi.BinaryLoss(True, reduction="sum")(lists), sum(each.sum() for each in expected))
    probabilities = [each.sigmoid() for each in lists]
    options = {"from_probabilities": True, "reduction": "none"}
    assert_close(starganv2.adv_loss(probabilities, 1, **options), expected, rtol=1e-4, atol=1e-5)


# --- names that trainers look up ---------------------------------------------------


def test_studiogan_has_what_its_configuration_looks_up():
    r, f = logits(), logits()
    assert_close(studiogan.d_logistic(r, f, DDP=False), (F.softplus(-r) + F.softplus(f)).mean())
    assert_close(studiogan.g_logistic(f, DDP=False), F.softplus(-f).mean())
    names = {"vanilla": "vanilla", "logistic": "logistic", "least_square": "ls", "hinge": "hinge"}
    for name in (*names.values(), "wasserstein"):
        assert callable(getattr(studiogan, f"d_{name}")) and callable(getattr(studiogan, f"g_{name}"))
    scores, label = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    wrong = scores.clone()
    wrong[range(4), label] = -torch.inf
    expected = F.relu(1 + wrong.amax(dim=1) - scores[range(4), label]).mean()
    assert_close(studiogan.crammer_singer_loss(scores, label, DDP=False, mi=None), expected)
    with pytest.raises(ValueError, match=r"label must lie in \[0, 6\), got 6"):
        studiogan.crammer_singer_loss(scores, label + 1, DDP=False)


def test_studiogan_penalties_of_the_largest_and_of_stylegan():
    network, (real, fake) = critic(), images()
    x = real.requires_grad_()
    squared = gradient_at(network, x).square().sum(dim=(1, 2, 3))
    assert_close(studiogan.stylegan_cal_r1_reg(network(x), x), 0.5 * squared.mean())
    torch.manual_seed(5)
    discriminator = lambda x, label, eval: {"adv_output": network(x)}  # noqa: E731
    penalty = studiogan.cal_maxgrad_penalty(real, None, fake, discriminator, "cpu")
    gradient = gradient_at(network, points(real, fake, 5).detach().requires_grad_())
    assert_close(penalty, gradient.flatten(1).norm(2, dim=1).square().max())


def averages():
    torch.manual_seed(0)
    return tuple(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))


@pytest.mark.parametrize("decay", [0.999, 0.0])
def test_moving_averages_are_the_originals(decay):
    network, average = averages()
    pairs = zip(average.parameters(), network.parameters(), strict=True)
    wanted = [decay * one.detach() + (1 - decay) * other.detach() for one, other in pairs]
    average[1].running_mean.fill_(7)
    starganv2.moving_average(network, average, beta=decay)
    assert_close([*average.parameters()], wanted, check_stride=False)
    assert (average[1].running_mean == 7).all()
    network, average = averages()
    rosinality.accumulate(average, network, decay)
    assert_close([*average.parameters()], wanted)
    with pytest.raises(
        ValueError, match="model must have all parameters of|model2 must have all parameters of"
    ):
        rosinality.accumulate(average, network[0])
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got 2"):
        starganv2.moving_average(network, average, beta=2)


def test_rosinality_losses():
    network, x = critic(), images(1)[0].requires_grad_()
    r, f = logits(), logits()
    assert_close(rosinality.d_logistic_loss(r, f), F.softplus(-r).mean() + F.softplus(f).mean())
    assert_close(rosinality.g_nonsaturating_loss(f), F.softplus(-f).mean())
    squared = gradient_at(network, x).square().sum(dim=(1, 2, 3))
    assert_close(rosinality.d_r1_loss(network(x), x), squared.mean())


def test_pytorch_gans_penalty_draws_from_numpy():
    network, (real, fake) = critic(), images()
    discriminator = lambda x: network(x).mean(dim=(2, 3))  # noqa: E731
    np.random.seed(3)  # noqa: NPY002
    penalty = pytorch_gan.compute_gradient_penalty(discriminator, real, fake)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    part = torch.tensor(np.random.random((4, 1, 1, 1)), dtype=torch.float32)  # noqa: NPY002
    gradient = gradient_at(discriminator, (part * real + (1 - part) * fake).requires_grad_())
    assert_close(penalty, ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean())
    assert np.random.random() == after  # noqa: NPY002
    penalty.backward()
    assert network[0].weight.grad.isfinite().all()


def test_vqgan_losses_have_their_half():
    r, f = logits(), logits()
    assert_close(taming.hinge_d_loss(r, f), 0.5 * (F.relu(1 - r).mean() + F.relu(1 + f).mean()))
    assert_close(taming.vanilla_d_loss(r, f), 0.5 * (F.softplus(-r).mean() + F.softplus(f).mean()))
    assert taming.adopt_weight(0.5, 3, threshold=4) == 0 and taming.adopt_weight(0.5, 4, threshold=4) == 0.5


def test_zi2zis_table_in_a_checkpoint_is_taken_if_it_is_one():
    loss = nn.ModuleDict({"category": zi2zi.CategoryLoss(3)})
    loss.load_state_dict({"category.emb.weight": torch.eye(3)})
    with pytest.raises(RuntimeError, match="category.emb.weight must be the one-hot table of 3 categories"):
        loss.load_state_dict({"category.emb.weight": torch.ones(3, 3)})


def test_stegastamps_losses():
    x, bits = torch.randn(4, 6), torch.randint(2, (4, 6)).float()
    assert_close(stegastamp.bce_secret_loss(x, target_bits=bits), BCE(x, bits))
    with pytest.raises(ValueError, match="target_bits must have"):
        stegastamp.bce_secret_loss(x, bits[:2])
    loss = stegastamp.LPIPSLoss(weights=None, pretrained=False)
    one, other = (2 * torch.rand(2, 3, 64, 64) - 1 for _ in range(2))
    assert loss.pnet_type == "alex" and loss(one, other).dim() == 0
    reference = losses.LPIPS(net="alex", weights=None, pretrained=False)
    reference.load_state_dict(loss.state_dict())
    assert_close(loss(one, other), reference(one, other).mean())


def test_stegastamps_jpeg_draws_one_quality_for_the_batch():
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    codec = stegastamp.RandomJPEG(25)
    torch.manual_seed(4)
    decoded = codec(x, 0.5)
    torch.manual_seed(4)
    quality = (100 - torch.rand(1) * 75 * 0.5).item()
    assert_close(decoded, basicsr.DiffJPEG()(x, quality).clamp(0, 1))
    decoded.sum().backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"scale must lie in \[0, 1\], got 2"):
        codec(x, 2)
    with pytest.raises(ValueError, match=r"min_quality must lie in \[1, 100\], got 0"):
        stegastamp.RandomJPEG(0)
