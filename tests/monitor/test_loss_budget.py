"""LossBudget: the gradients of a plain backward pass, and what autograd measures term by term."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from fastgan.monitor import AdaptiveWeight, LossBudget
from tests.conftest import DEVICES
from tests.monitor.scenes import (
    SCENES,
    Cycle,
    Plain,
    StyleUncut,
    UNet,
    assert_gradients_equal,
    assert_measures_equal,
    gradients,
    gradients_at_cut,
    make,
    mlp,
    plain_gradients,
    uncut,
    weights_of,
)


def run(kind, weights=None, how="backward", device="cpu", seed=0, dtype=torch.float32, **options):
    """(scene, shares) after a backward pass by LossBudget."""
    scene, inputs = make(kind, dtype, device, seed)
    budget = LossBudget()
    terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        return scene, budget.backward(terms, weights, **options)
    loss, shares = budget.loss(terms, weights, **options)
    loss.backward()
    return scene, shares


# --- gradients and measures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", SCENES)
def test_gradients_are_those_of_the_weighted_sum(kind, how, device):
    weights = weights_of(kind)
    scene, _ = run(kind, weights, how, device)
    assert_gradients_equal(gradients(scene), plain_gradients(kind, weights, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", SCENES)
def test_measures_are_those_of_autograd_per_term(kind, device):
    weights = weights_of(kind)
    _, shares = run(kind, weights, device=device)
    assert_measures_equal(shares, gradients_at_cut(kind), weights)
    assert_close(float(sum(shares.share.values())), 1.0)


def test_weights_are_one_by_default():
    weights = weights_of(Plain, (1.0,) * 3)
    scene, shares = run(Plain)
    assert_gradients_equal(gradients(scene), plain_gradients(Plain, weights))
    assert [weight.item() for weight in shares.weight.values()] == [1.0] * 3


def test_total_is_the_weighted_sum_of_the_values():
    weights = weights_of(UNet)
    scene, inputs = make(UNet)
    budget = LossBudget()
    terms = scene.terms(budget.cut, *inputs)
    expected = sum(weights[name] * term for name, term in terms.items())
    loss, shares = budget.loss(terms, weights)
    assert_close(shares.total, expected.detach())
    assert_close(loss, expected)
    assert loss.dim() == 0 and not shares.total.requires_grad and not shares.gram.requires_grad


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("kind", [Plain, UNet, StyleUncut])
def test_beside_is_added(kind, how):
    def beside(scene):
        return sum(p.square().sum() for p in scene.generator.parameters())

    weights = weights_of(kind)
    scene, inputs = make(kind)
    budget = LossBudget()
    terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        budget.backward(terms, weights, beside=beside(scene))
    else:
        budget.loss(terms, weights, beside=beside(scene)).loss.backward()
    assert_gradients_equal(gradients(scene), plain_gradients(kind, weights, beside=beside))


@pytest.mark.parametrize("how", ["backward", "loss"])
def test_beside_may_share_the_generators_graph(how):
    def terms_of(scene, z, real, cut):
        features = scene.generator[:2](z)
        fake = cut(scene.generator[2](features))
        return {"l2": F.mse_loss(fake, real), "gan": -scene.critic(fake).mean()}, features.square().mean()

    expected, inputs = make(Plain)
    terms, beside = terms_of(expected, *inputs, lambda x: x)
    (sum(terms.values()) + beside).backward()
    scene, inputs = make(Plain)
    budget = LossBudget()
    terms, beside = terms_of(scene, *inputs, budget.cut)
    if how == "backward":
        budget.backward(terms, beside=beside)
    else:
        loss, _ = budget.loss(terms, beside=beside)
        assert_close(loss, sum(terms.values()) + beside)
        loss.backward()
    assert_gradients_equal(gradients(scene), gradients(expected))


def test_beside_may_be_a_constant():
    scene, inputs = make(Plain)
    budget = LossBudget()
    budget.backward(scene.terms(budget.cut, *inputs), beside=torch.ones(()))
    assert_gradients_equal(gradients(scene), plain_gradients(Plain, weights_of(Plain, (1.0,) * 3)))


def test_gradients_add_to_those_that_are_there():
    weights = weights_of(Plain)
    scene, inputs = make(Plain)
    budget = LossBudget()
    for _ in range(2):
        budget.backward(scene.terms(budget.cut, *inputs), weights)
    twice = {name: 2 * grad for name, grad in plain_gradients(Plain, weights).items()}
    assert_gradients_equal(gradients(scene), twice)


def test_a_cut_that_no_term_uses_changes_nothing():
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    fake, unused = budget.cut(scene.generator(z), scene.generator(2 * z))
    shares = budget.backward({"l2": F.mse_loss(fake, real)})
    expected, (z, real) = make(Plain)
    loss = F.mse_loss(expected.generator(z), real)
    loss.backward()
    assert_gradients_equal(gradients(scene), gradients(expected))
    assert_close(shares.total, loss.detach())
    assert unused.shape == fake.shape


def test_what_is_not_measured_counts_nowhere():
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    fake = budget.cut(scene.generator(z), measured=False)
    shares = budget.backward({"l2": F.mse_loss(fake, real), "gan": scene.critic(fake).mean()})
    assert shares.gram.count_nonzero() == 0 and [*shares.share.values()] == [0, 0]
    assert shares.cosine("l2", "gan") == 0
    assert scene.generator[0].weight.grad.abs().sum() > 0


def test_terms_without_gradient_have_share_zero():
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    fake = budget.cut(scene.generator(z))
    terms = {"l2": F.mse_loss(fake, real), "none": (0 * fake).mean(), "round": fake.round().sum()}
    shares = budget.backward(terms)
    assert [shares.share[name].item() for name in shares.names] == [1, 0, 0]
    assert shares.cosine("l2", "none") == shares.cosine("none", "none") == 0
    assert_close(shares.cosine("l2", "l2").item(), 1.0)


def test_a_0d_output_may_be_a_term_itself():
    x = torch.tensor(3.0, requires_grad=True)
    budget = LossBudget()
    leaf = budget.cut(x * x)
    shares = budget.backward({"itself": leaf, "double": 2 * leaf})
    assert x.grad == 18 and shares.norm["double"] == 2


def test_a_term_may_use_the_output_beside_the_cut():
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    fake = scene.generator(z)
    leaf = budget.cut(fake)
    budget.backward({"l2": F.mse_loss(leaf, real), "both": (leaf * fake).mean()})
    expected, _ = make(Plain)
    fake = expected.generator(z)
    (F.mse_loss(fake, real) + (fake * fake).mean()).backward()
    assert_gradients_equal(gradients(scene), gradients(expected))


def test_hooks_of_the_output_see_the_sum_once():
    scene, (z, real) = make(Plain)
    budget, seen = LossBudget(), []
    fake = scene.generator(z)
    fake.register_hook(seen.append)
    fake.retain_grad()
    scene.critic[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    leaf = budget.cut(fake)
    budget.backward(
        {"l2": F.mse_loss(leaf, real), "gan": scene.critic(leaf).mean(), "more": scene.critic(leaf).sum()}
    )
    assert len(seen) == 2
    assert_close(fake.grad, next(s for s in seen if s.shape == fake.shape))
    assert_close(scene.critic[0].weight.grad, next(s for s in seen if s.shape != fake.shape))


@pytest.mark.parametrize("how", ["backward", "loss"])
def test_each_parameter_gets_its_gradient_once(how):
    """Also those of a generator that a term passes again: DDP begins to communicate when that happens."""
    scene, inputs = make(Cycle)
    budget, seen = LossBudget(), []
    for name, p in scene.named_parameters():
        p.register_post_accumulate_grad_hook(lambda _, name=name: seen.append(name))
    terms = scene.terms(budget.cut, *inputs)
    if how == "backward":
        budget.backward(terms)
    else:
        loss, _ = budget.loss(terms)
        assert not seen
        loss.backward()
    assert sorted(seen) == sorted(name for name, _ in scene.named_parameters())


def test_reentrant_checkpoints_are_for_the_generator_alone():
    """In heads torch refuses them, as in any `torch.autograd.grad`."""
    expected = plain_gradients(Plain, {"gan": 1.0, "l1": 2.0, "perceptual": 0.0})
    scene, (z, real) = make(Plain)
    budget = LossBudget()
    fake = checkpoint(scene.generator, z.requires_grad_(), use_reentrant=True)
    leaf = budget.cut(fake)
    terms = {"l1": F.l1_loss(leaf, real), "gan": F.softplus(-scene.critic(leaf)).mean()}
    budget.backward(terms, {"l1": 2.0, "gan": 1.0})
    assert_gradients_equal(gradients(scene), expected)
    leaf = budget.cut(scene.generator(z))
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        budget.backward({"gan": checkpoint(scene.critic, leaf, use_reentrant=True).mean()})


def test_sparse_gradients_of_a_heads_embedding():
    def gradient_of(wrap):
        torch.manual_seed(0)
        embedding, generator = nn.Embedding(5, 6, sparse=True), nn.Linear(4, 6)
        leaf, finish = wrap(generator(torch.ones(2, 4)))
        a, b = ((leaf * embedding(torch.tensor(rows))).sum() for rows in ([0, 1], [1, 3]))
        finish({"a": a, "b": b})
        return embedding.weight.grad.to_dense(), generator.weight.grad

    budget = LossBudget()
    actual = gradient_of(
        lambda fake: (budget.cut(fake), lambda terms: budget.backward(terms, {"a": 1.0, "b": 3.0}))
    )
    expected = gradient_of(lambda fake: (fake, lambda terms: (terms["a"] + 3 * terms["b"]).backward()))
    assert_close(actual, expected)


# --- loss() -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [4.0, 0.0, -0.25])
@pytest.mark.parametrize("kind", [Plain, Cycle, StyleUncut])
def test_a_factor_of_the_loss_scales_all_gradients(kind, factor):
    weights = weights_of(kind)
    scene, inputs = make(kind)
    budget = LossBudget()
    loss, _ = budget.loss(scene.terms(budget.cut, *inputs), weights)
    assert not gradients(scene)
    (factor * loss).backward()
    expected = {name: factor * grad for name, grad in plain_gradients(kind, weights).items()}
    assert_gradients_equal(gradients(scene), expected)


def test_a_loss_runs_backward_once():
    scene, inputs = make(Plain)
    budget = LossBudget()
    loss, _ = budget.loss(scene.terms(budget.cut, *inputs))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_a_loss_is_not_differentiable_twice():
    scene, inputs = make(Plain)
    budget = LossBudget()
    loss, _ = budget.loss(scene.terms(budget.cut, *inputs))
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss, scene.generator[0].weight, create_graph=True)


def test_a_loss_adds_to_other_losses():
    weights = weights_of(Plain)
    scene, inputs = make(Plain)
    budget = LossBudget()
    loss, _ = budget.loss(scene.terms(budget.cut, *inputs), weights)
    other = sum(p.square().sum() for p in scene.parameters() if p.requires_grad)
    (loss / 2 + other).backward()
    expected = plain_gradients(Plain, weights)
    for name, p in scene.named_parameters():
        if p.requires_grad:
            assert_close(p.grad, expected[name] / 2 + 2 * p.detach())


# --- what is kept and what is freed -------------------------------------------------------------------------


class Saved:
    """Counts the tensors that a graph has saved and still holds."""

    def __init__(self):
        self.alive = weakref.WeakSet()

    def pack(self, tensor):
        kept = Kept(tensor)
        self.alive.add(kept)
        return kept

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception):
        self.hooks.__exit__(*exception)


class Kept:
    def __init__(self, tensor):
        self.tensor = tensor.detach()  # without the node that saves its own result


def test_the_graphs_of_heads_are_freed_one_after_the_other():
    scene, (z, _) = make(Plain)
    budget, alive = LossBudget(), {}
    saved, terms = {}, {}
    with Saved() as saved["generator"]:
        leaf = budget.cut(scene.generator(z))
    for name in "abc":
        with Saved() as saved[name]:
            feature = mlp(6, 4, 2)(leaf)
            terms[name] = feature.square().mean()
        feature.register_hook(lambda _, name=name: alive.update({name: [n for n in saved if saved[n].alive]}))
    budget.backward(terms)
    assert alive == {"a": ["generator", *"abc"], "b": ["generator", *"bc"], "c": ["generator", "c"]}
    assert not any(each.alive for each in saved.values())


def test_only_what_terms_share_is_run_twice_and_then_freed():
    scene, (z, real) = make(Plain)
    budget, visits = LossBudget(), []
    leaf = budget.cut(scene.generator(z))
    with Saved() as shared:
        feature = scene.critic[0](leaf)
    feature.register_hook(visits.append)
    with Saved() as own:
        own_term = F.mse_loss(leaf, real)
    with Saved() as last:
        last_term = feature.square().mean()
    terms = {"gan": scene.critic[1:](feature).mean(), "l2": own_term, "feature": last_term}
    budget.backward(terms)
    assert len(visits) == 2 and not shared.alive and not own.alive and not last.alive


@pytest.mark.parametrize("how", ["backward", "loss"])
def test_nothing_is_left_of_a_step(how):
    """But what the caller holds: no cycle of references keeps a graph until the garbage collector comes."""
    gc.disable()
    try:
        scene, inputs = make(Cycle)
        budget = LossBudget()
        with Saved() as saved:
            terms = scene.terms(budget.cut, *inputs)
        fake = weakref.ref(budget._cuts[0].tensor)
        if how == "backward":
            shares = budget.backward(terms)
        else:
            loss, shares = budget.loss(terms)
            loss.backward()
            del loss
        del terms
        assert fake() is None and not saved.alive and shares.total.isfinite()
    finally:
        gc.enable()


def test_cuts_can_be_discarded():
    scene, inputs = make(Plain)
    budget = LossBudget()
    with Saved() as saved:
        scene.terms(budget.cut, *inputs)
    assert saved.alive
    budget.discard()
    assert not saved.alive
    with pytest.raises(ValueError, match="no cut"):
        budget.backward({"a": torch.ones((), requires_grad=True)})


# --- costs --------------------------------------------------------------------------------------------------


class Refused(TorchDispatchMode):
    """Fails where a value is read from the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (
            torch.ops.aten._local_scalar_dense, torch.ops.aten.item, torch.ops.aten.equal,
            torch.ops.aten.nonzero, torch.ops.aten.is_nonzero, torch.ops.aten.masked_select,
        ), func  # fmt: skip
        return func(*args, **(kwargs or {}))


OPTIONS = {
    "numbers": {"weights": {"gan": 1.0, "l2": 0.1}},
    "tensors": {"weights": {"gan": torch.tensor(0.5), "l2": 1.0}},
    "adaptive": {"weights": {"gan": AdaptiveWeight(("l2",), scale=torch.tensor(0.1)), "l2": 1.0}},
    "shares": {"shares": {"gan": 0.5, "l2": 1.0}},
    "scaler": {"weights": {"gan": AdaptiveWeight(("l2",)), "l2": 1.0}, "scaler": torch.amp.GradScaler("cpu")},
}


def small_terms(scene, budget, z, real):
    leaf = budget.cut(scene.generator(z))
    return {"gan": -scene.critic(leaf).mean(), "l2": F.mse_loss(leaf, real)}


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize("with_layer", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_nothing_waits_for_the_device(options, with_layer, how):
    scene, inputs = make(Plain)
    budget = LossBudget(scene.layer if with_layer else None)
    budget.backward(small_terms(scene, budget, *inputs), **options)
    with Refused():
        terms = small_terms(scene, budget, *inputs)
        if how == "backward":
            shares = budget.backward(terms, **options)
        else:
            loss, shares = budget.loss(terms, **options)
            loss.backward()
        shares.cosine("gan", "l2")
        repr(shares)


@pytest.mark.gpu
@pytest.mark.parametrize("with_layer", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_nothing_waits_for_the_gpu(options, with_layer):
    scene, inputs = make(Plain, device="cuda")
    options = {**options, **({"scaler": torch.amp.GradScaler("cuda")} if "scaler" in options else {})}
    budget = LossBudget(scene.layer if with_layer else None)
    budget.backward(small_terms(scene, budget, *inputs), **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        budget.backward(small_terms(scene, budget, *inputs), **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_operation_of_the_networks_is_run_twice():
    """For heads of their own: the sweeps at the cut are all that is added."""
    generator = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 3, 3, 1, 1))
    heads = {name: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)) for name in "abc"}
    z = torch.rand(2, 3, 24, 24)

    def count(cut, finish):
        leaf = cut(generator(z))
        terms = {name: head(leaf).square().mean() for name, head in heads.items()}
        with FlopCounterMode(display=False) as counter:
            finish(terms)
        return counter.get_total_flops()

    budget = LossBudget()
    plain = count(uncut, lambda terms: sum(terms.values()).backward())
    assert plain <= count(budget.cut, budget.backward) <= 1.01 * plain
