"""Structural similarity: the kernel against the float64 reference, that against the paper's formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.ops import _dispatch, ssim_distance, use
from fastgan.reference.ssim import window_taps
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, largest_error, relative_error

# Smaller than a vector, odd, more than a strip of columns, and more than a band of rows.
SIZES = [(1, 11, 11), (2, 29, 37), (1, 40, 261), (1, 290, 23)]
PADDINGS = ["valid", "same", "reflect"]


def pair(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=3):
    """Two similar images that require grad."""
    x = image(size, torch.float32, device, layout, channels)
    noise = image(size, torch.float32, device, layout, channels)
    y = (0.7 * x + 0.3 * noise).to(dtype).detach().requires_grad_()
    return x.to(dtype).detach().requires_grad_(), y


def gradients(distance, *images):
    """Of a different weighting of each image and channel, as large as GradScaler makes it for float16."""
    weights = 1000 * torch.linspace(0.5, 1.5, distance.numel(), dtype=distance.dtype, device=distance.device)
    return torch.autograd.grad((distance * weights.view_as(distance)).sum(), images)


def from_the_paper(x, y, sigma=1.5, size=11, padding="valid", data_range=1.0, k=(0.01, 0.03)):
    """The map of SSIM by convolutions with the whole window."""
    offsets = torch.arange(size, dtype=x.dtype) - size // 2
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = torch.outer(taps, taps) / taps.sum() ** 2
    channels = x.shape[1]
    if padding != "valid":
        mode = {"same": "constant", "reflect": "reflect"}[padding]
        x, y = (F.pad(z, [size // 2] * 4, mode=mode) for z in (x, y))

    def mean(z):
        return F.conv2d(z, window.expand(channels, 1, size, size), groups=channels)

    c1, c2 = ((factor * data_range) ** 2 for factor in k)
    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_float64_reference(size, padding, dtype, layout, device):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the reference serves float64 on a GPU")
    x, y = pair(size, dtype, device, layout)
    distance = ssim_distance(x, y, padding=padding, l1_weight=0.3)
    wide = [exact(z) for z in (x, y)]
    expected = ssim_distance(*wide, padding=padding, l1_weight=0.3, backend="reference")
    assert distance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-6 if device == "cpu" else 1e-5
    assert relative_error(distance, expected) <= tolerance
    # Gradients of half types are computed in float32, rounded once, and once more when they are scaled.
    if dtype in (torch.bfloat16, torch.float16):
        tolerance = torch.finfo(dtype).eps
    for ours, theirs in zip(gradients(distance, x, y), gradients(expected, *wide), strict=True):
        assert ours.dtype == dtype
        assert relative_error(ours, theirs) <= 2 * tolerance


@pytest.mark.parametrize("padding", PADDINGS)
def test_value_is_that_of_the_paper(padding):
    x, y = pair((2, 31, 43), torch.float64, channels=4)
    expected = (1 - from_the_paper(x, y, padding=padding)).mean(dim=(2, 3))
    expected_gradients = gradients(expected, x, y)
    for backend in ("native", "reference"):
        distance = ssim_distance(x, y, padding=padding, backend=backend)
        assert_close(distance, expected, rtol=1e-11, atol=0)
        assert_close(gradients(distance, x, y), expected_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"window_size": 1},
        {"window_size": 7, "sigma": 2.0},
        {"window_size": 11, "sigma": 0.8},
        {"window_size": 21, "sigma": 4.0},
        {"window": "uniform", "window_size": 5},
        {"data_range": 255.0, "k": (0.02, 0.4)},
        {"contrast": True},
        {"weight": 0.0, "l1_weight": 1.0},
        {"weight": -2.0, "l1_weight": 0.5},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("padding", PADDINGS)
def test_options(options, padding):
    x, y = pair((2, 31, 37))
    distance = ssim_distance(x, y, padding=padding, **options)
    wide = [exact(z) for z in (x, y)]
    expected = ssim_distance(*wide, padding=padding, **options, backend="reference")
    assert relative_error(distance, expected) <= 1e-6
    for ours, theirs in zip(gradients(distance, x, y), gradients(expected, *wide), strict=True):
        assert relative_error(ours, theirs) <= 1e-5


def test_any_number_of_channels():
    for channels in (1, 2, 5):
        x, y = pair((2, 13, 17), channels=channels)
        distance = ssim_distance(x, y)
        assert distance.shape == (2, channels)
        assert relative_error(distance, ssim_distance(exact(x), exact(y), backend="reference")) <= 1e-6


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0])
def test_flat_areas_keep_their_digits(offset):
    """Variances of 1e-6 beside squares of 1, of which float32 has seven digits."""
    x = (0.002 * image((1, 40, 50)).detach() + offset).requires_grad_()
    y = (x.detach() + 0.001 * image((1, 40, 50)).detach()).requires_grad_()
    distance, wide = ssim_distance(x, y), [exact(z) for z in (x, y)]
    expected = ssim_distance(*wide, backend="reference")
    assert relative_error(distance, expected) <= 1e-5
    for ours, theirs in zip(gradients(distance, x, y), gradients(expected, *wide), strict=True):
        assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_equal_images_have_no_distance_and_no_gradient(padding, backend):
    for x in (image((2, 23, 31)), torch.full((1, 3, 23, 31), 0.3), torch.zeros(1, 1, 23, 31)):
        x = x.detach().requires_grad_()
        y = x.detach().clone().requires_grad_()
        distance = ssim_distance(x, y, padding=padding, backend=backend)
        assert (distance == 0).all()
        for gradient in gradients(distance, x, y):
            assert (gradient == 0).all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_constant_images_have_finite_gradients(backend):
    for a, b in ((0.2, 0.7), (0.0, 1.0)):
        x, y = (torch.full((1, 3, 23, 31), value, requires_grad=True) for value in (a, b))
        distance = ssim_distance(x, y, backend=backend)
        expected = 1 - (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
        assert_close(distance, torch.full((1, 3), expected), rtol=1e-5, atol=1e-5)
        assert all(gradient.isfinite().all() for gradient in gradients(distance, x, y))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_stays_in_its_channel_and_its_windows(backend):
    x, y = pair((2, 41, 45))
    with torch.no_grad():
        x[0, 1, 20, 20] = torch.nan
    distance = ssim_distance(x, y, backend=backend)
    assert distance.isnan().nonzero().tolist() == [[0, 1]]
    grad_x, _ = gradients(distance, x, y)
    assert grad_x[0, 1, 20, 20].isnan() and grad_x[0, 1, :9].isfinite().all()
    assert grad_x[0, 0].isfinite().all() and grad_x[1].isfinite().all()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [(2, 29, 37), (1, 40, 261)])
def test_gradients_of_one_image_alone(size, which):
    images = pair(size)
    expected = gradients(ssim_distance(*images, l1_weight=0.2), *images)[which]
    images[1 - which].requires_grad_(False)
    distance = ssim_distance(*images, l1_weight=0.2)
    (ours,) = gradients(distance, images[which])
    assert_close(ours, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_gradcheck():
    x, y = pair((1, 12, 13), torch.float64, channels=2)
    for padding in PADDINGS:
        for backend in ("native", "reference"):
            torch.autograd.gradcheck(
                lambda x, y: ssim_distance(x, y, padding=padding, l1_weight=0.5, backend=backend),  # noqa: B023
                (x, y), fast_mode=True,
            )  # fmt: skip
    torch.autograd.gradgradcheck(
        lambda x, y: ssim_distance(x, y, backend="reference"), (x, y), fast_mode=True
    )


def test_a_second_gradient_is_refused_and_never_wrong():
    x, y = pair((1, 12, 13))
    (first,) = torch.autograd.grad(ssim_distance(x, y).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="backend='reference'"):
        first.square().sum().backward()
    with use("reference"):
        (first,) = torch.autograd.grad(ssim_distance(x, y).sum(), x, create_graph=True)
        first.square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_backward_twice_gives_the_same(dtype):
    x, y = pair((2, 13, 17), dtype)
    loss = 3 * ssim_distance(x, y).mean()
    first = torch.autograd.grad(loss, (x, y), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(loss, (x, y))
    assert_close(first, kept, rtol=0, atol=0)
    assert_close(second, kept)


def test_a_float64_gradient_is_scaled_by_factors_close_to_one():
    x, y = pair((2, 13, 17), torch.float64)
    (gradient,) = torch.autograd.grad(ssim_distance(x, y).mean(), x)
    factor = 1 + 2.0**-26
    (scaled,) = torch.autograd.grad(factor * ssim_distance(x, y).mean(), x)
    assert_close(scaled, factor * gradient, rtol=1e-14, atol=0)


def test_saves_one_gradient():
    x, y = pair((2, 13, 17))
    y.requires_grad_(False)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ssim_distance(x, y)
    assert sum(t.numel() * t.element_size() for t in saved) == x.numel() * 4


def test_opcheck_and_compile():
    x, y = pair((2, 13, 17))
    arguments = (x, y, 11, 1.5, 1e-4, 9e-4, 1, False, 1.0, 0.5, True, True)
    # All but test_aot_dispatch_dynamic, which takes second derivatives; these are refused.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.fastgan.ssim.default, arguments, test_utils=checks)
    direction = torch.rand(2, 3, 13, 17, dtype=torch.float32)
    torch.library.opcheck(
        torch.ops.fastgan.ssim_backward.default, (direction, torch.rand(2, 3), torch.float16)
    )
    eager = ssim_distance(x, y)
    compiled = torch.compile(ssim_distance, fullgraph=True)(x, y)
    assert_close(compiled, eager)
    assert_close(gradients(compiled, x, y), gradients(eager, x, y))


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_compiled_reference_is_the_eager_one(padding):
    x, y = (z.double().detach().requires_grad_() for z in pair((2, 9, 12)))
    torch._dynamo.reset()

    def distance(x, y):
        return ssim_distance(x, y, window_size=5, padding=padding, backend="reference")

    compiled, eager = torch.compile(distance, fullgraph=True, backend="aot_eager")(x, y), distance(x, y)
    assert_close(compiled, eager, rtol=1e-12, atol=1e-14)
    assert_close(gradients(compiled, x, y), gradients(eager, x, y), rtol=1e-12, atol=1e-14)


def test_same_bits_for_any_number_of_threads():
    x, y = pair((1, 300, 270))
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            distance = ssim_distance(x, y, l1_weight=0.1)
            results.append([distance, *gradients(distance, x, y)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_images_of_different_layouts_and_types():
    x, y = pair((2, 13, 17))
    expected = ssim_distance(x, y)
    assert_close(ssim_distance(x.to(memory_format=torch.channels_last), y), expected)
    mixed = ssim_distance(x.double(), y)
    assert mixed.dtype == torch.float64
    assert_close(mixed.float(), expected)


def test_larger_windows_than_the_triton_kernels_take_are_the_references(monkeypatch):
    monkeypatch.setattr(_dispatch, "_warned", set())
    monkeypatch.setattr(_dispatch, "choose", lambda op, tensors, backend=None: "triton")
    x, y = torch.rand(2, 1, 1, 40, 40)
    options = {"window_size": 35, "padding": "same"}
    with pytest.warns(RuntimeWarning, match="ssim runs its PyTorch reference: .* at most 33, got 35"):
        found = ssim_distance(x, y, **options)
    monkeypatch.undo()
    assert_close(found, ssim_distance(x, y, backend="reference", **options), rtol=0, atol=0)
    monkeypatch.setattr(_dispatch, "choose", lambda op, tensors, backend=None: "triton")
    with pytest.raises(RuntimeError, match="'triton' was requested, but .* at most 33, got 35"):
        ssim_distance(x, y, backend="triton", **options)


OPTIONS = [
    {},
    {"padding": "same"},
    {"padding": "reflect", "window_size": 7, "window": "uniform"},
    {"window_size": 35, "sigma": 5.0},
]
# Of hardly more than a pixel: its gradients are differences of nearly equal numbers.
NARROW = {"sigma": 0.3}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [*OPTIONS, NARROW], ids=str)
def test_gradients_on_photographs(options, device, photographs):
    """Flat areas lie beside edges there, where a mean square is much larger than the variance."""
    x = photographs[..., 40:, 20:280].to(device)
    for y in (0.9 * x + 0.1 * x.flip(0), (x + 0.03).clamp(0, 1), x.flip(3)):
        images = x.clone().requires_grad_(), y.clone().requires_grad_()
        wide = exact(images[0]), exact(images[1])
        found = gradients(ssim_distance(*images, **options), *images)
        expected = gradients(ssim_distance(*wide, backend="reference", **options), *wide)
        for ours, theirs in zip(found, expected, strict=True):
            assert largest_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [*OPTIONS, NARROW], ids=str)
@pytest.mark.parametrize("step", [1, 10, 100])
@pytest.mark.parametrize("images_with_it", [1, 2])
@pytest.mark.parametrize(("axis", "at"), [(2, 40), (2, 41), (2, 42), (2, 43), (3, 40), (3, 41)])
def test_keeps_its_digits_next_to_a_step_of_many_data_ranges(axis, at, images_with_it, step, options, device):
    if device != "cpu" and options.get("window_size", 0) > 33:
        pytest.skip("the reference serves it, which loses more")
    x, y = torch.rand(2, 2, 1, 80, 80, generator=torch.Generator().manual_seed(0))
    for image_ in (x, y)[:images_with_it]:
        image_.narrow(axis, at, 80 - at).add_(step)
    images = [z.to(device).requires_grad_() for z in (x, y)]
    wide = [exact(z) for z in images]
    distance = ssim_distance(*images, **options)
    expected = ssim_distance(*wide, **options, backend="reference")
    if device == "cpu":
        of_loss, of_gradients = 1e-6, 4e-6 * step
    else:  # rows share shifts
        of_loss, of_gradients = 5e-6 * max(1, step**2 / 100), 2e-5 * step
    assert largest_error(distance, expected) <= of_loss
    if options != NARROW:
        for ours, theirs in zip(gradients(distance, *images), gradients(expected, *wide), strict=True):
            assert largest_error(ours, theirs) <= of_gradients


@pytest.mark.parametrize(("size", "options"), [(35, {"window": "uniform"}), (119, {"sigma": 25.0})], ids=str)
@pytest.mark.parametrize("height", [1, 10])
@pytest.mark.parametrize("columns", [1, 60])
def test_outliers_at_the_centre_of_a_large_window(columns, height, size, options):
    x, y = torch.rand(2, 1, 1, size, size, generator=torch.Generator().manual_seed(0))
    for image_ in (x, y):
        image_[..., size // 2, size // 2 : size // 2 + columns].add_(height)
    images = [z.clone().requires_grad_() for z in (x, y)]
    wide = [exact(z) for z in images]
    distance = ssim_distance(*images, window_size=size, **options)
    expected = ssim_distance(*wide, window_size=size, **options, backend="reference")
    assert largest_error(distance, expected) <= 1e-6
    for ours, theirs in zip(gradients(distance, *images), gradients(expected, *wide), strict=True):
        assert largest_error(ours, theirs) <= 2e-6


@pytest.mark.parametrize(("step", "error"), [(1, 1e-6), (10, 1e-5), (100, 1e-3)])
@pytest.mark.parametrize("axis", [2, 3])
def test_digits_that_the_reference_loses_next_to_a_step_of_many_data_ranges(step, error, axis):
    x, y = torch.rand(2, 2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for image_ in (x, y):
        image_.narrow(axis, 32, 32).add_(step)
    expected = ssim_distance(x.double(), y.double(), backend="reference")
    assert_close(ssim_distance(x, y, backend="reference").double(), expected, rtol=error, atol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_contrast_needs_no_constant_of_the_luminance(device):
    """Not even where the luminance is 0 / 0: in black areas."""
    x, y = torch.rand(2, 1, 2, 20, 24, generator=torch.Generator().manual_seed(0))
    x[..., :14], y[..., :14] = 0, 0
    images = [z.to(device).requires_grad_() for z in (x, y)]
    wide = [exact(z) for z in images]
    options = {"k": (0.0, 0.03), "contrast": True}
    distance = ssim_distance(*images, **options)
    expected = ssim_distance(*wide, **options, backend="reference")
    assert largest_error(distance, expected) <= 2e-6
    for ours, theirs in zip(gradients(distance, *images), gradients(expected, *wide), strict=True):
        assert largest_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize(("size", "sigma"), [(11, 0.3), (41, 1.5), (5, 1e-3)])
def test_taps_are_zero_or_normal_numbers_of_float32(size, sigma):
    """Others would make constants of float64 in Triton's kernels, which then do not compile."""
    taps = window_taps(size, sigma)
    assert 0.0 in taps and all(tap == 0 or tap >= torch.finfo(torch.float32).tiny for tap in taps)
    x, y = torch.rand(2, 1, 1, 48, 48)
    options = {"window_size": size, "sigma": sigma}
    assert_close(ssim_distance(x, y, **options), ssim_distance(x, y, backend="reference", **options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"y": torch.rand(1, 3, 12, 13)}, ValueError, r"got \(1, 3, 12, 12\) and \(1, 3, 12, 13\)"),
        ({"x": torch.rand(3, 12, 12)}, ValueError, r"x must have shape \(N, C, H, W\), got \(3, 12, 12\)"),
        ({"y": torch.rand(1, 3, 12, 12).int()}, TypeError, "y must be a floating-point image"),
        ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
        ({"window_size": 13}, ValueError, "least 13 x 13 pixels for windows of 13 x 13 and padding='valid'"),
        ({"window_size": 27, "padding": "reflect"}, ValueError, "least 14 x 14 pixels for windows of 27"),
        ({"window_size": 10}, ValueError, "window_size must be odd and at most 255, got 10"),
        ({"window_size": 0}, ValueError, "window_size must be at least 1, got 0"),
        ({"window": "box"}, ValueError, "window must be one of gaussian, uniform, got 'box'"),
        ({"sigma": 0}, ValueError, "sigma must be positive, got 0"),
        ({"data_range": -1.0}, ValueError, "data_range must be positive, got -1.0"),
        ({"k": (0.01,)}, ValueError, "k must be 2 finite numbers"),
        ({"k": (0.01, -0.03)}, ValueError, "k must not be negative, got -0.03"),
        ({"padding": "zeros"}, ValueError, "padding must be one of valid, same, reflect, got 'zeros'"),
        ({"contrast": "yes"}, TypeError, "contrast must be True or False"),
        ({"weight": float("nan")}, ValueError, "weight must be finite, got nan"),
        ({"l1_weight": "much"}, TypeError, "l1_weight must be a number"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(options, error, message):
    arguments = {"x": torch.rand(1, 3, 12, 12), "y": torch.rand(1, 3, 12, 12), **options}
    with pytest.raises(error, match=message):
        ssim_distance(**arguments)
