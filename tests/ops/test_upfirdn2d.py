"""upfirdn2d and what is made of it: kernels against float64, step by step, to every order of gradient."""

from __future__ import annotations

import random
import resource

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from tests.conftest import DEVICES
from tests.ops.filters import drawn_upfirdn2d, taps, upfirdn2d_by_steps
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

# The calls of StyleGAN2 and 3, and some with all factors and paddings different.
CASES = [
    (taps(4), {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0}),
    (taps(12), {"down": 2, "padding": 5, "flip_filter": True}),
    (taps(24), {"up": 4, "padding": [15, 12, 14, 13]}),
    (taps(4, 1) * taps(1, 4), {"padding": [2, 1]}),
    (taps(3, 5), {"up": [3, 2], "down": [2, 3], "padding": [7, -2, 3, 4], "gain": -0.5}),
    (taps(31), {"down": 4, "padding": 15}),
    (None, {"up": 3, "padding": [-1, 2]}),
    (taps(5, 4), {"up": 1, "down": [4, 1], "padding": [1, 2, 3, 5]}),
]


@pytest.fixture
def threads():
    count = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(count)


def both(x, f, options, backend=None, upstream=None):
    """The result and the gradient of x."""
    y = ops.upfirdn2d(x, f, **options, backend=backend)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape) if upstream is None else upstream
    return y, torch.autograd.grad(y, x, weights.to(y.device, y.dtype))[0]


@pytest.mark.parametrize("backend", ["reference", None])
def test_equals_inserting_padding_convolving_and_slicing(backend):
    draw = random.Random(3)
    for _ in range(150):
        f, size, options = drawn_upfirdn2d(draw)
        x = image((2, *size), torch.float64, channels=3)
        expected = upfirdn2d_by_steps(x, f, **options)
        gradient = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).reshape(expected.shape)
        expected_grad = torch.autograd.grad(expected, x, gradient)[0]
        y, grad = both(x, f, options, backend, gradient)
        assert_close(y, expected, rtol=1e-12, atol=1e-12)
        assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 9, 9), (2, 17, 33), (3, 40, 61)])
def test_kernel_matches_float64_reference(device, layout, size):
    for f, options in CASES:
        x = image(size, device=device, layout=layout)
        y, grad = both(x, f if f is None else f.to(device), options)
        expected, expected_grad = both(exact(x), f, options, "reference")
        assert relative_error(y, expected) <= 1e-6
        assert relative_error(grad, expected_grad) <= 1e-6


def test_planes_in_bands_and_planes_in_one_block():
    for size, channels in (((1, 300, 250), 2), ((3, 7, 5), 200), ((1, 513, 129), 1)):
        for f, options in (CASES[0], CASES[1], CASES[4]):
            x = image(size, channels=channels)
            y, grad = both(x, f, options)
            expected, expected_grad = both(exact(x), f, options, "reference")
            assert relative_error(y, expected) <= 1e-6 and relative_error(grad, expected_grad) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_types_err_by_one_rounding(device, dtype, step):
    for f, options in CASES:
        x = image((2, 37, 53), dtype, device)
        y = ops.upfirdn2d(x, f if f is None else f.to(device), **options)
        expected = ops.upfirdn2d(exact(x), f, **options, backend="reference")
        assert y.dtype == dtype
        assert (y.cpu().double() - expected).abs().max() <= step * expected.abs().max()


def test_gradients_of_every_order():
    for f, options in CASES[:5]:
        x = image((1, 7, 6), torch.float64, channels=2)
        function = lambda x, f=f, options=options: ops.upfirdn2d(x, f, **options)  # noqa: E731
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x) ** 2, x)
    # Of third order: a cube's derivatives, each through the op.
    x = image((1, 5, 5), torch.float64, channels=1)

    def third(function):
        (first,) = torch.autograd.grad((function(x) ** 3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x, create_graph=True)
        return torch.autograd.grad((second**2).sum(), x)[0]

    f, options = CASES[0]
    assert_close(
        third(lambda x: ops.upfirdn2d(x, f, **options)),
        third(lambda x: upfirdn2d_by_steps(x, f, **options)),
    )


def test_a_filter_of_two_axes_that_is_a_product_gives_the_same_as_one_that_is_not():
    line = taps(6)
    x, product = image((2, 20, 19), torch.float64), (line[:, None] * line[None, :]).double()
    changed = product.clone()
    changed[2, 3] *= 1 + 1e-9
    for options in ({"up": 2, "padding": 4}, {"down": 2, "padding": 3}):
        outer, nearly = ops.upfirdn2d(x, product, **options), ops.upfirdn2d(x, changed, **options)
        assert_close(outer, nearly, rtol=1e-8, atol=0)
        assert not torch.equal(outer, nearly)
        assert_close(outer, ops.upfirdn2d(x, line, **options), rtol=1e-6, atol=0)


def test_keeps_the_memory_format_and_saves_only_the_filter():
    x, saved = image((2, 6, 5), layout="channels_last"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        y = ops.upfirdn2d(x, taps(4), up=2, padding=1)
    assert y.is_contiguous(memory_format=torch.channels_last) and sum(saved) == 4
    assert ops.upfirdn2d(x.detach().contiguous(), taps(4)).is_contiguous()


def test_same_bits_for_any_number_of_threads(threads):
    for size, channels in (((1, 300, 211), 3), ((2, 40, 41), 50)):
        x, results = image(size, channels=channels), []
        for count in (1, 2, 3):
            threads(count)
            results.append(both(x, taps(12), {"up": 2, "padding": 5}))
        for y, grad in results[1:]:
            assert torch.equal(y, results[0][0]) and torch.equal(grad, results[0][1])


def test_factors_that_move_no_pixel_take_no_memory():
    """As in a process that may have 1 GB more; the kernel's tables grow with its factors."""
    most = 2**31 - 1
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x = torch.rand(1, 2, 4, 5, requires_grad=True)
    y = ops.upfirdn2d(x, taps(2), down=most, padding=[0, 1, 1, 0])
    assert_close(y, ops.upfirdn2d(x, taps(2), down=9, padding=[0, 1, 1, 0]))
    pixel = ops.upfirdn2d(y, taps(3), up=most, padding=[2, 1 - most, 2, 1 - most])
    assert_close(pixel, ops.upfirdn2d(y, taps(3), padding=[2, 0, 2, 0]))
    pixel.sum().backward()
    assert x.grad.count_nonzero() == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**20  # in kB


def test_nan_reaches_what_reads_it():
    for backend in ("native", "reference"):
        x = image((1, 12, 12)).detach()
        x[0, 0, 5, 5] = torch.nan
        nan = ops.upfirdn2d(x, taps(3), padding=1, backend=backend).isnan()
        assert nan.sum() == 9 and nan[0, 0, 4:7, 4:7].all()


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_and_compile(device):
    x, f = image((2, 7, 9), device=device), taps(4).to(device)
    torch.library.opcheck(torch.ops.fastgan.upfirdn2d.default, (x, f, 2, 1, 1, 2, 2, -1, 3, 14, False, 1.5))
    function = lambda x: ops.upfirdn2d(x * 1.0, f, up=2, padding=[2, 1])  # noqa: E731
    y, expected = torch.compile(function, fullgraph=True)(x), function(x)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x))


@pytest.mark.parametrize("f", [taps(3), taps(3, 2)], ids=["line", "plane"])
def test_the_reference_turns_its_filter_inside_a_compiled_graph(f):
    torch.compiler.reset()
    x = torch.rand(1, 2, 6, 5)

    def function(x):
        return ops.upfirdn2d(x, f, up=2, flip_filter=True, backend="reference")

    assert_close(torch.compile(function, fullgraph=True, backend="eager")(x), function(x))


def test_under_transforms():
    x, filters = image((3, 8, 8)), torch.stack([taps(4), taps(4, seed=1)])
    loss = lambda x, f: ops.upfirdn2d(x, f, up=2, padding=2).square().sum()  # noqa: E731
    expected = torch.autograd.grad(loss(x, filters[0]), x)[0]
    assert_close(torch.func.grad(loss)(x.detach(), filters[0]), expected)
    for by_call in (lambda f: loss(x.detach(), f), lambda f: torch.func.grad(loss)(x.detach(), f)):
        assert_close(torch.vmap(by_call)(filters), torch.stack([by_call(f) for f in filters]))


# --- filters, and the three common calls --------------------------------------------------------------------


def test_a_filter_is_normalized_turned_scaled_and_made_two_of_one():
    assert_close(ops.setup_filter([1, 3, 3, 1]), torch.outer(*[torch.tensor([1.0, 3, 3, 1]) / 8] * 2))
    assert ops.setup_filter([1, 3, 3, 1], separable=True).shape == (4,)
    assert ops.setup_filter(np.ones(8)).shape == (8,)
    assert torch.equal(ops.setup_filter(None), torch.ones(1, 1))
    assert torch.equal(
        ops.setup_filter(torch.tensor([[1, 2]]), normalize=False, gain=2), torch.tensor([[2.0, 4]])
    )
    turned = ops.setup_filter(
        torch.tensor([1.0, 2]), normalize=False, flip_filter=True, gain=4, separable=True
    )
    assert torch.equal(turned, torch.tensor([4.0, 2]))
    given = torch.tensor([2.0, 2.0])
    ops.setup_filter(given)
    assert torch.equal(given, torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize(
    "f", [[1, 3, 3, 1], None, np.arange(9.0), torch.rand(3, 2)], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"flip_filter": True, "gain": 4}], ids=str)
def test_a_filter_can_be_made_inside_a_compiled_graph(f, options):
    torch.compiler.reset()  # since one function is compiled for each
    function = lambda x: ops.filter2d(x, ops.setup_filter(f, x.device, **options))  # noqa: E731
    x = image((1, 6, 7)).detach()
    assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(x), function(x))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 12])
def test_common_calls_keep_multiply_and_divide_the_size(length):
    x, f = image((1, 12, 8)).detach(), ops.setup_filter(torch.ones(length))
    assert ops.filter2d(x, f).shape == x.shape
    assert ops.filter2d(x, f, padding=[1, -2]).shape == (1, 3, 8, 10)
    assert ops.upsample2d(x, f, up=[2, 3]).shape == (1, 3, 36, 16)
    assert ops.downsample2d(x, f, down=2).shape == (1, 3, 6, 4)


def test_upsampling_keeps_a_constant_image_inside():
    x, f = torch.ones(1, 1, 9, 9), ops.setup_filter([1, 3, 3, 1])
    assert_close(ops.upsample2d(x, f)[:, :, 3:-3, 3:-3], torch.ones(1, 1, 12, 12))
    assert_close(ops.downsample2d(x, f)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))


# --- errors -------------------------------------------------------------------------------------------------

X = torch.rand(2, 3, 6, 5)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: ops.upfirdn2d(X[0], taps(2)), ValueError, r"x must have shape \(N, C, H, W\), got \(3, 6, 5\)"),
    (lambda: ops.upfirdn2d(X.int(), taps(2)), TypeError, "x must be a floating-point tensor, got torch.int"),
    (lambda: ops.upfirdn2d(X[:0], taps(2)), ValueError, "x must not be empty"),
    (lambda: ops.upfirdn2d(X, [1.0]), TypeError, "f must be a floating-point tensor, got list"),
    (lambda: ops.upfirdn2d(X, taps(1, 1, 2)), ValueError, r"f must have shape .*got \(1, 1, 2\)"),
    (lambda: ops.upfirdn2d(X, taps(2)[:0]), ValueError, r"f must have shape .*got \(0,\)"),
    (lambda: ops.upfirdn2d(X, taps(2).requires_grad_()), ValueError, "f is a constant .*requires grad"),
    (lambda: ops.upfirdn2d(X, taps(2).to("meta")), ValueError, "one device"),
    (lambda: ops.upfirdn2d(X, None, up=0), ValueError, "up must be at least 1, got 0"),
    (lambda: ops.upfirdn2d(X, None, up=[1, 2, 3]), ValueError, r"up must be .*got list \[1, 2, 3\]"),
    (lambda: ops.upfirdn2d(X, None, down=1.5), TypeError, "down must be a whole number, got float 1.5"),
    (
        lambda: ops.upfirdn2d(X, None, padding=[1]), ValueError,
        r"padding must be a whole number, \[x, y\] or \[left, right, top, bottom\], got list \[1\]",
    ),
    (lambda: ops.upfirdn2d(X, None, padding="1"), TypeError, "padding must be a whole number, got str"),
    (lambda: ops.upfirdn2d(X, None, gain=float("nan")), ValueError, "gain must be finite, got nan"),
    (lambda: ops.upfirdn2d(X, None, flip_filter="no"), TypeError, "flip_filter must be True or False"),
    (
        lambda: ops.upfirdn2d(X, taps(8, 9), up=[1, 2], padding=[1, 2, -3, -2]), ValueError,
        r"as large as f, 8 x 9, got 7 x 8 of x's 6 x 5 with up \[1, 2\] and padding \[1, 2, -3, -2\]",
    ),
    (lambda: ops.upsample2d(X, [1.0]), TypeError, "f must be a floating-point tensor, got list"),
    (lambda: ops.filter2d(X, torch.tensor(1.0)), ValueError, r"f must have shape .*got \(\)"),
    (lambda: ops.setup_filter("taps"), TypeError, "f must be numbers, got str 'taps'"),
    (lambda: ops.setup_filter([1j, 1]), TypeError, r"f must be numbers, got list \[1j, 1\]"),
    (lambda: ops.setup_filter(torch.ones(1, 1, 1)), ValueError, r"got \(1, 1, 1\)"),
    (lambda: ops.setup_filter([1, -1]), ValueError, "f must not sum up to 0"),
    (lambda: ops.setup_filter([[1.0]], separable=True), ValueError, r"separable f .*got \(1, 1\)"),
    (lambda: ops.setup_filter(torch.ones(8), gain=-1), ValueError, "gain must not be negative .*got -1"),
])  # fmt: skip
def test_wrong_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_filter_whose_gradient_a_transform_wants_is_refused():
    with pytest.raises((ValueError, NotImplementedError), match="detached"):
        torch.func.grad(lambda f: ops.upfirdn2d(X, f).sum())(taps(2))
