"""The Triton kernels of bias_act, in the interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.bias_act import NUMBERS
from fastgan.reference import bias_act as reference
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, image, relative_error

pytestmark = interpreted


def wanted(x, bias, grad, tangent, tangent_bias, act, gain, clamp):
    """All results of the three kernels, by autograd in float64."""
    leaf, bias, upstream = exact(x), exact(bias), exact(grad)
    y = reference.bias_act(leaf, bias, 1, act, 0.0, gain, None if clamp == math.inf else clamp)
    slopes = torch.autograd.grad(y, (leaf, bias), upstream, create_graph=True)
    inner = (slopes[0] * tangent.double()).sum() + (slopes[1] * tangent_bias.double()).sum()
    second = torch.autograd.grad(inner, (upstream, leaf, bias), allow_unused=True)
    return y, *slopes, *second


@pytest.mark.parametrize("clamp", [math.inf, 0.6])
@pytest.mark.parametrize(
    ("act", "size", "layout"),
    # The traversal does not depend on the activation. Some have, channels last, as many rows as one program
    # sums alone, and one more.
    [*((act, (2, 5, 7), "contiguous") for act in ("linear", *reference.SMOOTH)),
     ("swish", (1, 130, 130), "contiguous"), ("swish", (1, 16, 8), "channels_last"),
     ("swish", (1, 129, 1), "channels_last")],
)  # fmt: skip
def test_all_three(act, size, layout, clamp):
    from fastgan.kernels import bias_act as kernel

    x = (3 * image(size, layout=layout, channels=5) - 1.5).detach()
    grad, tangent = torch.rand_like(x) - 0.5, torch.rand_like(x) - 0.5
    bias, tangent_bias = torch.rand(5) - 0.5, torch.rand(5) - 0.5
    if act == "linear":
        clamp = math.inf
    options = NUMBERS.index(act), 1.4, clamp
    expected = wanted(x, bias, grad, tangent, tangent_bias, act, *options[1:])
    y = kernel.bias_act(x, bias, *options)
    assert y.stride() == x.stride()
    saved = (None, None) if act == "linear" else (x, bias)
    first = kernel.bias_act_backward(grad, *saved, *options, torch.float32)
    with_saved = act != "linear"
    second = kernel.bias_act_double_backward(
        grad, tangent, tangent_bias, *saved, *options, with_saved, torch.float32 if with_saved else None
    )
    for one, other in zip((y, *first, *second), expected, strict=True):
        if other is None:
            assert one.numel() == 0
        else:
            assert relative_error(one, other) <= 2e-6
    only_grad_x, no_grad_bias = kernel.bias_act_backward(grad, *saved, *options, None)
    assert torch.equal(only_grad_x, first[0]) and no_grad_bias.numel() == 0
    without = kernel.bias_act_double_backward(grad, tangent, tangent_bias, *saved, *options, False, None)
    assert torch.equal(without[0], second[0]) and without[1].numel() == without[2].numel() == 0
    half = kernel.bias_act_backward(grad, *saved, *options, torch.float16)[1]
    assert torch.equal(half, first[1].half())


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_derivatives_of_the_output(act):
    from fastgan.kernels import bias_act as kernel

    x, grad, tangent = (torch.randn(2, 3, 5) for _ in range(3))
    zeros = torch.zeros(3)
    y, slope, _, to_grad, to_x, _ = wanted(x, zeros, grad, tangent, zeros, act, 1.0, math.inf)
    options = NUMBERS.index(f"{act} of output"), 1.0, math.inf
    assert (
        relative_error(kernel.bias_act_backward(grad, y.float().detach(), None, *options, None)[0], slope)
        <= 1e-6
    )
    actual, to_y, _ = kernel.bias_act_double_backward(
        grad, tangent, None, y.float().detach(), None, *options, True, None
    )
    assert relative_error(actual, to_grad) <= 1e-6
    first, _, _ = reference.derivatives(x.double(), act)
    assert relative_error(to_y * first.float(), to_x) <= 1e-6


@pytest.mark.parametrize("act", ["linear", *reference.SMOOTH])
def test_nan_and_infinity(act):
    from fastgan.kernels import bias_act as kernel

    x = torch.tensor([[math.nan, math.inf, -math.inf, 0.0, -0.0, -200.0]])
    options = NUMBERS.index(act), 1.4, math.inf
    leaf = x.clone().requires_grad_()
    y = reference.bias_act(leaf, None, 1, act, 0.0, 1.4, None)
    assert_close(kernel.bias_act(x, None, *options), y.detach(), equal_nan=True)
    slope = kernel.bias_act_backward(torch.ones_like(x), x, None, *options, None)[0]
    assert_close(slope, torch.autograd.grad(y.sum(), leaf)[0], equal_nan=True)
