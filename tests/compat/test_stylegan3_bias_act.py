"""`fastgan.compat.stylegan3`: `bias_act` with stylegan3's name, defaults and values."""

from __future__ import annotations

import math
import weakref

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
        if act != "linear":  # whose penalty depends on neither
            penalties = [torch.autograd.grad(g[0].square().sum(), (x, b)) for g in gradients]
            for one, other in zip(*penalties, strict=True):
                assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bias_act", "filtered_lrelu"])
def test_transforms_and_compiled_graphs_are_those_of_the_op(name):
    function = {
        "bias_act": lambda x, b: stylegan3.bias_act(x, b, act="lrelu"),
        "filtered_lrelu": lambda x, b: stylegan3.filtered_lrelu(x, b=b),
    }[name]
    x, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    first = torch.autograd.grad(function(x, b).square().sum(), (x, b))
    transformed = torch.func.grad(lambda x, b: function(x, b).square().sum(), argnums=(0, 1))
    assert_close(transformed(x.detach(), b.detach()), first)
    assert_close(torch.func.vmap(function, (0, None))(x[:, None], b)[:, 0], function(x, b))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(x, b).square().sum(), (x, b)), first)


def test_zeros_of_the_second_order_hold_no_memory_of_x():
    weight = torch.ones(1, 3, 2, 2, requires_grad=True)
    x = weight * 1.0
    held = weakref.ref(x)
    y = stylegan3.bias_act(x, torch.ones(3), act="lrelu")
    del x
    assert held() is None
    (slopes,) = torch.autograd.grad(y.sum(), weight, create_graph=True)
    (zeros,) = torch.autograd.grad(slopes.square().sum(), weight)
    assert not zeros.any()


def test_bias_act_without_a_bias_does_not_look_at_dim():
    x = torch.randn(6)
    assert_close(stylegan3.bias_act(x, dim=5, act="lrelu"), F.leaky_relu(x, 0.2) * math.sqrt(2))


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="impl must be one of cuda, ref, got 'native'"):
        stylegan3.bias_act(torch.rand(2, 3), impl="native")
