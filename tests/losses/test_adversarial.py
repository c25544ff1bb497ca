"""Adversarial losses against their formulas, for both signs of the critic."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import losses
from fastgan.losses import AdversarialLoss
from fastgan.losses.adversarial import KINDS


def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# The losses of discriminator and generator, for logits that are high for real images.
FORMULAS = {
    "bce": (
        lambda r, f: cross_entropy(r, 1.0) + cross_entropy(f, 0.0),
        lambda r, f: cross_entropy(f, 1.0),
    ),
    "nonsaturating": (
        lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(),
        lambda r, f: F.softplus(-f).mean(),
    ),
    "lsgan": (
        lambda r, f: ((r - 1).square().mean() + f.square().mean()) / 2,
        lambda r, f: (f - 1).square().mean() / 2,
    ),
    "hinge": (
        lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(),
        lambda r, f: -f.mean(),
    ),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "relativistic": (lambda r, f: F.softplus(f - r).mean(), lambda r, f: F.softplus(r - f).mean()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("critic_sign", [1, -1])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 3, 5)])
def test_losses_are_their_formulas(kind, critic_sign, shape):
    real, fake = torch.randn(shape), torch.randn(shape)
    loss = AdversarialLoss(kind, critic_sign)
    discriminator, generator = FORMULAS[kind]
    expected = discriminator(critic_sign * real, critic_sign * fake)
    assert torch.allclose(loss.discriminator(real, fake), expected, atol=1e-6)
    expected = generator(critic_sign * real, critic_sign * fake)
    assert torch.allclose(loss.generator(fake, real), expected, atol=1e-6)


def test_functions_are_the_kinds():
    real, fake = torch.randn(2, 7)
    for kind in ("bce", "nonsaturating", "lsgan", "hinge", "wgan", "relativistic"):
        expected = AdversarialLoss(kind).discriminator(real, fake)
        assert torch.equal(getattr(losses, f"d_{kind}_loss")(real, fake), expected)
        arguments = (fake, real) if kind == "relativistic" else (fake,)
        expected = AdversarialLoss(kind).generator(fake, real)
        assert torch.equal(getattr(losses, f"g_{kind}_loss")(*arguments), expected)
    assert torch.equal(losses.g_adversarial_loss(fake), losses.g_hinge_loss(fake))


def test_labels_apply_only_to_the_discriminator():
    real, fake = torch.randn(2, 7)
    bce = AdversarialLoss("bce", real_label=0.9, fake_label=0.1)
    expected = cross_entropy(real, 0.9) + cross_entropy(fake, 0.1)
    assert torch.allclose(bce.discriminator(real, fake), expected)
    assert torch.allclose(bce.generator(fake), cross_entropy(fake, 1.0))
    lsgan = AdversarialLoss("lsgan", real_label=0.9, fake_label=-0.1)
    expected = ((real - 0.9).square().mean() + (fake + 0.1).square().mean()) / 2
    assert torch.allclose(lsgan.discriminator(real, fake), expected)


@pytest.mark.parametrize("critic_sign", [1, -1])
def test_statistics(critic_sign):
    real, fake = torch.tensor([0.5, 2.0, -1.0, 4.0]), torch.tensor([[-2.0, 0.5], [-0.5, -3.0]])
    loss = AdversarialLoss("hinge", critic_sign)
    value, actual = loss.discriminator(critic_sign * real, critic_sign * fake, return_statistics=True)
    assert torch.equal(value, loss.discriminator(critic_sign * real, critic_sign * fake))
    expected = {
        "D_real": critic_sign * 1.375, "D_fake": critic_sign * -1.25,
        "probability_real": real.sigmoid().mean().item(), "probability_fake": fake.sigmoid().mean().item(),
        "accuracy_real": 0.75, "accuracy_fake": 0.75,
        "margin_violations_real": 0.5, "margin_violations_fake": 0.5,
    }  # fmt: skip
    for name, number in expected.items():
        assert getattr(actual, name).item() == pytest.approx(number, rel=1e-6)
        assert not getattr(actual, name).requires_grad


def test_lsgans_threshold_of_accuracy_lies_between_its_labels():
    real, fake = torch.tensor([0.4, 0.6, 1.2]), torch.tensor([0.4, 0.6, -1.0])
    _, actual = AdversarialLoss("lsgan").discriminator(real, fake, return_statistics=True)
    assert actual.accuracy_real.item() == pytest.approx(2 / 3)
    assert actual.accuracy_fake.item() == pytest.approx(2 / 3)


def test_the_original_sign_of_stegastamp():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0])
    loss = AdversarialLoss("wgan", critic_sign=-1)
    assert loss.discriminator(real, fake) == real.mean() - fake.mean()
    assert loss.generator(fake) == fake.mean()


def test_half_precision_logits_are_averaged_in_float32():
    fake = torch.full((4096,), 1.001, dtype=torch.bfloat16)
    assert AdversarialLoss("wgan").generator(fake).dtype == torch.float32


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="kind must be one of .*, got 'ralsgan'"):
        AdversarialLoss("ralsgan")
    with pytest.raises(ValueError, match=r"critic_sign must be \+1 or -1, got 2"):
        AdversarialLoss("wgan", 2)
    with pytest.raises(ValueError, match=r"kind 'hinge' has no labels, got 0\.9 and 0\.0"):
        AdversarialLoss("hinge", real_label=0.9)
    with pytest.raises(ValueError, match="relativistic generator loss needs real_logits, got None"):
        AdversarialLoss("relativistic").generator(torch.rand(3))
    with pytest.raises(ValueError, match=r"must have the same shape, got \(3,\) and \(4,\)"):
        AdversarialLoss("relativistic").discriminator(torch.rand(3), torch.rand(4))
    with pytest.raises(ValueError, match=r"real_logits must not be empty, got shape \(0, 1\)"):
        AdversarialLoss("hinge").discriminator(torch.rand(0, 1), torch.rand(4))
    with pytest.raises(TypeError, match="fake_logits must be a floating-point tensor, got tuple"):
        AdversarialLoss("hinge").discriminator(torch.rand(4), (torch.rand(4), None))
    with pytest.raises(
        TypeError, match="real_logits must be a floating-point tensor, got list.*: fake_logits is a ten"
    ):
        AdversarialLoss("hinge").discriminator([torch.rand(4)], torch.rand(4))
    with pytest.raises(ValueError, match="must have as many scales, got 2 and 1"):
        AdversarialLoss("hinge").discriminator([torch.rand(4)] * 2, [torch.rand(4)])
    with pytest.raises(ValueError, match="fake_logits must have a tensor for each scale, got an empty list"):
        losses.g_lsgan_loss([])
    with pytest.raises(TypeError, match=r"logits\[1\] must be a floating-point tensor"):
        AdversarialLoss("hinge").real([torch.rand(4), 3])
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        AdversarialLoss("hinge").fake(torch.rand(4), reduction="max")
    with pytest.raises(ValueError, match="must have the same shape"):
        AdversarialLoss("hinge").discriminator(torch.rand(3), torch.rand(4), reduction="none")
    with pytest.raises(ValueError, match="pairs reals with fakes and has no halves"):
        AdversarialLoss("relativistic").real(torch.rand(3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{"kind": "relativistic"}, {"kind": "bce", "from_probabilities": True}])
def test_the_scale_that_does_not_fit_is_named(options, reduction):
    loss, x = AdversarialLoss(**options), torch.rand(3)
    for real, fake, message in (
        ([x, x], [x, x.to("meta")], r"one device, got .*_logits\[\d\] on cpu, fake_logits\[1\] on meta"),
        ([x, x[:0]], [x, x[:0]], r"real_logits\[1\] must not be empty, got shape \(0,\)"),
        (x, x.to("meta"), "one device, got real_logits on cpu, fake_logits on meta"),
    ):
        with pytest.raises(ValueError, match=message):
            loss.discriminator(real, fake, reduction=reduction)
    if reduction == "none" or options["kind"] == "relativistic":
        names = r"real_logits\[1\] and fake_logits\[1\]"
        with pytest.raises(ValueError, match=f"{names} must have the same shape"):
            loss.discriminator([x, x], [x, x[:2]], reduction=reduction)


@pytest.mark.parametrize("options", [{"kind": "hinge"}, {"kind": "bce", "from_probabilities": True}])
def test_halves_refuse_what_the_discriminator_refuses(options):
    loss, x = AdversarialLoss(**options), torch.rand(3)
    with pytest.raises(ValueError, match=r"fake_logits must not be empty, got shape \(0,\)"):
        loss.halves(x, x[:0])
    with pytest.raises(ValueError, match="one device, got real_logits on cpu, fake_logits on meta"):
        loss.halves(x, x.to("meta"))
    with pytest.raises(TypeError, match="real_logits must be a floating-point tensor, got list"):
        loss.halves([x], [x])


# --- one side, scales, reductions ---------------------------------------------------------------------------


def each_loss(kind, real, fake):
    """D's loss and G's, logit by logit, as its paper has them."""
    return {
        "bce": (F.softplus(-real) + F.softplus(fake), F.softplus(-fake)),
        "nonsaturating": (F.softplus(-real) + F.softplus(fake), F.softplus(-fake)),
        "lsgan": (((real - 1) ** 2 + fake**2) / 2, (fake - 1) ** 2 / 2),
        "hinge": (F.relu(1 - real) + F.relu(1 + fake), -fake),
        "wgan": (fake - real, -fake),
        "wgan-gp": (fake - real, -fake),
        "relativistic": (F.softplus(fake - real), F.softplus(real - fake)),
    }[kind]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_reductions_are_those_of_torch(kind, sign):
    real, fake = (2 * torch.randn(3, 1, 5, requires_grad=True) for _ in range(2))
    loss = AdversarialLoss(kind, sign)
    of_d, of_g = each_loss(kind, sign * real, sign * fake)
    for reduction, reduced in (("none", lambda x: x), ("sum", torch.sum), ("mean", torch.mean)):
        actual, statistics = loss.discriminator(real, fake, reduction=reduction, return_statistics=True)
        assert_close(actual, reduced(of_d))
        assert_close(statistics.D_real, real.mean())
        assert_close(loss.discriminator(real, fake, reduction=reduction), reduced(of_d))
        assert_close(loss.generator(fake, real, reduction=reduction), reduced(of_g))
        gradients = torch.autograd.grad(actual.sum(), (real, fake), retain_graph=True)
        assert_close(gradients, torch.autograd.grad(reduced(of_d).sum(), (real, fake), retain_graph=True))


@pytest.mark.parametrize("from_probabilities", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scales_are_added(kind, from_probabilities):
    if from_probabilities and kind not in ("bce", "nonsaturating"):
        pytest.skip("a loss of logits")
    loss = AdversarialLoss(kind, from_probabilities=from_probabilities)
    real, fake = ([torch.rand(2, 1, size, size) for size in (6, 3, 1)] for _ in range(2))
    for reduction in ("mean", "sum"):
        options = {"reduction": reduction, "return_statistics": True}
        total, statistics = loss.discriminator(real, fake, **options)
        apart = [loss.discriminator(r, f, **options) for r, f in zip(real, fake, strict=True)]
        assert_close(total, sum(one for one, _ in apart))
        for field, name in zip(statistics, statistics._fields, strict=True):
            assert_close(field, torch.stack([getattr(one, name) for _, one in apart]))
        apart = [loss.generator(f, r, reduction=reduction) for r, f in zip(real, fake, strict=True)]
        assert_close(loss.generator(fake, real, reduction=reduction), sum(apart))
    for logits, each in (
        (real, loss.discriminator(real, fake, reduction="none")),
        (fake, loss.generator(fake, real, reduction="none")),
    ):
        assert [one.shape for one in each] == [one.shape for one in logits]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "relativistic"])
def test_the_sides_are_halves(kind):
    labels = {"real_label": 0.9, "fake_label": 0.1} if kind in ("bce", "lsgan") else {}
    loss = AdversarialLoss(kind, -1, **labels)
    real, fake = torch.randn(7, 1), torch.randn(5, 1)
    whole, statistics = loss.discriminator(real, fake, return_statistics=True)
    of_real, real_statistics = loss.real(real, return_statistics=True)
    of_fake, fake_statistics = loss.fake([fake, fake], return_statistics=True)
    halves = loss.halves(real, fake)
    assert_close(of_real + loss.fake(fake), whole)
    assert_close(of_real, halves[0])
    assert_close(of_fake, 2 * halves[1])
    assert_close([*real_statistics], [*statistics[:4]])
    assert_close([*fake_statistics], [torch.stack([one, one]) for one in statistics[4:]])


def test_one_side_of_probabilities():
    loss = AdversarialLoss("bce", real_label=0.9, from_probabilities=True)
    real, fake = torch.rand(7, 1), torch.rand(7, 1)
    whole, statistics = loss.discriminator(real, fake, return_statistics=True)
    of_real, real_statistics = loss.real(real, return_statistics=True)
    assert_close(of_real + loss.fake(fake), whole)
    assert_close([*real_statistics], [*statistics[:4]])
    assert_close(loss.discriminator(real, fake, reduction="none").mean(), whole)


def test_functions_take_reductions():
    real, fake = torch.randn(4, 1), torch.randn(4, 1)
    for name in ("bce", "nonsaturating", "lsgan", "hinge", "wgan", "relativistic"):
        of_d, of_g = each_loss(name, real, fake)
        assert_close(getattr(losses, f"d_{name}_loss")(real, fake, reduction="none"), of_d)
        generator = getattr(losses, f"g_{name}_loss")
        logits = (fake, real) if name == "relativistic" else (fake,)
        assert_close(generator(*logits, reduction="none"), of_g)
