"""filtered_lrelu: kernels against float64, step by step, to every order of gradient, and R1 through it."""

from __future__ import annotations

import random

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from tests.conftest import DEVICES
from tests.ops.filters import drawn_filtered_lrelu, filtered_lrelu_by_steps, taps
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

LOW, HIGH = taps(12) / taps(12).sum(), taps(6, seed=1) / taps(6, seed=1).sum()
# A layer of StyleGAN3-T, one of its radial filters, one of four times the rate, one without filters, and one
# that crops.
CASES = [
    {"fu": LOW, "fd": LOW, "up": 2, "down": 2, "padding": [11, 10, 11, 10], "clamp": 256.0},
    {"fu": LOW, "fd": taps(5, 6) / 9, "up": 2, "down": 2, "padding": [8, 9, 7, 8], "flip_filter": True},
    {"fu": taps(24), "fd": HIGH, "up": 4, "down": 2, "padding": [16, 15, 14, 13], "clamp": 0.8, "slope": 0.0},
    {"clamp": 0.4, "gain": 1.0},
    {"fu": HIGH, "fd": taps(3, 2), "up": 3, "down": 1, "padding": [-1, 4, 5, -2], "slope": 0.5},
]


def features(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=3):
    return (
        (image(size, torch.float64, "cpu", layout, channels).detach() - 0.5)
        .to(device, dtype)
        .requires_grad_()
    )


def bias_of(channels, dtype=torch.float32, device="cpu"):
    return torch.linspace(-0.2, 0.3, channels).to(device, dtype).requires_grad_()


def on(device, options):
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def both_orders(x, b, function):
    """The result, the gradients of x and b, and those of a penalty on them."""
    y = function(x, b)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.device, y.dtype)
    upstream = weights.requires_grad_()
    grad_x, grad_b = torch.autograd.grad(y, (x, b), upstream, create_graph=True)
    penalty = grad_x.double().square().sum() + grad_b.double().square().sum()
    (second,) = torch.autograd.grad(penalty, upstream)
    return y, grad_x, grad_b, second


def assert_near(actual, expected, tolerance):
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) <= tolerance


@pytest.mark.parametrize("backend", ["reference", None])
def test_equals_its_steps(backend):
    draw = random.Random(4)
    for _ in range(100):
        fu, fd, size, options = drawn_filtered_lrelu(draw)
        x, b = features((2, *size), torch.float64), bias_of(3, torch.float64)
        expected = both_orders(x, b, lambda x, b: filtered_lrelu_by_steps(x, fu, fd, b, **options))  # noqa: B023
        actual = both_orders(
            x, b, lambda x, b: ops.filtered_lrelu(x, fu, fd, b, **options, backend=backend)  # noqa: B023
        )  # fmt: skip
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 9, 9), (3, 17, 33)])
def test_kernel_matches_float64_reference(device, layout, size):
    for options in CASES:
        x, b, options = (
            features(size, device=device, layout=layout),
            bias_of(3, device=device),
            on(device, options),
        )
        actual = both_orders(x, b, lambda x, b: ops.filtered_lrelu(x, b=b, **options))  # noqa: B023
        expected = both_orders(
            exact(x), exact(b),
            lambda x, b: ops.filtered_lrelu(x, b=b, **on("cpu", options), backend="reference"),  # noqa: B023
        )  # fmt: skip
        # A value next to zero may get the other sign in float32, and its gradient the other slope.
        assert_near(actual[:1], expected[:1], 1e-6)
        assert_near(actual[1:], expected[1:], 2e-6)


def test_planes_in_bands_and_planes_in_one_block():
    for size, channels in (((1, 150, 130), 2), ((3, 5, 6), 100)):
        x, b = features(size, channels=channels), bias_of(channels)
        actual = both_orders(x, b, lambda x, b: ops.filtered_lrelu(x, b=b, **CASES[0]))
        expected = both_orders(
            exact(x), exact(b), lambda x, b: ops.filtered_lrelu(x, b=b, **CASES[0], backend="reference")
        )
        assert_near(actual, expected, 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_types_err_by_one_rounding(device, dtype, step):
    stored_between = device == "cuda"  # where the upsampled image is rounded, too
    for options in CASES:
        x, b = features((2, 21, 27), dtype, device), bias_of(3, device=device)
        y = ops.filtered_lrelu(x, b=b, **on(device, options))
        expected = ops.filtered_lrelu(exact(x), b=exact(b), **options, backend="reference")
        assert y.dtype == dtype
        limit = (2 if stored_between else 1) * step * expected.abs().max()
        assert (y.cpu().double() - expected).abs().max() <= limit
        grad_x, grad_b = torch.autograd.grad(y.sum(), (x, b))
        assert grad_x.dtype == dtype and grad_b.dtype == torch.float32


def test_gradients_of_every_order():
    for options in (CASES[1], CASES[2], CASES[4]):
        x, b = features((1, 5, 4), torch.float64, channels=2), bias_of(2, torch.float64)
        function = lambda x, b, options=options: ops.filtered_lrelu(x, b=b, **options)  # noqa: E731
        assert torch.autograd.gradcheck(function, (x, b))
        assert torch.autograd.gradgradcheck(lambda x, b, f=function: f(x, b) ** 2, (x, b))

    def third(function):
        (first,) = torch.autograd.grad((function(x, b) ** 3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x, create_graph=True)
        return torch.autograd.grad((second**2).sum(), (x, b))

    ours = third(lambda x, b: ops.filtered_lrelu(x, b=b, **CASES[1]))
    for one, other in zip(ours, third(lambda x, b: filtered_lrelu_by_steps(x, b=b, **CASES[1])), strict=True):
        assert_close(one, other)


def test_saves_one_byte_per_upsampled_pixel_and_the_filters():
    saved, x = [], features((2, 16, 16))
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        ops.filtered_lrelu(x, LOW, HIGH, bias_of(3), 2, 2, 8)
    assert sum(saved) == 2 * 3 * (32 + 16 - 11) ** 2 + 4 * (12 + 6)


def test_same_bits_for_any_number_of_threads():
    threads, results = torch.get_num_threads(), []
    x, b = features((1, 200, 150)), bias_of(3)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(both_orders(x, b, lambda x, b: ops.filtered_lrelu(x, b=b, **CASES[0])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, first) for one, first in zip(other, results[0], strict=True))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_has_no_slope_and_infinity_that_of_its_side(backend):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0]).reshape(1, 1, 1, 4).requires_grad_()
    for options, values, slopes in (
        ({"gain": 2.0}, [torch.nan, torch.inf, -torch.inf, 4.0], [torch.nan, 2.0, 0.4, 2.0]),
        ({"gain": 1.0, "slope": 0.0}, [torch.nan, torch.inf, 0.0, 2.0], [torch.nan, 1.0, 0.0, 1.0]),
        ({"gain": 1.0, "clamp": 1.0}, [torch.nan, 1.0, -1.0, 1.0], [torch.nan, 0.0, 0.0, 0.0]),
    ):
        y = ops.filtered_lrelu(x, **options, backend=backend)
        assert_close(y.flatten(), torch.tensor(values), equal_nan=True)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert_close(gradient.flatten(), torch.tensor(slopes), equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_and_compile(device):
    x, b, fu, fd = (
        features((2, 5, 6), device=device),
        bias_of(3, device=device),
        LOW.to(device),
        HIGH.to(device),
    )
    codes = torch.randint(0, 3, (2, 3, 15, 14), dtype=torch.uint8, device=device)
    numbers = 2, 2, 8, 9, 15, 14, 5, 5, False, 1.4, 0.2, 0.5
    for with_codes, bias in ((True, b), (True, None)):
        torch.library.opcheck(
            torch.ops.fastgan.filtered_lrelu.default, (x, bias, fu, fd, *numbers, with_codes)
        )
    torch.library.opcheck(
        torch.ops.fastgan.filtered_lrelu_backward.default,
        (x, codes, fd, fu, 2, 2, 5, 4, 3, 2, 5, 6, True, 5.6, 0.2),
    )
    loss = lambda x, b: ops.filtered_lrelu(x, fu, fd, b, 2, 2, 8, clamp=0.5).square().sum()  # noqa: E731
    expected = torch.autograd.grad(loss(x, b), (x, b))
    compiled = torch.compile(loss, fullgraph=True)
    for actual in (
        torch.autograd.grad(compiled(x, b), (x, b)),
        torch.func.grad(loss, argnums=(0, 1))(x.detach(), b.detach()),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)


def test_under_vmap_with_a_bias_for_each_call():
    x, biases = features((2, 6, 5)).detach(), torch.stack([bias_of(3), -bias_of(3)]).detach()
    loss = lambda x, b: ops.filtered_lrelu(x, LOW, HIGH, b, 2, 2, 8).square().sum()  # noqa: E731
    for function in (loss, torch.func.grad(loss, argnums=(0, 1))):
        actual = torch.vmap(function, in_dims=(None, 0))(x, biases)
        expected = [function(x, b) for b in biases]
        if isinstance(actual, torch.Tensor):
            actual, expected = (actual,), [(each,) for each in expected]
        for one, other in zip(actual, zip(*expected, strict=True), strict=True):
            assert_close(one, torch.stack(other))


X = torch.rand(2, 3, 6, 5)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.filtered_lrelu(X[0]), ValueError, r"x must have shape \(N, C, H, W\)"),
    (lambda: ops.filtered_lrelu(X.int()), TypeError, "x must be a floating-point tensor, got torch.int32"),
    (lambda: ops.filtered_lrelu(X, fu=1), TypeError, "fu must be a floating-point tensor, got int 1"),
    (lambda: ops.filtered_lrelu(X, fd=taps(2, 2, 2)), ValueError, r"fd must have shape .*got \(2, 2, 2\)"),
    (lambda: ops.filtered_lrelu(X, fd=taps(2).requires_grad_()), ValueError, "fd is a constant"),
    (lambda: ops.filtered_lrelu(X, b=torch.rand(4)), ValueError, r"b must have shape \(3,\), got \(4,\)"),
    (lambda: ops.filtered_lrelu(X, b=torch.rand(3, device="meta")), ValueError, "one device"),
    (lambda: ops.filtered_lrelu(X, up=[2, 2]), TypeError, "up must be a whole number, got list"),
    (lambda: ops.filtered_lrelu(X, down=0), ValueError, "down must be at least 1, got 0"),
    (lambda: ops.filtered_lrelu(X, padding=[1]), ValueError, r"padding must be .*got list \[1\]"),
    (lambda: ops.filtered_lrelu(X, gain=None), TypeError, "gain must be a number, got None"),
    (lambda: ops.filtered_lrelu(X, slope=float("inf")), ValueError, "slope must be finite, got inf"),
    (lambda: ops.filtered_lrelu(X, clamp=-1), ValueError, "clamp must not be negative, got -1"),
    (lambda: ops.filtered_lrelu(X, clamp=float("nan")), ValueError, "clamp must not be negative, got nan"),
    (lambda: ops.filtered_lrelu(X, flip_filter=2), TypeError, "flip_filter must be True or False"),
    (
        lambda: ops.filtered_lrelu(X, taps(4), taps(5, 8), padding=[1, 0, -1, 1]), ValueError,
        r"fu and fd, 4 x 4 and 5 x 8, must fit into the padded image, got 6 x 6 of x's 6 x 5 with up 1",
    ),
])  # fmt: skip
def test_wrong_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
