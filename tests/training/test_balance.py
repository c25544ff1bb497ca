"""Balance policies: who trains, what D minimizes, and steps that are skipped on the device."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan.losses import AdversarialLoss
from fastgan.optim import Adam, RMSprop
from fastgan.training.balance import Adaptive, EveryStep, Ratio, Threshold, make_balance, step_where

KINDS = ("bce", "nonsaturating", "lsgan", "hinge")
REAL, FAKE = torch.tensor([4.0, 5.0, 3.0]), torch.tensor([0.5, -1.0, 0.25])


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("kind", [*KINDS, "wgan", "wgan-gp", "relativistic"])
def test_every_step_is_the_plain_loss(kind):
    adversarial = AdversarialLoss(kind)
    decision = EveryStep().discriminator_loss(adversarial, REAL, FAKE)
    loss, statistics = adversarial.discriminator(REAL, FAKE, return_statistics=True)
    assert_close((decision.loss, *decision.statistics), (loss, *statistics))
    assert decision.applies is None


@pytest.mark.parametrize(
    ("counts", "discriminator", "generator"),
    [
        ((5, 1), "1111111111", "1000010000"),
        ((1, 3), "1001001001", "1111111111"),
        ((3, 2), "1111111111", "1101101101"),
        ((1, 1), "1111111111", "1111111111"),
    ],
)
def test_ratio_counts_steps(counts, discriminator, generator):
    policy = Ratio(*counts)
    assert "".join(str(int(policy.trains_discriminator(step))) for step in range(10)) == discriminator
    assert "".join(str(int(policy.trains_generator(step))) for step in range(10)) == generator


@pytest.mark.parametrize("kind", [*KINDS, "wgan"])
@pytest.mark.parametrize("sign", [1, -1])
def test_halves_add_up_to_the_loss(kind, sign):
    adversarial = AdversarialLoss(kind, sign)
    assert_close(sum(adversarial.halves(REAL, FAKE)), adversarial.discriminator(REAL, FAKE))


@pytest.mark.parametrize("kind", KINDS)
def test_threshold_leaves_out_the_half_that_is_won(kind):
    """With these logits every kind's loss on reals is below 0.3, except that of least squares."""
    real, fake = leaves(REAL if kind != "lsgan" else torch.tensor([1.1, 0.9]), FAKE)
    decision = Threshold(0.1).discriminator_loss(AdversarialLoss(kind), real, fake)
    decision.loss.backward()
    assert decision.applies
    assert real.grad.abs().max() == 0
    plain_real, plain_fake = leaves(real.detach(), FAKE)
    AdversarialLoss(kind).discriminator(plain_real, plain_fake).backward()
    assert_close(fake.grad, plain_fake.grad)


def test_threshold_leaves_out_the_step_where_both_are_won():
    decision = Threshold().discriminator_loss(AdversarialLoss("bce"), *leaves(REAL, -REAL))
    assert decision.loss == 0 and not decision.applies
    assert decision.statistics.accuracy_real == 1


def critic():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def optimizers(parameters):
    parameters = list(parameters)
    return {
        "adam": torch.optim.Adam(parameters, 0.1, fused=True),
        "adamw": torch.optim.AdamW(parameters, 0.1, fused=True),
        "rmsprop": RMSprop(parameters, 0.1, grad_clip_value=0.5, weight_clip=0.4),
    }


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_a_step_left_out_leaves_no_trace(name, first):
    """Neither weights nor optimizer state change: the next step is as if there had been no skipped one."""
    networks = [critic(), critic()]
    steps = [optimizers(network.parameters())[name] for network in networks]
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))

    def backward(network, factor):
        network.zero_grad()
        (factor * network(x).square().mean()).backward()

    if not first:
        for network, step in zip(networks, steps, strict=True):
            backward(network, 1.0)
            step_where(step, torch.tensor(True))
    before = copy.deepcopy(networks[0].state_dict())
    backward(networks[0], 3.0)
    step_where(steps[0], torch.tensor(False))
    assert_close(networks[0].state_dict(), before, rtol=0, atol=0)
    for network, step in zip(networks, steps, strict=True):
        backward(network, 2.0)
        step_where(step, None)
    assert_close(networks[0].state_dict(), networks[1].state_dict(), rtol=0, atol=0)
    assert networks[0].weight.abs().max() > 0 and not torch.equal(networks[0].weight, before["weight"])


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, 0.1, fused=True), lambda p: torch.optim.Adam(p, fused=False)]
)
def test_an_optimizer_that_cannot_leave_out_a_step_is_named(make):
    optimizer = make(critic().parameters())
    with pytest.raises(ValueError, match=f"{type(optimizer).__name__} cannot leave out a step on the device"):
        step_where(optimizer, torch.tensor(True))


def test_adaptive_holds_the_accuracy_on_reals():
    """Rotating samples: a D that does not train recognizes them less and less, one that trains follows."""
    torch.manual_seed(3)
    network, policy, adversarial = nn.Linear(2, 1), Adaptive(0.6, images=64), AdversarialLoss("bce")
    optimizer = torch.optim.Adam(network.parameters(), 0.05, fused=True)
    signs, updates = [], []
    for step in range(1200):
        centre = 2 * torch.tensor([math.cos(0.01 * step), math.sin(0.01 * step)])
        real, fake = torch.randn(32, 2) + centre, torch.randn(32, 2) - centre
        decision = policy.discriminator_loss(adversarial, network(real), network(fake))
        optimizer.zero_grad()
        decision.loss.backward()
        step_where(optimizer, decision.applies)
        signs.append(2 * decision.statistics.accuracy_real - 1)
        updates.append(decision.applies.float())
    assert abs(torch.stack(signs)[300:].mean() - 0.6) < 0.1
    assert 0.0 < torch.stack(updates)[300:].mean() < 0.9


def test_adaptive_remembers_through_its_state():
    policy = Adaptive(0.6, images=6)
    for _ in range(4):
        policy.discriminator_loss(AdversarialLoss("bce"), REAL, FAKE)
    assert_close(policy.measure, torch.tensor(1 - 0.5**4))
    repeated = Adaptive(0.6, images=6)
    repeated.load_state_dict(policy.state_dict())
    assert_close(repeated.measure, policy.measure)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ratio(0, 1), "n_critic must be at least 1, got 0"),
        (lambda: Ratio(1, -2), "n_generator must be at least 1, got -2"),
        (lambda: Threshold(-0.1), "threshold must not be negative, got -0.1"),
        (lambda: Threshold(float("nan")), "threshold must not be negative, got nan"),
        (lambda: Adaptive(1.0), r"target must lie in \(-1, 1\), got 1.0"),
        (lambda: Adaptive(images=0), "images must be at least 1, got 0"),
        (lambda: make_balance("sometimes"), "name must be one of .*every_step.*adaptive.*got 'sometimes'"),
        (
            lambda: Threshold().discriminator_loss(AdversarialLoss("relativistic"), REAL, FAKE),
            "'threshold' judges each logit by itself, which the kind 'relativistic'",
        ),
        (
            lambda: Adaptive().discriminator_loss(AdversarialLoss("wgan"), REAL, FAKE),
            "'adaptive' judges each logit by itself, which the kind 'wgan'",
        ),
        (lambda: AdversarialLoss("relativistic").halves(REAL, FAKE), "pairs reals with fakes"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_flag_without_a_value_is_refused():
    optimizer = Adam([torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match=r"applies must be on the parameters' device, cpu, got .*on meta"):
        step_where(optimizer, torch.tensor(True, device="meta"))
