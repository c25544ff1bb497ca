"""AdaptiveWeight: taming's formula at the last layer, or at the cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.monitor import AdaptiveWeight, LossBudget
from tests.conftest import DEVICES
from tests.monitor.scenes import (
    SCENES,
    Cycle,
    Plain,
    UNet,
    assert_gradients_equal,
    gradients,
    gradients_at_cut,
    make,
    plain_gradients,
    uncut,
    weights_of,
)


def taming(others, own, clamp=(0.0, 1e4), epsilon=1e-4, scale=1.0):
    return scale * float((others.norm() / (own.norm() + epsilon)).clamp(*clamp))


def at_layer(kind, weight_of):
    """Each term's float64 gradient of the layer's weight."""
    scene, inputs = make(kind, torch.float64)
    terms = scene.terms(uncut, *inputs)
    return {
        name: torch.autograd.grad(term, weight_of(scene), retain_graph=True)[0].flatten()
        for name, term in terms.items()
    }


def weighted(kind, layer, how="backward", device="cpu", **options):
    """(scene, budget, shares) with the second term's weight relative to the first and third."""
    names = tuple(weights_of(kind))
    others = tuple(name for name in (names[0], *names[2:3]))
    weights = {name: 2.0 if name == others[0] else 0.5 for name in names}
    weights[names[1]] = AdaptiveWeight(others, **options)
    scene, inputs = make(kind, device=device)
    budget = LossBudget(layer(scene) if layer else None)
    terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        shares = budget.backward(terms, weights)
    else:
        loss, shares = budget.loss(terms, weights)
        loss.backward()
    return scene, budget, shares, names, others, weights


LAYERS = {"cut": None, "layer": lambda scene: scene.layer, "parameter": lambda scene: scene.layer.weight}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("kind", [kind for kind in SCENES if kind is not UNet])
def test_weights_are_tamings(kind, layer, how, device):
    options = {"scale": 0.8, "epsilon": 1e-3}
    scene, budget, shares, names, others, weights = weighted(kind, layer, how, device, **options)
    found = gradients_at_cut(kind) if layer is None else at_layer(kind, lambda scene: scene.layer.weight)
    expected = taming(sum(weights[name] * found[name] for name in others), found[names[1]], **options)
    assert_close(float(shares.weight[names[1]]), expected, rtol=1e-5, atol=0)
    used = {name: float(weight) for name, weight in shares.weight.items()}
    assert_gradients_equal(gradients(scene), plain_gradients(kind, used, device=device), 2e-6)
    assert budget.undefined == 0
    at_cut = gradients_at_cut(kind)
    for name in names:
        assert_close(float(shares.norm[name]), float(used[name] * at_cut[name].norm()), rtol=1e-5, atol=0)


def test_weights_are_tamings_at_a_convolution_behind_two_cuts():
    """Of which one does not pass the layer."""
    scene, inputs = make(UNet)
    budget = LossBudget(scene.layer)
    weights = {"sparse": 0.3, "l1": 2.0, "gan": AdaptiveWeight(("l1", "both")), "both": 0.5}
    shares = budget.backward(scene.terms(budget.cut, *inputs), weights)
    oracle, inputs = make(UNet, torch.float64)
    terms = oracle.terms(uncut, *inputs)
    found = {
        name: torch.autograd.grad(terms[name], oracle.layer.weight, retain_graph=True)[0]
        for name in ("l1", "gan", "both")
    }
    expected = taming(2 * found["l1"] + 0.5 * found["both"], found["gan"])
    assert_close(float(shares.weight["gan"]), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_several_adaptive_weights_may_be_relative_to_one_term(layer):
    scene, inputs = make(Plain)
    budget = LossBudget(layer(scene) if layer else None)
    weights = {"l1": 3.0, "gan": AdaptiveWeight(("l1",)), "perceptual": AdaptiveWeight(["l1"], scale=0.1)}
    shares = budget.backward(scene.terms(budget.cut, *inputs), weights)
    found = gradients_at_cut(Plain) if layer is None else at_layer(Plain, lambda scene: scene.layer.weight)
    for name, scale in (("gan", 1.0), ("perceptual", 0.1)):
        expected = taming(3 * found["l1"], found[name], scale=scale)
        assert_close(float(shares.weight[name]), expected, rtol=1e-5, atol=0)


def test_weights_are_clamped():
    for clamp, bound in (((0.0, 1e-3), 1e-3), ((1e5, 1e6), 1e5)):
        *_, shares, names, _, _ = weighted(Plain, None, clamp=clamp, scale=2.0)
        assert_close(float(shares.weight[names[1]]), 2 * bound, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_scale_may_be_a_tensor_that_a_schedule_changes(dtype):
    scene, inputs = make(Plain)
    scale = torch.zeros((), dtype=dtype)
    weights = {"l1": 1.0, "perceptual": 1.0, "gan": AdaptiveWeight(("l1",), scale=scale)}
    budget = LossBudget(scene.layer)
    before = budget.backward(scene.terms(budget.cut, *inputs), weights)
    scale.fill_(0.5)
    after = budget.backward(scene.terms(budget.cut, *inputs), weights)
    assert before.weight["gan"] == 0 and after.weight["gan"] > 0 and budget.undefined == 0


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_finite_weights_near_those_of_float32(dtype, layer):
    def weight(dtype):
        scene, inputs = make(Plain, dtype)
        budget = LossBudget(layer(scene) if layer else None)
        terms = scene.terms(budget.cut, *inputs)
        shares = budget.backward(terms, {"l1": 1.0, "perceptual": 1.0, "gan": AdaptiveWeight(("l1",))})
        assert all(grad.isfinite().all() for grad in gradients(scene).values())
        return shares.weight["gan"].double()

    assert_close(weight(dtype), weight(torch.float64), rtol=0.05, atol=0)


@pytest.mark.parametrize("with_layer", [False, True])
@pytest.mark.parametrize(
    ("others", "own", "weight"),
    [
        (0.0, 1.0, 0.0), (1.0, 0.0, None), (0.0, 0.0, 0.0), (torch.inf, 1.0, 0.0), (torch.nan, 1.0, 0.0),
        (1.0, torch.inf, 0.0), (1.0, torch.nan, 0.0), (torch.inf, torch.inf, 0.0),
    ],
)  # fmt: skip
def test_norms_of_zero_and_infinity_give_defined_weights_and_are_counted(others, own, weight, with_layer):
    scene, (z, real) = make(Plain)
    budget = LossBudget(scene.layer if with_layer else None)
    for count in (1, 2):
        leaf = budget.cut(scene.generator(z))
        terms = {"l2": others * (leaf - real).square().sum(), "gan": own * scene.critic(leaf).sum()}
        shares = budget.backward(terms, {"l2": 1.0, "gan": AdaptiveWeight(("l2",), scale=0.5)})
        assert shares.weight["gan"].isfinite() and budget.undefined == count
        if weight is None:  # epsilon is all there is to divide by
            assert shares.weight["gan"] == 0.5 * 1e4
        else:
            assert shares.weight["gan"] == 0.5 * weight


def test_a_weight_of_the_layer_that_is_replaced_is_found():
    scene, inputs = make(Plain)
    budget = LossBudget(scene.layer)
    scene.layer.weight = nn.Parameter(scene.layer.weight.detach().clone())
    weights = {"l1": 1.0, "perceptual": 1.0, "gan": AdaptiveWeight(("l1",))}
    shares = budget.backward(scene.terms(budget.cut, *inputs), weights)
    found = at_layer(Plain, lambda scene: scene.layer.weight)
    assert_close(float(shares.weight["gan"]), taming(found["l1"], found["gan"]), rtol=1e-5, atol=0)


def test_the_layer_belongs_to_the_generator_alone():
    scene, _ = make(Plain)
    budget = LossBudget(scene.layer)
    assert not list(budget.parameters()) and not list(budget.children())
    assert budget.state_dict().keys() == {"averages", "counts", "undefined"}


def test_a_parametrized_layer_is_given_by_its_parameter():
    scene, inputs = make(Plain)
    nn.utils.parametrizations.weight_norm(scene.layer)
    with pytest.raises(ValueError, match="layer must have a parameter `weight`"):
        LossBudget(scene.layer)
    budget = LossBudget(scene.layer.parametrizations.weight.original1)
    weights = {"l1": 1.0, "perceptual": 1.0, "gan": AdaptiveWeight(("l1",))}
    shares = budget.backward(scene.terms(budget.cut, *inputs), weights)
    assert shares.weight["gan"] > 0


def test_cycles_count_where_they_pass_the_layer_again():
    scene, inputs = make(Cycle)
    budget = LossBudget(scene.layer)
    weights = {"gan": AdaptiveWeight(("cycle",)), "cycle": 10.0, "idempotent": 0.0}
    shares = budget.backward(scene.terms(budget.cut, *inputs), weights)
    found = at_layer(Cycle, lambda scene: scene.layer.weight)
    assert_close(float(shares.weight["gan"]), taming(10 * found["cycle"], found["gan"]), rtol=1e-5, atol=0)


def test_gradients_of_float16_are_scaled_for_the_comparison():
    """Without the scaler, the gradient of a mean over many pixels would vanish."""

    def weight(dtype, scaler):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4096).to(dtype)
        budget = LossBudget(layer)
        leaf = budget.cut(layer(torch.ones(16, 4, dtype=dtype)))
        terms = {"l2": 1e-2 * leaf.float().square().mean(), "l1": 1e-2 * leaf.float().abs().mean()}
        return budget.backward(terms, {"l2": 1.0, "l1": AdaptiveWeight(("l2",), epsilon=0.0)}, scaler=scaler)

    scaled = weight(torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**14))
    exact = weight(torch.float64, None)
    assert_close(scaled.weight["l1"].double(), exact.weight["l1"].double(), rtol=2e-3, atol=0)
    assert_close(scaled.norm["l2"].double(), exact.norm["l2"].double(), rtol=2e-3, atol=0)
    assert F.l1_loss(weight(torch.float16, None).norm["l2"].double(), exact.norm["l2"].double()) > 1e-7
