"""LossBudget with any weights, any number of terms, and terms that share parts of their graphs."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fastgan.monitor import LossBudget
from tests.monitor.scenes import (
    Plain,
    assert_gradients_equal,
    assert_measures_equal,
    gradients,
    make,
    uncut,
)

HEADS = {
    "l1": lambda scene, fake, once, real: F.l1_loss(fake, real),
    "gan": lambda scene, fake, once, real: F.softplus(-scene.critic(fake)).mean(),
    "shared": lambda scene, fake, once, real: scene.critic[2](once).mean(),
    "feature": lambda scene, fake, once, real: once.square().mean(),
    "frozen": lambda scene, fake, once, real: F.mse_loss(scene.frozen(fake), scene.frozen(real)),
    "zero": lambda scene, fake, once, real: (0 * fake).sum(),
}


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_terms_are_those_of_autograd(data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    count = data.draw(st.integers(1, 16))
    kinds = data.draw(st.lists(st.sampled_from(sorted(HEADS)), min_size=count, max_size=count))
    number = st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 10) | st.floats(-10, -1e-6)
    weights = {f"{kind} {i}": data.draw(number) for i, kind in enumerate(kinds)}
    tensors = {name: torch.tensor(w) if data.draw(st.booleans()) else w for name, w in weights.items()}
    how = data.draw(st.sampled_from(["backward", "loss"]))

    def terms_of(cut, dtype):
        scene, (z, real) = make(Plain, dtype)
        leaf = cut(scene.generator(z))
        once = scene.critic[:2](leaf)
        return scene, {name: HEADS[name.split()[0]](scene, leaf, once, real) for name in weights}, leaf

    expected, terms, _ = terms_of(uncut, dtype)
    sum(weights[name] * term for name, term in terms.items()).backward()
    budget = LossBudget()
    scene, terms, _ = terms_of(budget.cut, dtype)
    if how == "backward":
        shares = budget.backward(terms, tensors)
    else:
        loss, shares = budget.loss(terms, tensors)
        loss.backward()
    assert_gradients_equal(gradients(scene), gradients(expected))
    _, terms, leaf = terms_of(lambda x: x.detach().requires_grad_(), torch.float64)
    found = {name: torch.autograd.grad(t, leaf, retain_graph=True)[0].flatten() for name, t in terms.items()}
    assert_measures_equal(shares, found, {name: float(w) for name, w in tensors.items()})
