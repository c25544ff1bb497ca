"""LossBudget with half precision, autocast, gradient scaling, accumulation and compiled networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.losses import R1
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

WEIGHTS = {"l1": 1.0, "gan": 0.1, "perceptual": 3.0}
ADAPTIVE = {**WEIGHTS, "gan": AdaptiveWeight(("l1", "perceptual"))}


def compare(kind, weights, how="backward", region=None, dtype=torch.float32, relative=1e-6):
    """The gradients with and without a budget, of terms computed in the region."""
    expected, inputs = make(kind, dtype)
    region = region or torch.autocast("cpu", enabled=False)
    with copy.copy(region):
        terms = expected.terms(uncut, *inputs)
        loss = sum(weights[name] * term for name, term in terms.items())
    loss.backward()
    scene, inputs = make(kind, dtype)
    budget = LossBudget()
    with copy.copy(region):
        terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        shares = budget.backward(terms, weights)
    else:
        loss, shares = budget.loss(terms, weights)
        loss.backward()
    assert_gradients_equal(gradients(scene), gradients(expected), relative)
    return shares


# --- dtypes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", SCENES)
def test_float64_is_exact(kind, how):
    weights = weights_of(kind)
    shares = compare(kind, weights, how, dtype=torch.float64, relative=1e-13)
    for name, gradient in gradients_at_cut(kind).items():
        assert_close(shares.norm[name], weights[name] * gradient.norm(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", [Plain, Cycle, UNet])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.bfloat16, 2.0**-6), (torch.float16, 2.0**-8)])
def test_half_precision_is_as_good_as_without(dtype, relative, kind, how):
    weights = weights_of(kind)
    shares = compare(kind, weights, how, dtype=dtype, relative=relative)
    for name, gradient in gradients_at_cut(kind).items():
        assert shares.norm[name].dtype == torch.float32
        assert_close(shares.norm[name].double(), weights[name] * gradient.norm(), rtol=0.03, atol=0)


def test_only_the_output_may_be_of_half_precision():
    """A float16 leaf between float32 networks."""
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    leaf = budget.cut(scene.generator(z).half())
    assert leaf.dtype == torch.float16
    terms = {"l2": F.mse_loss(leaf.float(), real), "gan": scene.critic(leaf.float()).mean()}
    shares = budget.backward(terms, {"l2": torch.tensor(2.0, dtype=torch.float64), "gan": 1})
    expected, (z, real) = make(Plain)
    fake = expected.generator(z).half()
    (2 * F.mse_loss(fake.float(), real) + expected.critic(fake.float()).mean()).backward()
    assert_gradients_equal(gradients(scene), gradients(expected), 2e-3)
    assert shares.gram.dtype == torch.float32


def test_cuts_may_differ_in_precision():
    scene, (z, real) = make(Plain)
    budget = LossBudget(decay=0.0)
    fake = scene.generator(z)
    half, double = budget.cut(fake.half(), fake.double())
    terms = {"l2": F.mse_loss(half.float(), real), "l1": (double - real).abs().mean()}
    shares = budget.backward(terms, shares={"l2": 1.0, "l1": 3.0})
    assert_close(float(shares.share["l1"]), 0.75, rtol=1e-5, atol=0)
    assert scene.generator[0].weight.grad.isfinite().all()


# --- autocast -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", SCENES)
def test_autocast(kind, how):
    weights = weights_of(kind)
    region = torch.autocast("cpu", dtype=torch.bfloat16)
    shares = compare(kind, weights, how, region, relative=2.0**-6)
    assert all(norm.isfinite() for norm in shares.norm.values())


def test_measures_within_an_autocast_region_are_those_outside():
    """Called there, as some trainers do."""

    def measures(**region):
        scene, (z, real) = make(Plain)
        budget = LossBudget()
        leaf = budget.cut(scene.generator(z))
        terms = {"l2": F.mse_loss(leaf, real), "l1": F.l1_loss(leaf, real)}
        with torch.autocast("cpu", dtype=torch.bfloat16, **region):
            shares = budget.backward(terms, shares={"l2": 1.0, "l1": 2.0})
        return shares.gram, torch.stack(list(shares.weight.values()))

    assert_close(measures(), measures(enabled=False), rtol=1e-6, atol=0)


# --- gradient scaling ---------------------------------------------------------------------------------------


def scaler(scale=1024.0, **options):
    return torch.amp.GradScaler("cpu", init_scale=scale, **options)


@pytest.mark.parametrize("options", [{"weights": WEIGHTS}, {"weights": ADAPTIVE}, {"shares": WEIGHTS}])
@pytest.mark.parametrize("with_layer", [False, True])
@pytest.mark.parametrize("how", ["backward", "loss"])
def test_a_scaler_scales_gradients_and_not_what_is_measured(how, with_layer, options):
    def step(scaler):
        scene, inputs = make(Plain)
        budget = LossBudget(scene.layer if with_layer else None)
        terms, beside = scene.terms(budget.cut, *inputs), scene.layer.bias.square().sum()
        if how == "backward":
            shares = budget.backward(terms, scaler=scaler, beside=beside, **options)
        else:
            loss, shares = budget.loss(terms, scaler=scaler, beside=beside, **options)
            (loss if scaler is None else scaler.scale(loss)).backward()
        return gradients(scene), shares

    plain, expected = step(None)
    scaled, actual = step(scaler())
    assert_gradients_equal(scaled, {name: 1024 * grad for name, grad in plain.items()})
    assert_close(actual.gram, expected.gram, rtol=1e-5, atol=1e-12)
    assert_close(actual.total, expected.total)
    assert_close(dict(actual.weight), dict(expected.weight), rtol=1e-5, atol=0)
    same, _ = step(torch.amp.GradScaler("cpu", enabled=False))
    assert_gradients_equal(same, plain)


@pytest.mark.parametrize("weights", [WEIGHTS, ADAPTIVE])
def test_terms_may_be_scaled_beforehand(weights):
    def step(scale):
        scene, inputs = make(Plain)
        budget = LossBudget()
        terms = {name: scale * term for name, term in scene.terms(budget.cut, *inputs).items()}
        return gradients(scene), budget.backward(terms, weights), gradients(scene)

    _, expected, plain = step(1.0)
    _, actual, scaled = step(1024.0)
    for name in WEIGHTS:
        # epsilon counts less.
        assert_close(
            actual.share[name], expected.share[name], rtol=2e-3 if weights is ADAPTIVE else 1e-5, atol=0
        )
    if weights is WEIGHTS:
        assert_gradients_equal(scaled, {name: 1024 * grad for name, grad in plain.items()})


@pytest.mark.parametrize("how", ["backward", "loss"])
def test_a_trainers_scale_may_be_beyond_float16(how):
    """65536, which GradScaler begins with."""
    layer, x = nn.Linear(4, 8).half(), torch.ones(2, 4).half()
    big = scaler(65536.0)
    budget = LossBudget()
    loss, _ = budget.loss({"l2": 1e-4 * budget.cut(layer(x)).float().square().mean()})
    if how == "loss":
        big.scale(loss).backward()
    else:
        (65536 * loss).backward()
    exact, x = copy.deepcopy(layer).double(), x.double()
    exact.zero_grad()
    (65536e-4 * exact(x).square().mean()).backward()
    assert_close(layer.weight.grad.double(), exact.weight.grad, rtol=0.05, atol=1e-4)


def test_scales_may_grow_beyond_what_squares_hold():
    """In bfloat16 nothing ever overflows, and the scale doubles every 2000 steps."""
    scene, (z, real) = make(Plain)
    expected = step_of(scene, None, z, real)
    actual = step_of(scene, scaler(2.0**60), z, real)
    assert_close(actual.gram, expected.gram, rtol=1e-5, atol=0)


def step_of(scene, scaler, z, real):
    budget = LossBudget()
    leaf = budget.cut(scene.generator(z))
    return budget.backward({"l2": F.mse_loss(leaf, real), "l1": F.l1_loss(leaf, real)}, scaler=scaler)


@pytest.mark.parametrize("options", [{"weights": WEIGHTS}, {"weights": ADAPTIVE}, {"shares": WEIGHTS}])
def test_steps_with_gradients_that_are_not_finite_are_left_out(options):
    scene, (z, real) = make(Plain)
    budget, scale = LossBudget(decay=0.5), scaler()
    optimizer = torch.optim.SGD(scene.generator.parameters(), lr=0.1)
    before = copy.deepcopy(scene.generator.state_dict())
    for factor in (torch.inf, 1.0):
        optimizer.zero_grad()
        terms = scene.terms(budget.cut, z, real)
        terms["l1"] = terms["l1"] * factor
        shares = budget.backward(terms, scaler=scale, **options)
        scale.step(optimizer)
        scale.update()
        same = all(torch.equal(before[name], value) for name, value in scene.generator.state_dict().items())
        assert same == (factor == torch.inf)
    assert scale.get_scale() == 512
    assert all(share.isfinite() for share in shares.share.values())


# --- accumulation, penalties --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", [Plain, Cycle, UNet])
def test_micro_batches_add_up_to_the_batch(kind, how):
    weights = weights_of(kind)
    if kind is UNet:
        weights["both"] = 0.0  # a product of means is no mean
    scene, inputs = make(kind)
    parts = [scene, copy.deepcopy(scene)]
    halves = list(zip(*(x.chunk(2) for x in inputs), strict=True))
    budget = LossBudget()
    for half in halves:
        terms = scene.terms(budget.cut, *half)
        if how == "backward":
            budget.backward(terms, {name: weight / 2 for name, weight in weights.items()})
        else:
            (budget.loss(terms, weights).loss / 2).backward()
    terms = parts[1].terms(uncut, *inputs)
    sum(weights[name] * term for name, term in terms.items()).backward()
    assert_gradients_equal(gradients(scene), gradients(parts[1]), 3e-6)


def test_r1_beside_it():
    """Of the discriminator's own loss, before and after, and as a part of the generator's step."""
    expected, (z, real) = make(Plain)
    penalty = R1(expected.critic, 1.0, 1)(real, 0).loss
    (sum(WEIGHTS[name] * term for name, term in expected.terms(uncut, z, real).items()) + penalty).backward()
    scene, (z, real) = make(Plain)
    budget, r1 = LossBudget(), R1(scene.critic, 1.0, 1)
    budget.backward(scene.terms(budget.cut, z, real), WEIGHTS, beside=r1(real, 0).loss)
    assert_gradients_equal(gradients(scene), gradients(expected))
    scene.zero_grad()
    terms = scene.terms(budget.cut, z, real)
    r1(real, 0).loss.backward()
    budget.backward(terms, WEIGHTS)
    assert_gradients_equal(gradients(scene), gradients(expected))


# --- compiled networks --------------------------------------------------------------------------------------


@pytest.fixture
def compiled():
    torch.compiler.reset()
    yield lambda module: torch.compile(module, backend="aot_eager")
    torch.compiler.reset()


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", [Plain, Cycle])
def test_compiled_networks(compiled, kind, how):
    weights = weights_of(kind)
    scene, inputs = make(kind)
    budget = LossBudget()
    expected = plain_gradients(kind, weights)
    critic, generator = scene.critic, scene.generator
    scene.critic, scene.generator = compiled(critic), compiled(generator)
    terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        budget.backward(terms, weights)
    else:
        budget.loss(terms, weights).loss.backward()
    named = {f"critic.{n}": p.grad for n, p in critic.named_parameters()}
    named |= {f"generator.{n}": p.grad for n, p in generator.named_parameters()}
    assert_gradients_equal(named, expected, 2e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_a_compiled_generator_with_its_last_layer(compiled, whole):
    def step(compile_it):
        scene, inputs = make(Plain)
        budget = LossBudget(scene.layer)
        layers = scene.generator
        if compile_it:
            scene.generator = compiled(layers) if whole else nn.Sequential(compiled(layers[:-1]), layers[-1])
        shares = budget.backward(scene.terms(budget.cut, *inputs), ADAPTIVE)
        return shares.weight["gan"], [p.grad for p in layers.parameters()]

    assert_close(step(True), step(False), rtol=1e-5, atol=1e-7)


def test_terms_of_one_compiled_pass(compiled):
    def step(compile_it):
        scene, (z, _) = make(Plain)
        critic = compiled(scene.critic) if compile_it else scene.critic
        budget = LossBudget()
        leaf = budget.cut(scene.generator(z))
        logits = critic(leaf)
        shares = budget.backward({"gan": -logits.mean(), "square": logits.square().mean()})
        return shares.gram, [p.grad for p in scene.critic.parameters()]

    assert_close(step(True), step(False), rtol=1e-5, atol=1e-7)


def test_a_compiled_pass_whose_buffers_are_donated_says_what_to_do(compiled):
    """Compiled for a first backward pass that was not to be repeated, as that of a step without a budget."""
    scene, (z, _) = make(Plain)
    critic = compiled(scene.critic)
    critic(scene.generator(z).detach().requires_grad_()).mean().backward()
    budget = LossBudget()
    logits = critic(budget.cut(scene.generator(z)))
    with pytest.raises(RuntimeError, match=r"donated_buffer = False before it is compiled"):
        budget.backward({"gan": -logits.mean(), "square": logits.square().mean()})


def test_a_half_precision_term_is_scaled_with_its_weight():
    """65536, the scale that a GradScaler begins with, is infinite in float16; a tenth of it is not."""
    weight = torch.ones(4, requires_grad=True)
    budget = LossBudget()
    leaf = budget.cut((weight * 2).half())
    shares = budget.backward({"a": leaf.mean(), "b": leaf.float().mean()}, {"a": 0.1, "b": 1e-3},
                             scaler=scaler(65536.0))  # fmt: skip
    assert shares.norm["a"].isfinite() and weight.grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_budget_follows_its_cuts_to_their_device(device):
    scene, inputs = make(Plain, device=device)
    budget = LossBudget()
    budget.backward(scene.terms(budget.cut, *inputs), ADAPTIVE)
    assert budget.undefined.device.type == device
