"""`fastgan.compat.stylegan3`: `bias_act` with stylegan3's name, defaults and values."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.compat import stylegan3

# Default gain and formula of each activation, as stylegan3's table has them.
ACTIVATIONS = {
    "linear": (1, lambda x, alpha: x),
    "relu": (math.sqrt(2), lambda x, alpha: F.relu(x)),
    "lrelu": (math.sqrt(2), lambda x, alpha: F.leaky_relu(x, 0.2 if alpha is None else alpha)),
    "tanh": (1, lambda x, alpha: torch.tanh(x)),
    "sigmoid": (1, lambda x, alpha: torch.sigmoid(x)),
    "elu": (1, lambda x, alpha: F.elu(x)),
    "selu": (1, lambda x, alpha: F.selu(x)),
    "softplus": (1, lambda x, alpha: F.softplus(x)),
    "swish": (math.sqrt(2), lambda x, alpha: torch.sigmoid(x) * x),
}


@pytest.mark.parametrize("impl", ["cuda", "ref"])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act_has_stylegan3s_values_and_gradients(act, impl):
    default, function = ACTIVATIONS[act]
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    for dim, alpha, gain, clamp in ((1, None, None, None), (3, 0.4, 0.7, 0.5), (0, None, 2, 0)):
        b = torch.randn(x.shape[dim], requires_grad=True)
        plain = function(x + b.reshape([-1 if i == dim else 1 for i in range(4)]), alpha)
        plain = plain * (default if gain is None else gain)
        if clamp is not None:
            plain = plain.clamp(-clamp, clamp)
        ours = stylegan3.bias_act(x, b, dim, act, alpha, gain, clamp, impl)
        assert_close(ours, plain)
        gradients = [torch.autograd.grad(y.square().sum(), (x, b), create_graph=True) for y in (ours, plain)]
        for one, other in zip(*gradients, strict=True):
            assert_close(one, other, rtol=1e-5, atol=1e-5)
        if act in ("tanh", "sigmoid", "elu", "selu", "softplus", "swish"):
            penalties = [torch.autograd.grad(g[0].square().sum(), (x, b)) for g in gradients]
            for one, other in zip(*penalties, strict=True):
                assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_bias_act_without_a_bias_does_not_look_at_dim():
    x = torch.randn(6)
    assert_close(stylegan3.bias_act(x, dim=5, act="lrelu"), F.leaky_relu(x, 0.2) * math.sqrt(2))


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="impl must be one of cuda, ref, got 'native'"):
        stylegan3.bias_act(torch.rand(2, 3), impl="native")
