"""Bad input of LossBudget, and what is left after it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan.monitor import AdaptiveWeight, LossBudget
from tests.monitor.scenes import Plain, assert_gradients_equal, gradients, make, plain_gradients, weights_of

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def scene():
    return make(Plain)[0]


@pytest.fixture
def fake(scene):
    return scene.generator(make(Plain)[1][0])


def terms_of(fake, names=("l1", "gan")):
    return {name: (fake * (i + 1)).square().mean() for i, name in enumerate(names)}


def backward(budget, *arguments, how="backward", **options):
    return getattr(budget, how)(*arguments, **options)


# --- construction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"layer": "last"}, TypeError, "layer must be a module"),
        ({"layer": nn.Tanh()}, ValueError, "layer must have a parameter `weight`.*Tanh"),
        ({"layer": torch.ones(2, 2)}, TypeError, "layer"),
        ({"decay": 1.0}, ValueError, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, ValueError, "decay"),
        ({"decay": NAN}, ValueError, "decay"),
        ({"decay": "0.9"}, TypeError, "decay"),
        ({"total_norm": 0.0}, ValueError, "total_norm must be positive, got 0.0"),
        ({"total_norm": INF}, ValueError, "total_norm"),
        ({"total_norm": True}, TypeError, "total_norm"),
    ],
)
def test_constructor(arguments, kind, message):
    with pytest.raises(kind, match=message):
        LossBudget(**arguments)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"relative_to": "l1"}, TypeError, "relative_to must be names of terms"),
        ({"relative_to": ()}, TypeError, "relative_to"),
        ({"relative_to": (1,)}, TypeError, "relative_to"),
        ({"relative_to": None}, TypeError, "relative_to"),
        ({"relative_to": {"l1"}}, TypeError, "relative_to"),
        ({"relative_to": ("l1", "l1")}, ValueError, "relative_to must name each term once"),
        ({"scale": "1"}, TypeError, "scale"),
        ({"scale": NAN}, ValueError, "scale"),
        ({"scale": True}, TypeError, "scale"),
        ({"scale": torch.ones(2)}, ValueError, "scale"),
        ({"scale": torch.ones((), requires_grad=True)}, ValueError, "scale must be detached"),
        ({"clamp": (1.0, 0.0)}, ValueError, r"clamp must be in order, got \(1.0, 0.0\)"),
        ({"clamp": 1.0}, TypeError, "clamp"),
        ({"clamp": (0.0, INF)}, ValueError, "clamp"),
        ({"epsilon": -1e-4}, ValueError, "epsilon"),
        ({"epsilon": None}, TypeError, "epsilon"),
    ],
)
def test_adaptive_weight(arguments, kind, message):
    with pytest.raises(kind, match=message):
        AdaptiveWeight(**{"relative_to": ("l1",), **arguments})


def test_a_budget_is_not_called(fake):
    with pytest.raises(TypeError, match="cut and backward"):
        LossBudget()(fake)


# --- cut ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "kind", "message"),
    [
        ((), TypeError, "at least one tensor"),
        ((None,), TypeError, "tensor must be a floating-point tensor, got None"),
        (([torch.ones(2)],), TypeError, "tensor"),
        ((torch.ones(2, dtype=torch.int64),), TypeError, "tensor"),
        ((torch.ones(2, dtype=torch.complex64, requires_grad=True) * 1,), TypeError, "tensor"),
        ((torch.ones(2),), ValueError, "tensor must have a graph to cut"),
        ((torch.ones(2, requires_grad=True),), ValueError, "tensor must have a graph to cut"),
        ((torch.ones(0, requires_grad=True) * 1,), ValueError, r"tensor must not be empty, got shape \(0,\)"),
        (
            (torch.ones(2, requires_grad=True) * 1, torch.ones(2)),
            ValueError,
            r"tensors\[1\] must have a graph",
        ),
    ],
)
def test_cut(tensors, kind, message):
    budget = LossBudget()
    with pytest.raises(kind, match=message):
        budget.cut(*tensors)
    with pytest.raises(ValueError, match="no cut"):
        budget.backward({"a": torch.ones((), requires_grad=True) * 1})


def test_cut_takes_a_flag(fake):
    with pytest.raises(TypeError, match="measured"):
        LossBudget().cut(fake, measured="no")


def test_a_tensor_is_cut_once(fake):
    budget = LossBudget()
    with pytest.raises(ValueError, match=r"tensors\[1\] has been cut already"):
        budget.cut(fake, fake)
    leaf = budget.cut(fake)
    with pytest.raises(ValueError, match="tensor has been cut already"):
        budget.cut(fake)
    with pytest.raises(ValueError, match="tensor is computed from what an earlier cut returned"):
        budget.cut(leaf)
    budget.backward(terms_of(leaf))


def test_a_generator_does_not_use_what_was_cut(scene):
    """Its gradient would end there, unseen."""
    budget = LossBudget()
    style = budget.cut(scene.generator[0](torch.ones(4, 5)), measured=False)
    with pytest.raises(ValueError, match="tensor is computed from what an earlier cut returned"):
        budget.cut(scene.generator[1:](style))


def test_a_graph_is_needed(scene):
    budget = LossBudget()
    with torch.no_grad():
        fake = scene.generator(torch.ones(4, 5))
    with pytest.raises(ValueError, match="outside of torch.no_grad"):
        budget.cut(fake)


# --- backward and loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize(
    ("make_terms", "kind", "message"),
    [
        (lambda x: None, TypeError, "terms must map names to losses"),
        (lambda x: [x.mean()], TypeError, "terms"),
        (lambda x: {}, ValueError, "terms must be 1 to 16 losses, got a dict of 0"),
        (
            lambda x: {str(i): x.mean() for i in range(17)},
            ValueError,
            "terms must be 1 to 16 losses, got a dict of 17",
        ),
        (lambda x: {1: x.mean()}, TypeError, "name of a term must be a string, got int 1"),
        (lambda x: {"a": x.mean(), "b": x.mean(0)}, ValueError, r"terms\['b'\] must be a 0-d tensor"),
        (lambda x: {"a": x.mean().reshape(1)}, ValueError, r"terms\['a'\] must be a 0-d tensor"),
        (lambda x: {"a": 1.0}, TypeError, r"terms\['a'\]"),
        (lambda x: {"a": None}, TypeError, r"terms\['a'\]"),
        (lambda x: {"a": x.argmax()}, TypeError, r"terms\['a'\] must be a floating-point tensor"),
        (
            lambda x: {"a": x.mean(), "b": torch.ones(())},
            ValueError,
            r"terms\['b'\] does not depend on a cut",
        ),
        (lambda x: {"a": x.detach().mean()}, ValueError, r"terms\['a'\] does not depend on a cut"),
        (
            lambda x: {"a": (torch.ones((), requires_grad=True) * 2)},
            ValueError,
            r"terms\['a'\] does not depend on a cut",
        ),
    ],
)
def test_terms(fake, make_terms, kind, message, how):
    budget = LossBudget()
    terms = make_terms(budget.cut(fake))
    with pytest.raises(kind, match=message):
        backward(budget, terms, how=how)


def test_a_term_of_the_output_itself_is_named(fake):
    budget = LossBudget()
    leaf = budget.cut(fake)
    with pytest.raises(ValueError, match=r"terms\['gan'\] does not depend on a cut"):
        budget.backward({"l1": leaf.mean(), "gan": fake.mean()})


def test_backward_needs_a_cut_each_time(fake):
    budget = LossBudget()
    with pytest.raises(ValueError, match="no cut to run backward from"):
        budget.backward({"l1": fake.mean()})
    terms = terms_of(budget.cut(fake))
    budget.backward(terms)
    with pytest.raises(ValueError, match="no cut to run backward from"):
        budget.backward(terms)


GOOD = {"l1": 1.0, "gan": 1.0}


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        (1.0, TypeError, "weights must map the terms' names"),
        ([1.0, 1.0], TypeError, "weights"),
        ({}, ValueError, "weights must name the same terms as terms, got none for gan, l1"),
        ({"l1": 1.0}, ValueError, "weights must name the same terms as terms, got none for gan"),
        ({**GOOD, "r1": 1.0}, ValueError, "got some for r1"),
        ({"l1": 1.0, "GAN": 1.0}, ValueError, "got none for gan and some for GAN"),
        ({**GOOD, 3: 1.0}, ValueError, "got some for 3"),
        ({**GOOD, "gan": True}, TypeError, r"weights\['gan'\]"),
        ({**GOOD, "gan": "1"}, TypeError, r"weights\['gan'\]"),
        ({**GOOD, "gan": None}, TypeError, r"weights\['gan'\]"),
        ({**GOOD, "gan": NAN}, ValueError, r"weights\['gan'\] must be finite, got nan"),
        ({**GOOD, "gan": -INF}, ValueError, r"weights\['gan'\] must be finite, got -inf"),
        ({**GOOD, "gan": torch.ones(1)}, ValueError, r"weights\['gan'\] must be a number or a 0-d tensor"),
        ({**GOOD, "gan": torch.ones((), dtype=torch.complex64)}, TypeError, r"weights\['gan'\]"),
        (
            {**GOOD, "gan": torch.ones((), requires_grad=True)},
            ValueError,
            r"weights\['gan'\] must be detached",
        ),
        ({**GOOD, "gan": AdaptiveWeight(("r1",))}, ValueError, r"weights\['gan'\].*got 'r1'"),
        ({**GOOD, "gan": AdaptiveWeight(("gan",))}, ValueError, r"weights\['gan'\].*got 'gan'"),
        (
            {"l1": AdaptiveWeight(("gan",)), "gan": AdaptiveWeight(("l1",))},
            ValueError,
            r"weights\['l1'\].*got 'gan'",
        ),
    ],
)
def test_weights(fake, weights, kind, message, how):
    budget = LossBudget()
    terms = terms_of(budget.cut(fake))
    with pytest.raises(kind, match=message):
        backward(budget, terms, weights, how=how)
    backward(budget, terms, GOOD, how=how)  # the cut is still there


@pytest.mark.parametrize("how", ["backward", "loss"])
@pytest.mark.parametrize(
    ("shares", "kind", "message"),
    [
        (0.5, TypeError, "shares must map the terms' names"),
        ({}, ValueError, "shares must name 1 to 16 terms, got a dict of 0"),
        ({str(i): 1.0 for i in range(17)}, ValueError, "shares must name 1 to 16 terms, got a dict of 17"),
        ({"l1": 1.0}, ValueError, "shares must name every term, got none for gan"),
        ({**GOOD, "gan": -1.0}, ValueError, r"shares\['gan'\] must not be negative, got -1.0"),
        ({**GOOD, "gan": NAN}, ValueError, r"shares\['gan'\]"),
        ({**GOOD, "gan": True}, TypeError, r"shares\['gan'\]"),
        ({**GOOD, "gan": torch.ones(())}, TypeError, r"shares\['gan'\]"),
        ({**GOOD, "gan": AdaptiveWeight(("l1",))}, TypeError, r"shares\['gan'\]"),
        ({"l1": 0.0, "gan": 0.0}, ValueError, "shares of the terms must not all be 0"),
        ({**GOOD, 1: 1.0}, TypeError, "name in shares must be a string, got int 1"),
    ],
)
def test_shares(fake, shares, kind, message, how):
    budget = LossBudget()
    terms = terms_of(budget.cut(fake))
    with pytest.raises(kind, match=message):
        backward(budget, terms, shares=shares, how=how)
    backward(budget, terms, shares=GOOD, how=how)


def test_weights_and_shares_exclude_each_other(fake):
    budget = LossBudget()
    with pytest.raises(ValueError, match="weights and shares exclude each other"):
        budget.backward(terms_of(budget.cut(fake)), GOOD, shares=GOOD)


def test_names_of_shares_stay(scene):
    budget = LossBudget()
    z = torch.ones(4, 5)
    budget.backward(terms_of(budget.cut(scene.generator(z))), shares=GOOD)
    for others in ({**GOOD, "r1": 1.0}, {"gan": 1.0, "l1": 1.0}):
        terms = terms_of(budget.cut(scene.generator(z)))
        with pytest.raises(
            ValueError, match="same terms in every call, in the same order, got .* after l1, gan"
        ):
            budget.backward(terms, shares=others)
        budget.discard()
    # The numbers may change.
    shares = budget.backward(terms_of(budget.cut(scene.generator(z))), shares={"l1": 0.0, "gan": 3.0})
    assert shares.share["gan"] == 1


@pytest.mark.parametrize(
    ("beside", "kind", "message"),
    [
        (1.0, TypeError, "beside"),
        (torch.ones(2), ValueError, "beside must be a 0-d tensor"),
        (torch.ones((), dtype=torch.int64), TypeError, "beside"),
    ],
)
def test_beside(fake, beside, kind, message):
    budget = LossBudget()
    with pytest.raises(kind, match=message):
        budget.backward(terms_of(budget.cut(fake)), beside=beside)


def test_beside_does_not_depend_on_a_cut(fake):
    budget = LossBudget()
    leaf = budget.cut(fake)
    with pytest.raises(ValueError, match="beside must not depend on a cut"):
        budget.backward(terms_of(leaf), beside=leaf.mean())


def test_scaler(fake):
    budget = LossBudget()
    with pytest.raises(TypeError, match="scaler must be a torch.amp.GradScaler or None, got float"):
        budget.backward(terms_of(budget.cut(fake)), scaler=1024.0)


# --- layers and heads ---------------------------------------------------------------------------------------

ADAPTIVE = {"l1": 1.0, "gan": AdaptiveWeight(("l1",))}


def test_a_frozen_layer(scene, fake):
    budget = LossBudget(scene.layer)
    scene.layer.weight.requires_grad_(False)
    terms = terms_of(budget.cut(scene.generator(torch.ones(4, 5))))
    with pytest.raises(ValueError, match="layer must be trained.*frozen"):
        budget.backward(terms, ADAPTIVE)
    budget.backward(terms, GOOD)  # which does not look at the layer


def test_a_layer_that_is_not_reached(scene, fake):
    budget = LossBudget(scene.critic[0])
    with pytest.raises(ValueError, match="layer has no part in what was cut: no gradient of l1 reaches"):
        budget.backward(terms_of(budget.cut(fake)), ADAPTIVE)


def test_a_layer_that_one_term_does_not_reach(scene):
    budget = LossBudget(scene.layer)
    hidden = scene.generator[0](torch.ones(4, 5))
    hidden, fake = budget.cut(hidden, scene.generator[1:](hidden))
    with pytest.raises(ValueError, match="no gradient of gan reaches"):
        budget.backward({"l1": fake.mean(), "gan": hidden.mean()}, ADAPTIVE)


@pytest.mark.parametrize("how", ["backward", "loss"])
def test_hooks_of_a_heads_parameters(scene, fake, how):
    budget = LossBudget()
    handle = scene.critic[0].weight.register_hook(lambda grad: grad / 2)
    leaf = budget.cut(fake)
    terms = {"l1": leaf.mean(), "gan": scene.critic(leaf).mean()}
    with pytest.raises(RuntimeError, match=r"terms\['gan'\] has trained parameters with tensor hooks"):
        backward(budget, terms, how=how)
    handle.remove()
    backward(budget, terms, how=how)


def test_hooks_of_the_generators_parameters_run_once():
    scene, inputs = make(Plain)
    seen = []
    scene.generator[0].weight.register_hook(lambda grad: seen.append(grad) or grad / 2)
    budget = LossBudget()
    weights = weights_of(Plain)
    budget.backward(scene.terms(budget.cut, *inputs), weights)
    expected = plain_gradients(Plain, weights)
    expected["generator.0.weight"] /= 2
    assert len(seen) == 1
    assert_gradients_equal(gradients(scene), expected)


def test_graphs_of_terms_that_were_run_before_are_refused_by_torch(fake):
    budget = LossBudget()
    leaf = budget.cut(fake)
    terms = {"l1": leaf.square().mean(), "gan": leaf.exp().mean()}
    terms["gan"].backward()
    with pytest.raises(RuntimeError, match="second time"):
        budget.backward(terms)
    with pytest.raises(ValueError, match="no cut"):  # nothing of the step is left
        budget.backward(terms)


# --- what is not an error -----------------------------------------------------------------------------------


def test_nan_is_not_an_error(fake, scene):
    budget = LossBudget()
    leaf = budget.cut(fake)
    terms = {"l1": leaf.mean(), "nan": leaf.mean() * NAN, "inf": leaf.square().sum() * INF}
    shares = budget.backward(terms, {"l1": 1.0, "nan": torch.tensor(1.0), "inf": 1.0})
    assert shares.norm["l1"].isfinite() and not shares.total.isfinite()
    for name in ("nan", "inf"):
        assert not shares.norm[name].isfinite() and not shares.share[name].isfinite()
        assert not shares.cosine("l1", name).isfinite()
    assert not scene.generator[0].weight.grad.isfinite().all()


def test_unknown_names_of_measures(fake):
    budget = LossBudget()
    shares = budget.backward(terms_of(budget.cut(fake)))
    with pytest.raises(ValueError, match="first must be one of l1, gan, got 'r1'"):
        shares.cosine("r1", "l1")
    with pytest.raises(ValueError, match="second must be one of l1, gan, got 0"):
        shares.cosine("l1", 0)
    assert repr(shares) == "Shares of l1, gan"


def test_integers_and_numpy_numbers_are_weights(fake):
    numpy = pytest.importorskip("numpy")
    budget = LossBudget()
    weights = {"l1": 2, "gan": numpy.float32(0.5)}
    shares = budget.backward(terms_of(budget.cut(fake)), weights)
    assert [float(w) for w in shares.weight.values()] == [2, 0.5]


def test_a_weights_later_change_does_not_change_what_was_measured(fake):
    budget, weight = LossBudget(), torch.tensor(2.0)
    shares = budget.backward(terms_of(budget.cut(fake)), {"l1": weight, "gan": 1.0})
    weight.zero_()
    assert shares.weight["l1"] == 2


def test_importing_fastgan_does_not_import_the_monitor():
    source = "import sys, fastgan; assert not any(name.startswith('fastgan.monitor') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)


def test_a_failed_check_leaves_no_trace(fake, scene):
    budget = LossBudget()
    leaf = budget.cut(fake)
    terms = {"l1": F.l1_loss(leaf, torch.zeros_like(leaf)), "other": torch.ones((), requires_grad=True) * 1}
    with pytest.raises(ValueError, match="other"):
        budget.backward(terms)
    assert not gradients(scene)
    del terms["other"]
    budget.backward(terms)
    assert gradients(scene)
