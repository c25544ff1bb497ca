"""Bias + leaky ReLU: kernels against the float64 reference, to second order, and what they save."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan import ops
from tests.conftest import DEVICES
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (2, 3, 5), (3, 17, 33), (2, 40, 61)]
HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
OPTIONS = [{}, {"gain": 2**0.5, "clamp": 0.4}, {"slope": 0.01, "gain": 0.5}]


def features(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=5):
    """Values around zero, but not so close to it that rounding changes their sign."""
    x = image(size, torch.float64, "cpu", layout, channels).detach() - 0.5
    return (x + 0.01 * x.sign()).to(device, dtype).requires_grad_()


def bias_of(channels, dtype=torch.float32, device="cpu"):
    return (torch.arange(channels) / 1000 - 0.002).to(device, dtype).requires_grad_()


def both_orders(x, bias, function):
    """The result, the gradients of x and bias, and those of a penalty on them."""
    y = function(x, bias)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.device, y.dtype)
    upstream = weights.requires_grad_()
    grad_x, grad_bias = torch.autograd.grad(y, (x, bias), upstream, create_graph=True)
    penalty = grad_x.double().square().sum() + grad_bias.double().square().sum()
    (second,) = torch.autograd.grad(penalty, upstream)
    return y, grad_x, grad_bias, second


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_float64_reference(device, size, layout, options):
    x, bias = features(size, device=device, layout=layout), bias_of(5, device=device)
    actual = both_orders(x, bias, lambda x, b: ops.bias_leaky_relu(x, b, **options))
    expected = both_orders(
        exact(x), exact(bias), lambda x, b: ops.bias_leaky_relu(x, b, **options, backend="reference")
    )
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(7, 3), (64, 300), (4, 1), (3, 1, 50), (2, 3, 4, 5, 6), (1, 2000)])
def test_any_number_of_dimensions_and_channels(device, shape):
    x = (torch.rand(shape) - 0.5).to(device).requires_grad_()
    bias = bias_of(shape[1], device=device)
    actual = both_orders(x, bias, ops.bias_leaky_relu)
    expected = both_orders(exact(x), exact(bias), lambda x, b: ops.bias_leaky_relu(x, b, backend="reference"))
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) <= 2e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF)
def test_half_types_err_by_one_rounding(device, dtype):
    x, bias = features((2, 37, 53), dtype, device), bias_of(5, device=device)
    y = ops.bias_leaky_relu(x, bias)
    expected = ops.bias_leaky_relu(exact(x), exact(bias), backend="reference")
    assert y.dtype == dtype and (y.cpu() - expected).abs().max() <= HALF[dtype]
    grad_x, grad_bias = torch.autograd.grad(y.sum(), (x, bias))
    assert grad_x.dtype == dtype and grad_bias.dtype == torch.float32
    assert_close(grad_bias.cpu(), grad_x.cpu().float().sum(dim=(0, 2, 3)), rtol=1e-2, atol=0)


def test_keeps_the_memory_format():
    x = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert ops.bias_leaky_relu(x, torch.zeros(3)).is_contiguous(memory_format=torch.channels_last)
    assert ops.bias_leaky_relu(x.contiguous()).is_contiguous()


@pytest.mark.parametrize("device", DEVICES)
def test_saves_a_quarter_of_the_bytes(device):
    saved = []
    x, bias = features((2, 64, 64), device=device), bias_of(5, device=device)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        ops.bias_leaky_relu(x, bias)
    assert sum(saved) == x.numel()


@pytest.mark.parametrize("options", [{}, {"gain": 1.3, "clamp": 0.3}], ids=str)
def test_gradients_of_every_order(options):
    x, bias = features((2, 4, 3), torch.float64), bias_of(5, torch.float64)
    function = lambda x, b: ops.bias_leaky_relu(x, b, **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, bias))
    assert torch.autograd.gradgradcheck(function, (x, bias))
    cubed = lambda x, b: function(x, b) ** 3  # noqa: E731
    assert torch.autograd.gradgradcheck(cubed, (x, bias))
    assert torch.autograd.gradgradcheck(lambda x: ops.bias_leaky_relu(x) ** 2, x)


@pytest.mark.parametrize("device", DEVICES)
def test_r1_through_a_discriminator_equals_plain_torch(device):
    layers = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)]).to(device)
    parameters = list(layers.parameters())
    images = torch.rand(2, 3, 32, 32).to(device)

    def r1_and_gradients(activation):
        hidden = x = images.clone().requires_grad_()
        for layer in layers:
            hidden = activation(nn.functional.conv2d(hidden, layer.weight, None, 2, 1), layer.bias)
        (grad,) = torch.autograd.grad(hidden.sum(), x, create_graph=True)
        r1 = ops.squared_norm(grad).mean()
        gradients = torch.autograd.grad(r1, parameters, allow_unused=True)
        zeros = [torch.zeros_like(p) for p in parameters]  # for parameters without a gradient
        return r1, *[z if g is None else g for g, z in zip(gradients, zeros, strict=True)]

    plain = lambda x, b: nn.functional.leaky_relu(x + b[:, None, None], 0.2)  # noqa: E731
    for ours, theirs in zip(r1_and_gradients(ops.bias_leaky_relu), r1_and_gradients(plain), strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    for layout in ("contiguous", "channels_last"):
        x, bias = features((3, 101, 203), layout=layout), bias_of(5)
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                y = ops.bias_leaky_relu(x, bias)
                results.append((y, *torch.autograd.grad(y.square().sum(), (x, bias))))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_nan_and_zero_as_in_torch():
    x = torch.tensor([[torch.nan, 0.0, -0.0, torch.inf, -torch.inf, 3.0]], requires_grad=True)
    for clamp in (None, 2.0):
        results = []
        for backend in (None, "reference"):
            y = ops.bias_leaky_relu(x, clamp=clamp, backend=backend)
            results.append((y, torch.autograd.grad(y.sum(), x)[0][:, 1:]))
        for ours, theirs in zip(*results, strict=True):
            assert_close(ours, theirs, equal_nan=True)


def test_opcheck():
    for layout in ("contiguous", "channels_last"):
        x, bias = features((2, 5, 6), layout=layout), bias_of(5)
        _, codes = torch.ops.fastgan.bias_leaky_relu(x.detach(), bias.detach(), 0.2, 1.0, 0.4, True)
        grad = torch.rand_like(x).requires_grad_()
        ops_and_arguments = [
            (torch.ops.fastgan.bias_leaky_relu, (x, bias, 0.2, 1.0, 0.4, True)),
            (torch.ops.fastgan.bias_leaky_relu, (x, None, 0.2, 1.0, float("inf"), True)),
            (torch.ops.fastgan.bias_leaky_relu_backward, (grad, codes, 0.2, 1.0, torch.float32)),
            (torch.ops.fastgan.bias_leaky_relu_backward, (grad, codes, 0.2, 1.0, None)),
            (torch.ops.fastgan.bias_leaky_relu_tangent, (grad, bias, codes, 0.2, 1.0)),
            (torch.ops.fastgan.bias_leaky_relu_tangent, (grad, None, codes, 0.2, 1.0)),
        ]
        for op, arguments in ops_and_arguments:
            torch.library.opcheck(op.default, arguments)


def test_under_compile_and_functorch():
    x, bias = features((2, 9, 7)), bias_of(5)
    loss = lambda x, bias: ops.bias_leaky_relu(x, bias, gain=1.4).square().sum()  # noqa: E731
    expected = torch.autograd.grad(loss(x, bias), (x, bias))
    compiled = torch.compile(loss, fullgraph=True)
    for actual in (
        torch.autograd.grad(compiled(x, bias), (x, bias)),
        torch.func.grad(loss, argnums=(0, 1))(x.detach(), bias.detach()),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)


def test_errors_name_what_is_wrong():
    x = torch.rand(2, 3, 4)
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got torch.int64"):
        ops.bias_leaky_relu(x.long())
    with pytest.raises(ValueError, match=r"shape \(N, C, \.\.\.\) and not be empty, got \(3,\)"):
        ops.bias_leaky_relu(torch.rand(3))
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\), got \(4,\)"):
        ops.bias_leaky_relu(x, torch.rand(4))
    with pytest.raises(ValueError, match="clamp must be positive, got 0"):
        ops.bias_leaky_relu(x, clamp=0)
    with pytest.raises(ValueError, match="slope must be finite, got nan"):
        ops.bias_leaky_relu(x, slope=float("nan"))
    with pytest.raises(ValueError, match="one device"):
        ops.bias_leaky_relu(x, torch.rand(3, device="meta"))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_has_no_slope_and_infinity_that_of_its_side(backend):
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, 2.0]], requires_grad=True)
    y = ops.bias_leaky_relu(x, slope=0.2, gain=2.0, backend=backend)
    torch.testing.assert_close(y[0], torch.tensor([torch.nan, torch.inf, -torch.inf, 4.0]), equal_nan=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient[0], torch.tensor([torch.nan, 2.0, 0.4, 2.0]), equal_nan=True)
    cut = ops.bias_leaky_relu(x, slope=0.0, backend=backend)
    torch.testing.assert_close(cut[0], torch.tensor([torch.nan, torch.inf, 0.0, 2.0]), equal_nan=True)
    bounded = ops.bias_leaky_relu(x, clamp=1.0, backend=backend)
    (gradient,) = torch.autograd.grad(bounded.sum(), x)
    torch.testing.assert_close(gradient[0], torch.tensor([torch.nan, 0.0, 0.0, 0.0]), equal_nan=True)
