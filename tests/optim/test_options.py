"""Random combinations of torch's options."""

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.optim.steps import PAIRS, assert_same, assert_same_state, parameters, train


@st.composite
def cases(draw):
    name = draw(st.sampled_from(sorted(PAIRS)))
    options = {
        "lr": draw(st.sampled_from([1e-3, 3e-2])),
        "eps": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.05])),
        "maximize": draw(st.booleans()),
    }
    if name == "RMSprop":
        options |= {
            "alpha": draw(st.sampled_from([0.9, 0.99])),
            "momentum": draw(st.sampled_from([0.0, 0.5])),
            "centered": draw(st.booleans()),
        }
    else:
        options |= {
            "betas": draw(st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])),
            "amsgrad": draw(st.booleans()),
        }
    return name, options, draw(st.sampled_from([torch.float32, torch.float64]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_two_hundred_steps_are_those_of_torch(case):
    name, options, dtype = case
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizers = [kind(p, **options) for kind, p in zip(PAIRS[name], (ours, theirs), strict=True)]
    for optimizer, params in zip(optimizers, (ours, theirs), strict=True):
        train(params, optimizer, 200)
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    assert_same(ours, theirs, rtol)
    assert_same_state(optimizers[0], ours, optimizers[1], theirs, rtol)
