"""Adversarial losses against their formulas, for both signs of the critic."""

import pytest
import torch
from torch.nn import functional as F

from fastgan.losses import AdversarialLoss
from fastgan.losses.adversarial import KINDS


def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# Discriminator's and generator's loss from logits that are high for real images.
FORMULAS = {
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "hinge": (lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(), lambda f: -f.mean()),
    "nonsaturating": (
        lambda r, f: cross_entropy(r, 1.0) + cross_entropy(f, 0.0),
        lambda f: cross_entropy(f, 1.0),
    ),
    "lsgan": (
        lambda r, f: ((r - 1).square().mean() + f.square().mean()) / 2,
        lambda f: (f - 1).square().mean() / 2,
    ),
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
    assert torch.allclose(loss.generator(fake), generator(critic_sign * fake), atol=1e-6)


def test_the_original_sign_of_stegastamp():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0])
    loss = AdversarialLoss("wgan", critic_sign=-1)
    assert loss.discriminator(real, fake) == real.mean() - fake.mean()
    assert loss.generator(fake) == fake.mean()


def test_half_precision_logits_are_averaged_in_float32():
    fake = torch.full((4096,), 1.001, dtype=torch.bfloat16)
    assert AdversarialLoss("wgan").generator(fake).dtype == torch.float32


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="kind must be one of .*, got 'bce'"):
        AdversarialLoss("bce")
    with pytest.raises(ValueError, match=r"critic_sign must be \+1 or -1, got 2"):
        AdversarialLoss("wgan", 2)
