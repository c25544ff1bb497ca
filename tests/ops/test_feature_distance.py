"""Feature distances: the kernel against the float64 reference, the reference against the lpips package."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops import feature_distance, lpips_head, use
from fastgan.reference import feature_distance as reference
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (2, 17, 33), (3, 40, 61)]
FORMULAS = [(1, False, False), (2, False, True), (1, True, True), (2, True, False)]


def maps(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=24):
    """Features before a ReLU, and similar ones after it."""
    x = (image(size, torch.float32, device, layout, channels) - 0.5).detach()
    y = (x + 0.3 * (image(size, torch.float32, device, layout, channels) - 0.5)).detach().relu()
    return [m.to(dtype).detach().requires_grad_() for m in (x, y)]


def gradients(distance, x, y):
    """The gradients of 1000 times the loss, a scale as GradScaler uses for float16."""
    scale = 1000 * torch.arange(1.0, len(distance) + 1, dtype=distance.dtype, device=distance.device)
    return torch.autograd.grad((distance * scale).sum(), (x, y))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("p", "normalize", "relu_x"), FORMULAS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_float64_reference(size, p, normalize, relu_x, dtype, layout, device):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the reference serves float64 on a GPU")
    x, y = maps(size, dtype, device, layout)
    options = {"p": p, "normalize": normalize, "relu_x": relu_x}
    distance = feature_distance(x, y, **options)
    wide = [exact(m) for m in (x, y)]
    expected = feature_distance(*wide, **options, backend="reference")
    assert distance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert relative_error(distance, expected) <= tolerance
    # Gradients of half types are computed in float32, rounded once, and once more when they are scaled.
    if dtype in (torch.bfloat16, torch.float16):
        tolerance = torch.finfo(dtype).eps
    for ours, theirs in zip(gradients(distance, x, y), gradients(expected, *wide), strict=True):
        assert ours.dtype == dtype
        # With p = 1, the sign of a difference that is only a rounding error is arbitrary.
        assert relative_error(ours, theirs) <= max(tolerance, 1e-3 if p == 1 and normalize else 0)


@pytest.mark.parametrize("channels", [2, 3, 64, 100, 512, 1100])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
# Rows that are shorter than the kernel's lanes, rows that it reads in place, and rows that it packs.
@pytest.mark.parametrize("size", [(2, 5, 7), (2, 11, 13), (2, 32, 32)])
def test_any_number_of_channels(size, channels, layout):
    x, y = maps(size, layout=layout, channels=channels)
    weight = torch.rand(channels)
    distance, wide = lpips_head(x, y, weight), [exact(m) for m in (x, y)]
    expected = lpips_head(*wide, weight.double(), backend="reference")
    assert relative_error(distance, expected) <= 2e-6
    for ours, theirs in zip(gradients(distance, x, y), gradients(expected, *wide), strict=True):
        assert relative_error(ours, theirs) <= 5e-6


def test_head_is_that_of_the_lpips_package():
    lpips = pytest.importorskip("lpips")
    x, y = maps((2, 9, 7), torch.float64)
    layer = lpips.lpips.NetLinLayer(24).eval().double()
    theirs = layer((lpips.normalize_tensor(x) - lpips.normalize_tensor(y)) ** 2).mean(dim=(1, 2, 3))
    weight = layer.model[0].weight.flatten()
    for backend in ("native", "reference"):
        ours = lpips_head(x, y, weight, backend=backend)
        assert_close(ours, theirs)
        assert_close(gradients(ours, x, y), gradients(lpips_head(x, y, weight, backend="reference"), x, y))


def test_plain_distances_are_torchs():
    x, y = maps((2, 9, 7), torch.float64)
    assert_close(feature_distance(x, y), (x - y).abs().mean(dim=(1, 2, 3)))
    assert_close(feature_distance(x, y, 2), (x - y).square().mean(dim=(1, 2, 3)))
    assert_close(feature_distance(x, y, relu_x=True), (x.relu() - y).abs().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_zero_vectors_have_no_gradient_and_no_nan(backend):
    x, y = maps((2, 3, 3), torch.float64)
    with torch.no_grad():
        x[:, :, 1] = 0
        y[:, :, 1:] = 0
    distance = lpips_head(x, y, torch.ones(24), backend=backend)
    grad_x, grad_y = gradients(distance, x, y)
    assert distance.isfinite().all() and grad_x.isfinite().all() and grad_y.isfinite().all()
    assert (grad_x[:, :, 1] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_equal_features_have_no_distance(layout, device):
    x = maps((2, 17, 33), device=device, layout=layout)[0]
    assert (lpips_head(x, x.detach().clone(), torch.ones(24, device=device)) == 0).all()


def test_nan_is_not_hidden():
    x, y = maps((2, 3, 3))
    with torch.no_grad():
        x[0, 3, 1, 1] = float("nan")
    for relu_x in (False, True):
        assert feature_distance(x, y, relu_x=relu_x).isnan().tolist() == [True, False]


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_one_map_alone(which):
    pair = maps((2, 8, 9))
    expected = gradients(feature_distance(*pair, 2, True), *pair)[which]
    pair[1 - which].requires_grad_(False)
    distance = feature_distance(*pair, 2, True)
    scale = torch.tensor([1000.0, 2000.0])
    (distance * scale).sum().backward()
    assert_close(pair[which].grad, expected)
    assert pair[1 - which].grad is None


def test_gradcheck():
    x, y = maps((2, 3, 2), torch.float64, channels=4)
    for p, normalize, relu_x in FORMULAS:
        for backend in ("native", "reference"):
            torch.autograd.gradcheck(
                lambda x, y: feature_distance(x, y, p, normalize, relu_x=relu_x, backend=backend),  # noqa: B023
                (x, y),
            )
    torch.autograd.gradgradcheck(lambda x, y: feature_distance(x, y, 2, True, backend="reference"), (x, y))


def test_a_second_gradient_is_refused_and_never_wrong():
    x, y = maps((2, 3, 2))
    (first,) = torch.autograd.grad(feature_distance(x, y, 2, True).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="backend='reference'"):
        first.square().sum().backward()
    with use("reference"):
        (first,) = torch.autograd.grad(feature_distance(x, y, 2, True).sum(), x, create_graph=True)
        first.square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_backward_twice_gives_the_same():
    x, y = maps((2, 3, 2))
    distance = feature_distance(x, y, 2, True).sum() * 3
    first = torch.autograd.grad(distance, (x, y), retain_graph=True)
    kept = copy.deepcopy(first)
    second = torch.autograd.grad(distance, (x, y))
    assert_close(first, kept, rtol=0, atol=0)
    assert_close(second, kept)


def test_saves_one_gradient():
    x, y = maps((2, 40, 61))
    y.requires_grad_(False)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        feature_distance(x, y, 2, True)
    assert sum(t.numel() * t.element_size() for t in saved) == x.numel() * 4


@pytest.mark.parametrize("p", [1, 2])
def test_opcheck_and_compile(p):
    x, y = maps((2, 5, 7))
    arguments = (x, y, torch.rand(24), p, True, 1e-10, False, True, True, True)
    # All but test_aot_dispatch_dynamic, which takes second derivatives; these are refused.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.fastgan.feature_distance.default, arguments, test_utils=checks)
    direction = torch.rand_like(x)
    torch.library.opcheck(
        torch.ops.fastgan.feature_distance_backward.default, (direction, torch.rand(2), False)
    )
    eager = feature_distance(x, y, p, True)
    compiled = torch.compile(feature_distance, fullgraph=True)(x, y, p, True)
    assert_close(compiled, eager)
    assert_close(gradients(compiled, x, y), gradients(eager, x, y))


def test_same_bits_for_any_number_of_threads():
    x, y = maps((3, 90, 70))
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            distance = feature_distance(x, y, 2, True)
            results.append([distance, *gradients(distance, x, y)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_maps_of_different_layouts_and_types():
    x, y = maps((2, 5, 7))
    expected = feature_distance(x, y, 2, True)
    assert_close(feature_distance(x.to(memory_format=torch.channels_last), y, 2, True), expected)
    mixed = feature_distance(x.double(), y, 2, True)
    assert mixed.dtype == torch.float64
    assert_close(mixed.float(), expected)
    flat = feature_distance(x.flatten(2), y.flatten(2), 2, True)
    assert_close(flat, expected)


def test_weights_with_gaps():
    x, y = maps((2, 5, 7))
    weight = torch.rand(48)[::2]
    assert_close(lpips_head(x, y, weight), lpips_head(x, y, weight, backend="reference"))


def test_reference_map_is_the_distance_before_its_mean():
    x, y = maps((2, 5, 7), torch.float64)
    weight = torch.full((24,), 1 / 24, dtype=torch.float64)
    spread = reference.feature_distance_map(x, y, weight)
    assert spread.shape == (2, 5, 7)
    assert_close(spread.mean(dim=(1, 2)), feature_distance(x, y, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 3)), ValueError, r"one shape, got \(1, 3, 2, 2\) and"),
        ((torch.ones(3, 2), torch.ones(3, 2)), ValueError, r"shape \(N, C, ...\)"),
        ((torch.ones(1, 3, 0), torch.ones(1, 3, 0)), ValueError, "and an element"),
        ((torch.ones(1, 3, 2), torch.ones(1, 3, 2), 3), ValueError, "p must be one of 1, 2, got 3"),
        ((torch.ones(1, 3, 2).int(), torch.ones(1, 3, 2)), TypeError, "features_x .* got torch.int32"),
        (([1.0], torch.ones(1, 3, 2)), TypeError, "features_x .* got list"),
    ],
)
def test_wrong_maps_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        feature_distance(*arguments)


def test_wrong_weights_are_named():
    x, y = maps((2, 5, 7))
    with pytest.raises(ValueError, match=r"weight must have shape \(24,\), got \(23,\)"):
        lpips_head(x, y, torch.ones(23))
    with pytest.raises(ValueError, match="got features_x on cpu, features_y on cpu, weight on meta"):
        lpips_head(x, y, torch.ones(24, device="meta"))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("p", [1, 2])
def test_infinite_features_that_cancel_are_nan(p, backend):
    x = torch.rand(2, 3, 4, 5)
    x[1, 2, 3, 4] = torch.inf
    y = x.clone().requires_grad_()
    x.requires_grad_()
    distance = feature_distance(x, y, p, backend=backend)
    assert distance[0] == 0 and distance[1].isnan()
    for gradient in torch.autograd.grad(distance.sum(), (x, y)):
        assert gradient.isnan().nonzero().tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_vectors_whose_squares_overflow_are_nan(layout, backend):
    for channels in (1, 3):
        x, y = (torch.rand(2, channels, 4, 5).to(memory_format=layout) for _ in range(2))
        x[1, 0, 2, 3] = 1e30
        distance = feature_distance(x, y, 2, True, backend=backend)
        assert distance[0].isfinite() and distance[1].isnan()
