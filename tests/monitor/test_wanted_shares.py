"""Weights that follow from wanted shares: EnCodec's balancer, in steps and phases."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.monitor import LossBudget
from tests.conftest import DEVICES
from tests.monitor.scenes import (
    SCENES,
    Plain,
    assert_gradients_equal,
    gradients,
    gradients_at_cut,
    make,
    plain_gradients,
    weights_of,
)

WANTED = {"l1": 1.0, "gan": 2.0, "perceptual": 5.0}


class Balancer:
    """EnCodec's formulas: averages with bias correction, gradients scaled to their part of total_norm."""

    def __init__(self, wanted, decay, total_norm):
        self.wanted, self.decay, self.total_norm = wanted, decay, total_norm
        self.sums, self.counts = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)

    def weights(self, gradients):
        for name, gradient in gradients.items():
            self.sums[name] = self.sums[name] * self.decay + float(gradient.norm())
            self.counts[name] = self.counts[name] * self.decay + 1
        means = {name: self.sums[name] / self.counts[name] for name in gradients}
        all_shares = sum(self.wanted[name] for name in gradients)
        return {n: self.total_norm * self.wanted[n] / all_shares / means[n] for n in gradients}


def step(scene, budget, inputs, names=tuple(WANTED), shares=WANTED, how="backward"):
    scene.zero_grad()
    terms = scene.terms(budget.cut, *inputs)
    terms = {name: terms[name] for name in names}
    if how == "backward":
        return budget.backward(terms, shares=shares)
    loss, measured = budget.loss(terms, shares=shares)
    loss.backward()
    return measured


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", SCENES)
def test_each_term_has_its_share_without_memory(kind, how, device):
    wanted = weights_of(kind, (1.0, 2.0, 0.0, 5.0))
    scene, inputs = make(kind, device=device)
    budget = LossBudget(decay=0.0)
    shares = step(scene, budget, inputs, tuple(wanted), wanted, how)
    for name, share in wanted.items():
        assert_close(float(shares.share[name]), share / sum(wanted.values()), rtol=1e-5, atol=0)
    weights = {name: float(weight) for name, weight in shares.weight.items()}
    assert_gradients_equal(gradients(scene), plain_gradients(kind, weights, device=device), 3e-6)
    assert budget.undefined == 0


@pytest.mark.parametrize("kind", SCENES)
def test_the_norm_of_the_sum_is_kept(kind):
    wanted = weights_of(kind, (1.0, 2.0, 0.5, 5.0))
    scene, inputs = make(kind)
    shares = step(scene, LossBudget(), inputs, tuple(wanted), wanted)
    plain = sum(gradients_at_cut(kind).values()).norm()
    assert_close(shares.gram.sum().sqrt().double(), plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("total_norm", [1.0, 0.01])
def test_averages_are_those_of_encodecs_balancer(total_norm):
    decay, phases = 0.9, [tuple(WANTED)] * 3 + [("gan", "l1")] * 2 + [("perceptual",), tuple(WANTED)]
    budget, balancer = LossBudget(decay=decay, total_norm=total_norm), Balancer(WANTED, decay, total_norm)
    for seed, names in enumerate(phases):
        scene, inputs = make(Plain, seed=seed)
        shares = step(scene, budget, inputs, names)
        found = gradients_at_cut(Plain, seed)
        expected = balancer.weights({name: found[name] for name in names})
        assert shares.names == names
        for name in names:
            assert_close(float(shares.weight[name]), expected[name], rtol=1e-5, atol=0)
        actual = torch.stack([expected[name] * found[name] for name in names])
        assert_close(shares.gram.double(), actual @ actual.T, rtol=1e-5, atol=1e-9)


def test_a_steps_norms_vary_around_their_averages():
    """In the proportion of its norm to the average: a weak gradient stays weak in this step."""
    scene, (z, real) = make(Plain)
    budget = LossBudget(decay=0.5, total_norm=1.0)
    for factor in (1.0, 0.1):
        leaf = budget.cut(scene.generator(z))
        terms = {"l2": factor * F.mse_loss(leaf, real), "gan": scene.critic(leaf).mean()}
        shares = budget.backward(terms, shares={"l2": 1.0, "gan": 1.0})
    # Averages with bias correction: (0.5 * 1 + 0.1) / 1.5 of the first norm.
    assert_close(shares.norm["l2"].item(), 0.5 * 0.1 / (0.6 / 1.5), rtol=1e-5, atol=0)
    assert_close(shares.norm["gan"].item(), 0.5, rtol=1e-5, atol=0)


@pytest.mark.parametrize("total_norm", [None, 1.0])
def test_a_checkpoint_resumes_exactly(total_norm):
    def steps(budget, seeds):
        return [step(*_with(budget, make(Plain, seed=seed))).gram for seed in seeds]

    def _with(budget, made):
        return made[0], budget, made[1]

    budget = LossBudget(decay=0.9, total_norm=total_norm)
    steps(budget, range(3))
    file = io.BytesIO()
    torch.save(budget.state_dict(), file)
    file.seek(0)
    resumed = LossBudget(decay=0.9, total_norm=total_norm)
    resumed.load_state_dict(torch.load(file))
    for ours, theirs in zip(steps(budget, range(3, 6)), steps(resumed, range(3, 6)), strict=True):
        assert torch.equal(ours, theirs)


def test_state_survives_a_change_of_the_modules_precision():
    scene, inputs = make(Plain)
    budget = LossBudget()
    nn.ModuleList([scene, budget]).to(torch.bfloat16)
    scene.to(torch.float32)
    for _ in range(300):
        step(scene, budget, inputs)
    assert budget.averages.dtype == budget.counts.dtype == torch.float32
    assert budget.counts[0] > 250


def test_gradients_that_are_not_finite_leave_the_averages():
    scene, (z, real) = make(Plain)
    budget = LossBudget(decay=0.5)
    before = step(scene, budget, (z, real))
    kept = {name: value.clone() for name, value in budget.state_dict().items()}
    for bad in (torch.inf, torch.nan):
        leaf = budget.cut(scene.generator(z))
        terms = {"l1": F.l1_loss(leaf, real), "gan": scene.critic(leaf).mean() * bad}
        shares = budget.backward({**terms, "perceptual": F.mse_loss(leaf, real)}, shares=WANTED)
        assert not shares.norm["gan"].isfinite()
        assert not scene.generator[0].weight.grad.isfinite().all()  # so that a GradScaler leaves the step out
    assert_close(budget.averages[1], kept["averages"][1]) and assert_close(
        budget.counts[1], kept["counts"][1]
    )
    after = step(scene, budget, (z, real))
    assert all(share.isfinite() for share in after.share.values())
    assert before.names == after.names


def test_a_term_without_gradient_gets_weight_zero_and_is_counted():
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    leaf = budget.cut(scene.generator(z))
    terms = {"l2": F.mse_loss(leaf, real), "none": (0 * leaf).sum()}
    shares = budget.backward(terms, shares={"l2": 1.0, "none": 1.0})
    assert shares.weight["none"] == 0 and shares.share["l2"] == 1 and budget.undefined == 1
    assert shares.weight["l2"].isfinite() and shares.weight["l2"] > 0


def test_terms_that_all_vanish_change_nothing():
    scene, (z, _) = make(Plain)
    budget = LossBudget()
    leaf = budget.cut(scene.generator(z))
    shares = budget.backward({"a": (0 * leaf).sum(), "b": (0 * leaf).sum()}, shares={"a": 1.0, "b": 1.0})
    assert shares.gram.count_nonzero() == 0 and budget.undefined == 2
    assert scene.generator[0].weight.grad.count_nonzero() == 0


def test_shares_are_the_same_whatever_the_numbers_scale():
    """Shares count relative to each other."""
    found = []
    for factor in (1.0, 1e-3, 50.0):
        scene, inputs = make(Plain)
        step(scene, LossBudget(), inputs, shares={name: factor * share for name, share in WANTED.items()})
        found.append(gradients(scene))
    for other in found[1:]:
        assert_gradients_equal(other, found[0], 1e-5)
