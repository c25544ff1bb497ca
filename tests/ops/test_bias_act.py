"""Bias + activation: kernels against the float64 reference, to third order, and what they save."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import ops
from fastgan.ops.bias_act import GAINS
from fastgan.reference import bias_act as reference
from tests.conftest import DEVICES
from tests.ops.layouts import LAYOUTS, exact, image, relative_error
from tests.ops.test_bias_leaky_relu import both_orders

ACTS = tuple(GAINS)
HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def features(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=5):
    """Values around zero, but not so close to it that rounding changes their sign."""
    x = 4 * (image(size, torch.float64, "cpu", layout, channels).detach() - 0.5)
    return (x + 0.01 * x.sign()).to(device, dtype).requires_grad_()


def bias_of(channels, dtype=torch.float32, device="cpu"):
    return (torch.arange(channels) / 1000 - 0.002).to(device, dtype).requires_grad_()


def all_orders(x, bias, function):
    """The result, its gradients, and those of a penalty of them with respect to everything."""
    y = function(x, bias)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.device, y.dtype)
    upstream.requires_grad_()
    first = torch.autograd.grad(y, (x, bias), upstream, create_graph=True)
    penalty = sum(gradient.double().square().sum() for gradient in first)
    second = torch.autograd.grad(penalty, (upstream, x, bias), allow_unused=True)
    zeros = [
        torch.zeros_like(t) if g is None else g for g, t in zip(second, (upstream, x, bias), strict=True)
    ]
    return y, *first, *zeros


# The formulas of stylegan3's bias_act.py.
PLAIN = {
    "linear": lambda x: x, "relu": F.relu, "lrelu": lambda x: F.leaky_relu(x, 0.2), "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "elu": F.elu, "selu": F.selu, "softplus": F.softplus,
    "swish": lambda x: torch.sigmoid(x) * x,
}  # fmt: skip


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("act", ACTS)
def test_values_and_defaults_are_those_of_stylegan3(act, backend):
    x, bias = features((2, 5, 7), torch.float64), bias_of(5, torch.float64)
    gain = math.sqrt(2) if act in ("relu", "lrelu", "swish") else 1

    def plain(x, bias):
        return (PLAIN[act](x + bias[:, None, None]) * gain).clamp(-0.7, 0.7)

    ours = all_orders(x, bias, lambda x, b: ops.bias_act(x, b, act=act, clamp=0.7, backend=backend))
    for one, other in zip(ours, all_orders(x, bias, plain), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [{}, {"gain": 0.5, "clamp": 0.4}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:3])
@pytest.mark.parametrize("act", ACTS)
def test_kernel_matches_float64_reference(device, act, layout, options):
    x, bias = features((3, 17, 33), device=device, layout=layout), bias_of(5, device=device)
    actual = all_orders(x, bias, lambda x, b: ops.bias_act(x, b, act=act, **options))
    expected = all_orders(
        exact(x), exact(bias), lambda x, b: ops.bias_act(x, b, act=act, **options, backend="reference")
    )
    *most, last = (relative_error(one, other) for one, other in zip(actual, expected, strict=True))
    assert max(most) <= 1e-6 and last <= 4e-6  # sums of products of both signs


@pytest.mark.parametrize("act", reference.SMOOTH)
def test_small_and_large_numbers_are_as_exact(act):
    """Near 0, where differences would cancel, and where exponentials end."""
    for scale in (1e-6, 1e-3, 0.1, 10.0, 100.0):
        x = (scale * torch.linspace(-1, 1, 4001)).requires_grad_()
        actual = ops.bias_act(x, act=act)
        wide = exact(x)
        expected = ops.bias_act(wide, act=act, backend="reference")
        assert relative_error(actual, expected) <= 1e-6
        slopes = [torch.autograd.grad(y.sum(), at, create_graph=True)[0] for y, at in
                  ((actual, x), (expected, wide))]  # fmt: skip
        assert relative_error(*slopes) <= 1e-6
        plain = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(PLAIN[act](plain).sum(), plain, create_graph=True)
        points = ((slopes[0], x), (slopes[1], wide), (slope, plain))
        ours, right, theirs = (torch.autograd.grad(s.sum(), at)[0] for s, at in points)
        # sigmoid's, from its output alone, is as inexact near 0 as PyTorch's.
        assert relative_error(ours, right) <= max(2e-6, 1.1 * relative_error(theirs, right))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((7,), 0), ((7, 3), 0), ((7, 3), -1), ((2, 3, 40, 5), 0), ((2, 3, 40, 5), 2), ((2, 3, 40, 5), 3),
     ((3, 2, 5, 4, 2), 1), ((3, 2, 5, 4, 2), -2), ((1, 2000), 1), ((64, 300), 1)],
)  # fmt: skip
@pytest.mark.parametrize("act", ["linear", "lrelu", "tanh", "swish"])
def test_the_bias_belongs_to_any_dimension(device, act, shape, dim):
    x = (torch.rand(shape) - 0.5).to(device).requires_grad_()
    bias = bias_of(shape[dim], device=device)
    actual = all_orders(x, bias, lambda x, b: ops.bias_act(x, b, dim, act))
    expected = all_orders(
        exact(x), exact(bias), lambda x, b: ops.bias_act(x, b, dim, act, backend="reference")
    )
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) <= 2e-6


@pytest.mark.parametrize("act", ACTS)
def test_without_a_bias_any_shape_serves(act):
    for shape in ((), (5,), (2, 3), (2, 3, 4)):
        x = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
        y = ops.bias_act(x, None, 7, act)
        assert y.shape == x.shape
        assert_close(y, ops.bias_act(x, act=act, backend="reference"))
    assert ops.bias_act(x) is x


@pytest.mark.parametrize("act", ["relu", "lrelu", "linear"])
def test_piecewise_linear_ones_are_cases_of_the_leaky_relu(act):
    x, bias = features((2, 9, 7)), bias_of(5)
    options = {"gain": 1.3, "clamp": 0.9}
    alpha = {"relu": 0.0, "lrelu": 0.3, "linear": 1.0}[act]
    ours = both_orders(
        x, bias, lambda x, b: ops.bias_act(x, b, act=act, alpha=0.3 if act == "lrelu" else None, **options)
    )
    theirs = both_orders(x, bias, lambda x, b: ops.bias_leaky_relu(x, b, slope=alpha, **options))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("act", ACTS)
def test_half_types_err_at_most_twice_as_much_as_plain_pytorch(act, dtype):
    def plain(x, bias):
        return PLAIN[act](x + bias[:, None, None])

    x, bias = features((3, 37, 53), dtype), bias_of(5, dtype)
    expected = all_orders(exact(x), exact(bias), plain)
    ours = all_orders(x, bias, lambda x, b: ops.bias_act(x, b, act=act, gain=1))
    for one, other, right in zip(ours, all_orders(x, bias, plain), expected, strict=True):
        assert one.dtype == dtype
        assert relative_error(one, right) <= max(2 * relative_error(other, right), HALF[dtype])


def test_keeps_the_memory_format():
    x, bias = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.zeros(3)
    for act in ("lrelu", "swish"):
        assert ops.bias_act(x, bias, act=act).is_contiguous(memory_format=torch.channels_last)
        assert ops.bias_act(x.contiguous(), bias, act=act).is_contiguous()


@pytest.mark.parametrize(
    ("act", "options", "tensors"),
    [("linear", {}, 0), ("tanh", {}, 1), ("sigmoid", {}, 1), ("elu", {}, 1), ("swish", {}, 1),
     ("tanh", {"clamp": 0.5}, 1), ("lrelu", {}, 0.25), ("linear", {"clamp": 0.5}, 0.25)],
)  # fmt: skip
def test_saves_no_more_than_one_tensor(act, options, tensors):
    saved = []
    x = features((2, 64, 64))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        ops.bias_act(x, act=act, **options)
    assert sum(saved) == tensors * x.numel() * x.element_size()


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_what_is_saved_is_the_output_itself_unless_its_rounding_would_matter(act):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        y = ops.bias_act(features((2, 8, 8)), act=act)
    assert saved == [y.data_ptr()]
    x = torch.full((1, 1), 3.0, dtype=torch.bfloat16, requires_grad=True)
    (slope,) = torch.autograd.grad(ops.bias_act(x, act=act), x)
    (expected,) = torch.autograd.grad(PLAIN[act](wide := exact(x)), wide)
    assert_close(slope.double(), expected, rtol=2.0**-8, atol=0)


@pytest.mark.parametrize("options", [{}, {"gain": 1.3, "clamp": 0.9}], ids=str)
@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_three_orders(act, options):
    x, bias = features((2, 2, 2), torch.float64, channels=3), bias_of(3, torch.float64)
    function = lambda x, b: ops.bias_act(x, b, act=act, **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, bias))
    assert torch.autograd.gradgradcheck(function, (x, bias))

    def slopes(x, bias):
        return torch.autograd.grad(function(x, bias).pow(3).sum(), (x, bias), create_graph=True)

    assert torch.autograd.gradgradcheck(slopes, (x, bias))


@pytest.mark.parametrize("act", reference.SMOOTH)
def test_the_gradient_of_the_bias_alone_has_a_second_order(act):
    x, bias = features((2, 3, 2), torch.float64), bias_of(5, torch.float64)

    def slope(x, bias):
        return torch.autograd.grad(ops.bias_act(x, bias, act=act).square().sum(), bias, create_graph=True)[0]

    assert torch.autograd.gradcheck(slope, (x, bias))
    assert torch.autograd.gradcheck(lambda b: slope(x.detach(), b), bias)


@pytest.mark.parametrize("act", ["lrelu", "swish", "tanh"])
def test_r1_through_a_discriminator_equals_plain_torch(act):
    layers = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)])
    images = torch.rand(2, 3, 32, 32)

    def step(activation):
        hidden = x = images.clone().requires_grad_()
        for layer in layers:
            hidden = activation(F.conv2d(hidden, layer.weight, None, 2, 1), layer.bias)
        (grad,) = torch.autograd.grad(hidden.sum(), x, create_graph=True)
        loss = hidden.mean() + ops.squared_norm(grad).mean()
        return loss, *torch.autograd.grad(loss, list(layers.parameters()))

    def plain(x, bias):
        return PLAIN[act](x + bias[:, None, None]) * GAINS[act]

    ours = step(lambda x, b: ops.bias_act(x, b, act=act))
    for one, other in zip(ours, step(plain), strict=True):
        assert relative_error(one, other.double()) <= 1e-5


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    for layout in ("contiguous", "channels_last"):
        x, bias = features((3, 101, 203), layout=layout), bias_of(5)
        results = []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(all_orders(x, bias, lambda x, b: ops.bias_act(x, b, act="swish")))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("clamp", [None, 2.0, 0.0])
@pytest.mark.parametrize("act", ACTS)
def test_nan_infinity_and_zero_are_as_in_the_reference(act, clamp):
    values = [torch.nan, 0.0, -0.0, torch.inf, -torch.inf, 3.0, -200.0, 1e4, -1e4]
    x = torch.tensor([values], requires_grad=True)
    results = []
    for backend in (None, "reference"):
        y = ops.bias_act(x, torch.zeros(len(values)), act=act, clamp=clamp, backend=backend)
        results.append((y, torch.autograd.grad(y.sum(), x)[0]))
    assert results[0][0][0, 0].isnan()
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("act", ["elu", "selu"])
def test_the_kink_has_both_orders_of_plain_torch(act):
    x = torch.tensor([[0.0, -0.0]], requires_grad=True)

    def orders(function):
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return slope, *torch.autograd.grad(slope.sum(), x)

    for ours, theirs in zip(orders(lambda x: ops.bias_act(x, act=act)), orders(PLAIN[act]), strict=True):
        assert_close(ours, theirs)


def test_opcheck():
    inf = float("inf")
    for layout in ("contiguous", "channels_last"):
        x, bias = features((2, 5, 6), layout=layout), bias_of(5)
        grad, tangent = torch.rand_like(x).requires_grad_(), torch.rand_like(x).requires_grad_()
        bare = ops.bias_act.__globals__["NUMBERS"].index("tanh of output")
        ops_and_arguments = [
            (torch.ops.fastgan.bias_act, (x, bias, 6, 1.0, 0.4)),
            (torch.ops.fastgan.bias_act, (x, None, 1, 1.0, inf)),
            (torch.ops.fastgan.bias_act_backward, (grad, x, bias, 6, 1.0, 0.4, torch.float32)),
            (torch.ops.fastgan.bias_act_backward, (grad, x, None, bare, 1.0, inf, None)),
            (torch.ops.fastgan.bias_act_backward, (grad, None, None, 0, 1.5, inf, torch.float32)),
            (torch.ops.fastgan.bias_act_double_backward,
             (grad, tangent, bias, x, bias, 6, 1.0, 0.4, True, torch.float32)),
            (torch.ops.fastgan.bias_act_double_backward,
             (grad, tangent, None, x, None, bare, 1.0, inf, False, None)),
            (torch.ops.fastgan.bias_act_double_backward,
             (grad, tangent, bias, None, None, 0, 1.5, inf, False, None)),
        ]  # fmt: skip
        for op, arguments in ops_and_arguments:
            torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize("act", ["linear", "tanh", "swish"])
def test_under_compile_and_functorch(act):
    x, bias = features((2, 9, 7)), bias_of(5)
    loss = lambda x, bias: ops.bias_act(x, bias, act=act, gain=1).square().sum()  # noqa: E731
    expected = torch.autograd.grad(loss(x, bias), (x, bias))
    compiled = torch.compile(loss, fullgraph=True)
    for actual in (
        torch.autograd.grad(compiled(x, bias), (x, bias)),
        torch.func.grad(loss, argnums=(0, 1))(x.detach(), bias.detach()),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)

    def penalty(x, bias):
        return torch.func.grad(loss)(x, bias).square().sum()

    expected = torch.func.grad(lambda x, b: penalty(x, b), (0, 1))(
        x.detach().double(), bias.detach().double()
    )
    (penalty_compiled := torch.compile(penalty, fullgraph=True)(x, bias)).backward()
    assert penalty_compiled.isfinite()
    for leaf, other in zip((x, bias), expected, strict=True):
        assert relative_error(leaf.grad, other) <= 1e-5
        leaf.grad = None


@pytest.mark.parametrize("batched", [(0, None), (None, 0), (0, 0), (1, 0)])
@pytest.mark.parametrize("act", ["linear", "tanh", "swish"])
def test_batches_of_calls_equal_one_call_after_the_other(act, batched):
    in_x, in_bias = batched
    calls = 3
    x = features((calls, 4, 6), torch.float64).detach().unflatten(0, (calls, 1)).expand(-1, 2, -1, -1, -1)
    x = x.movedim(0, in_x).contiguous() if in_x is not None else x[0]
    bias = torch.rand((calls, 5) if in_bias is not None else (5,), dtype=torch.float64)

    def curvature(x, bias):
        def slopes(x, bias):
            loss = lambda x, b: ops.bias_act(x, b, act=act, gain=1.2).square().sum()  # noqa: E731
            first = torch.func.grad(loss, (0, 1))(x, bias)
            return sum(gradient.square().sum() for gradient in first)

        return torch.func.grad(slopes, (0, 1))(x, bias)

    actual = torch.vmap(curvature, batched)(x, bias)
    for call in range(calls):
        expected = curvature(
            x if in_x is None else x.select(in_x, call), bias if in_bias is None else bias[call]
        )
        for one, other in zip(actual, expected, strict=True):
            assert_close(one[call], other)


def test_errors_name_what_is_wrong():
    x = torch.rand(2, 3, 4)
    with pytest.raises(TypeError, match="x must be a floating-point tensor, got torch.int64"):
        ops.bias_act(x.long())
    with pytest.raises(ValueError, match=r"x must not be empty, got shape \(2, 0\)"):
        ops.bias_act(torch.rand(2, 0))
    with pytest.raises(ValueError, match="act must be one of linear, relu, .*swish, got 'gelu'"):
        ops.bias_act(x, act="gelu")
    with pytest.raises(ValueError, match=r"alpha is the slope of act='lrelu', got alpha=0.5 for act='elu'"):
        ops.bias_act(x, act="elu", alpha=0.5)
    with pytest.raises(ValueError, match="alpha must be finite, got inf"):
        ops.bias_act(x, act="lrelu", alpha=float("inf"))
    with pytest.raises(ValueError, match="gain must be finite, got nan"):
        ops.bias_act(x, gain=float("nan"))
    with pytest.raises(ValueError, match="clamp must not be negative, got -1"):
        ops.bias_act(x, clamp=-1)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\), got \(3,\)"):
        ops.bias_act(x, torch.rand(3), dim=2)
    with pytest.raises(ValueError, match="dim must be less than 3, the number of x's dimensions, got 3"):
        ops.bias_act(x, torch.rand(3), dim=3)
    with pytest.raises(ValueError, match="dim must be at least -3, got -4"):
        ops.bias_act(x, torch.rand(3), dim=-4)
    with pytest.raises(ValueError, match="one device"):
        ops.bias_act(x, torch.rand(3, device="meta"))
