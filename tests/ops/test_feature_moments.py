"""Means, variances and covariances of maps: the kernel against float64, gradients, transforms, errors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.ops import feature_moments
from fastgan.reference.feature_moments import feature_moments as reference
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

# Sizes and channels that leave blocks, chunks, tiles and vectors partly filled.
SIZES = [
    ((1, 1, 1), 1),
    ((2, 5, 7), 3),
    ((2, 17, 33), 37),
    ((1, 150, 130), 2),
    ((1, 4, 5), 600),
    ((2, 40, 41), 64),
]


def maps(size=(2, 5, 6), dtype=torch.float32, device="cpu", layout="contiguous", channels=3, mean=0.5):
    """Two maps that are correlated."""
    x, y = (image(size, dtype, device, layout, channels).detach() for _ in "xy")
    y = (x + y) / 2 if layout != "expanded" else y
    return (x + (mean - 0.5)).requires_grad_(), (y + (mean - 0.5)).requires_grad_()


def stacked(x, y, backend=None):
    return torch.stack(feature_moments(x, y, backend=backend), dim=-1)


def assert_near(actual, expected, tolerance=1e-6):
    """Covariances are compared with the product of deviations, of which they may be a small part."""
    actual, expected = actual.detach().cpu().double(), expected.detach()
    assert relative_error(actual[..., :4], expected[..., :4]) <= tolerance
    scale = (expected[..., 2] * expected[..., 3]).sqrt().clamp(min=1e-12)
    assert ((actual[..., 4] - expected[..., 4]).abs() <= 2 * tolerance * scale).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("size", "channels"), SIZES)
def test_kernel_matches_the_reference_in_float64(device, layout, size, channels):
    x, y = maps(size, device=device, layout=layout, channels=channels)
    moments = feature_moments(x, y)
    expected = reference(exact(x), exact(y))
    for number, each in enumerate(moments):
        assert each.dtype == torch.float32 and each.shape == (size[0], channels)
        assert_close(each.cpu().double(), expected[..., number], rtol=2e-6, atol=1e-7)
    grad = torch.randn(*expected.shape, device=device)
    actual = torch.autograd.grad(torch.stack(moments, dim=-1), (x, y), grad)
    wide = exact(x), exact(y)
    for ours, theirs in zip(
        actual, torch.autograd.grad(reference(*wide), wide, grad.cpu().double()), strict=True
    ):
        assert relative_error(ours, theirs) <= 1e-6


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("mean", [30.0, 1000.0])
def test_means_that_are_large_beside_the_deviations_cost_no_digits(mean, layout):
    x, y = maps((2, 60, 70), layout=layout, channels=20, mean=mean)
    wide = exact(x), exact(y)
    expected = reference(*wide)
    actual = stacked(x, y)
    assert_near(actual, expected)
    grad = torch.randn(*actual.shape)
    gradients = torch.autograd.grad(actual, (x, y), grad)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        assert relative_error(ours, theirs) <= 1e-6


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_parts_of_a_plane_may_have_different_means(layout):
    """Of two halves, black and white, the variance is that between them."""
    x = torch.zeros(1, 20, 128, 300)
    x[:, :, 64:] = 1
    x, y = x.contiguous(memory_format=getattr(torch, f"{layout}_format", torch.channels_last)), 1 - x
    assert_close(stacked(x, y), torch.tensor([0.5, 0.5, 0.25, 0.25, -0.25]).expand(1, 20, 5))


def test_constant_maps_have_no_variance():
    x = torch.full((1, 3, 50, 60), 0.1)
    moments = feature_moments(x, 3 * x)
    assert not any(each.any() for each in moments[2:])
    assert_close(moments.mean_x, torch.full((1, 3), 0.1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type(device, layout, dtype):
    if dtype == torch.float64 and device == "cuda":
        pytest.skip("GPU kernels take no float64")
    x, y = maps((3, 17, 33), dtype, device, layout, channels=18)
    for of_y in (y, y.detach().contiguous().requires_grad_(), y.detach().float().requires_grad_()):
        wide = exact(x), exact(of_y)
        actual, expected = stacked(x, of_y), reference(*wide)
        assert actual.dtype == torch.promote_types(dtype, torch.float32)
        assert_near(actual, expected)
        gradients = torch.autograd.grad(actual.square().sum(), (x, of_y))
        for ours, theirs, leaf in zip(
            gradients, torch.autograd.grad(expected.square().sum(), wide), (x, of_y), strict=True
        ):
            assert ours.dtype == leaf.dtype
            assert relative_error(ours, theirs) <= max(2e-6, torch.finfo(leaf.dtype).eps)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [2, 17])
def test_gradients_of_every_order(channels, layout):
    x, y = maps((2, 2, 2), torch.float64, layout=layout, channels=channels)
    assert torch.autograd.gradcheck(stacked, (x, y))
    assert torch.autograd.gradgradcheck(stacked, (x, y))
    assert torch.autograd.gradgradcheck(lambda x: stacked(x, y.detach()), (x,))


def test_a_third_derivative_matches_the_reference():
    results = []
    for backend in (None, "reference"):
        torch.manual_seed(0)
        x, y = maps((1, 3, 4), torch.float64)
        value = stacked(x, y, backend).pow(3).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = gradient.square().sum()
        results.append(value)
    assert_close(*results)


def test_no_graph_where_no_gradient_is_wanted():
    x, y = (map_.detach() for map_ in maps())
    assert not any(each.requires_grad for each in feature_moments(x, y))
    y.requires_grad_()
    assert all(each.requires_grad for each in feature_moments(x, y))
    assert torch.autograd.grad(stacked(x, y).sum(), y)[0].shape == y.shape
    with torch.no_grad():
        assert not feature_moments(x, y).mean_x.requires_grad


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    for layout in ("contiguous", "channels_last"):
        (x, y), results = maps((2, 150, 170), layout=layout, channels=20), []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                moments = stacked(x, y)
                results.append((moments, *torch.autograd.grad(moments.square().sum(), (x, y))))
        finally:
            torch.set_num_threads(threads)
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_nan_and_infinity_stay_in_their_planes():
    x, y = (map_.detach() for map_ in maps((2, 40, 40), channels=4))
    x[0, 1, 3, 4], x[1, 2, 30, 5], y[1, 3, 7, 7] = torch.nan, torch.inf, -torch.inf
    for layout in (torch.contiguous_format, torch.channels_last):
        of_layout = x.contiguous(memory_format=layout), y.contiguous(memory_format=layout)
        assert_close(stacked(*of_layout), reference(*of_layout), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    forward = torch.ops.fastgan.feature_moments.default
    backward = torch.ops.fastgan.feature_moments_backward.default
    for layout in ("contiguous", "channels_last"):
        x, y = maps((2, 5, 6), dtype, layout=layout)
        torch.library.opcheck(forward, (x, y))
        with torch.no_grad():
            moments, rests = forward(x, y)
        grad = torch.rand_like(moments).requires_grad_()
        for with_x, with_y in ((True, True), (True, False)):
            torch.library.opcheck(backward, (x, y, moments, rests, grad, with_x, with_y))


def test_under_compile():
    def penalized(x, y):
        loss = stacked(x, y).square().sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + gradient.square().sum()

    x, y = maps((2, 6, 7))
    for function in (lambda x, y: stacked(x, y).square().sum(), penalized):
        expected = torch.autograd.grad(function(x, y), (x, y))
        if function is not penalized:
            function = torch.compile(function, fullgraph=True)
        assert_close(torch.autograd.grad(function(x, y), (x, y)), expected)


def test_under_functorch():
    x, y = (map_.detach() for map_ in maps((2, 5, 6)))
    several = torch.stack([x, 2 * x, x - y])

    def loss(x, y):
        return stacked(x, y).square().sum()

    inside = torch.vmap(torch.func.grad(loss, (0, 1)), (0, None))(several, y)
    twice = torch.vmap(torch.func.grad(lambda x, y: torch.func.grad(loss)(x, y).square().sum()), (0, None))(
        several, y
    )
    leaf = several.clone().requires_grad_()
    outside = torch.autograd.grad(torch.vmap(loss, (0, None))(leaf, y).sum(), leaf)[0]
    for number, of_call in enumerate(several):
        leaves = of_call.clone().requires_grad_(), y.clone().requires_grad_()
        expected = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
        assert_close([gradient[number] for gradient in inside], list(expected))
        assert_close(outside[number], expected[0])
        assert_close(twice[number], torch.autograd.grad(expected[0].square().sum(), leaves[0])[0])


def test_a_batch_of_gradients():
    x, y = maps()
    moments = stacked(x, y)
    grads = torch.rand(3, *moments.shape)
    actual = torch.autograd.grad(moments, (x, y), grads, is_grads_batched=True, retain_graph=True)
    for number, grad in enumerate(grads):
        expected = torch.autograd.grad(moments, (x, y), grad, retain_graph=True)
        assert_close([gradient[number] for gradient in actual], list(expected))


X = torch.rand(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (None, X, TypeError, "features_x must be a floating-point tensor, got None"),
        (X, X.long(), TypeError, "features_y must be a floating-point tensor, got torch.int64"),
        (X, X[:1], ValueError, r"features_x and features_y must have the same shape, got \(2, 3, 4, 5\) and"),
        (X[:, :, 0, 0], X[:, :, 0, 0], ValueError, r"feature maps must have shape .*, got \(2, 3\)"),
        (X[..., :0], X[..., :0], ValueError, r"feature maps must have .* an element, got \(2, 3, 4, 0\)"),
        (X, X.to("meta"), ValueError, "all tensors must be on one device"),
    ],
)
def test_errors(x, y, error, message):
    with pytest.raises(error, match=message):
        feature_moments(x, y)
    with pytest.raises(ValueError, match="backend must be one of"):
        ops.feature_moments(X, X, backend="cuda")
