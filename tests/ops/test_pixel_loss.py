"""pixel_loss: kernels against the float64 reference, the reference against torch and kornia."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import ops
from fastgan.losses import PixelLoss, pixel_loss, total_variation_loss, yuv_color_l2
from fastgan.ops.pixel_loss import KINDS
from fastgan.reference.pixel_loss import sobel
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

EVERYTHING = {
    "sobel_weight": 0.5,
    "tv_weight": 0.3,
    "edge_gain": 3.0,
    "loss_weight": 2.0,
    "eps": 1e-3,
    "delta": 0.3,
}
YUV = {"color": "yuv", "yuv_scales": (1.0, 100.0, 50.0)}
# With one row, one column, several tiles and halos of the CPU's kernel.
SIZES = [(1, 1, 1), (2, 1, 7), (1, 9, 1), (2, 3, 5), (3, 17, 33), (1, 64, 64), (2, 37, 261), (1, 5, 1100)]


def differentiated(x, y, weight=None, **options):
    """The loss, its parts, and the gradients of those images that require one."""
    loss, parts = ops.pixel_loss(x, y, weight, **options)
    leaves = [leaf for leaf in (x, y) if leaf is not None and leaf.requires_grad]
    return loss, parts, *torch.autograd.grad(3 * loss, leaves)


def in_float64(x, y, weight=None, **options):
    weight = None if weight is None else weight.detach().double().cpu()
    x, y = (None if each is None else exact(each).requires_grad_(each.requires_grad) for each in (x, y))
    return differentiated(x, y, weight, **options, backend="reference")


def assert_near(results, expected, tolerance=1e-6):
    for actual, reference in zip(results, expected, strict=True):
        assert relative_error(actual, reference) <= tolerance


# --- what it computes ------------------------------------------------------------------------------------

TORCH = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "charbonnier": lambda x, y, reduction: {"mean": torch.mean, "sum": torch.sum, "none": lambda map: map}[
        reduction
    ](((x - y) ** 2 + 1e-3).sqrt()),
    "huber": lambda x, y, reduction: F.huber_loss(x, y, reduction=reduction, delta=0.3),
}


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_has_torchs_value_and_gradient(kind, reduction, backend):
    x, y = (image((2, 9, 11), torch.float64, channels=5) for _ in range(2))
    loss, _, *gradients = differentiated(
        x, y, kind=kind, eps=1e-3, delta=0.3, reduction=reduction, backend=backend
    )
    expected = TORCH[kind](x, y, reduction=reduction)
    assert_close(loss, expected)
    assert_close(tuple(gradients), torch.autograd.grad(3 * expected, (x, y)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_reduction_it_is_torchs_map(kind):
    x, y = (image((2, 9, 11), channels=2) for _ in range(2))
    weight = torch.rand(2, 1, 9, 11)
    options = {"kind": kind, "eps": 1e-3, "delta": 0.3, "reduction": "none"}
    assert_close(pixel_loss(x, y, **options), TORCH[kind](x, y, reduction="none"))
    weighed = pixel_loss(x, y, weight, loss_weight=2.0, **options)
    assert_close(weighed, 2 * weight * TORCH[kind](x, y, reduction="none"))
    assert_close(
        pixel_loss(x, y, color="rgb", **options).sum(), pixel_loss(x, y, **options | {"reduction": "sum"})
    )


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("kind", ["l1", "huber"])
def test_equal_pixels_and_nan_have_torchs_gradient(kind, backend):
    x = (
        torch.tensor([0.0, 1.0, -0.0, math.nan, math.inf, -math.inf, 0.3, 2.0])
        .view(1, 1, 2, 4)
        .requires_grad_()
    )
    y = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.7]).view(1, 1, 2, 4)
    loss, _ = ops.pixel_loss(x, y, kind=kind, delta=0.3, reduction="sum", backend=backend)
    (gradient,) = torch.autograd.grad(loss, x)
    (expected,) = torch.autograd.grad(TORCH[kind](x, y, reduction="sum"), x)
    assert_close(gradient, expected, equal_nan=True)
    assert loss.isnan()


def test_luma_and_yuv_are_weighed_as_in_yuv_color_l2():
    x, y = (image((2, 8, 9), torch.float64) for _ in range(2))
    scales = (1.0, 100.0, 50.0)
    expected, channels = yuv_color_l2(x, y, scales, 3.0, return_channels=True)
    assert_close(pixel_loss(x, y, kind="l2", color="yuv", yuv_scales=scales, edge_gain=3.0), expected)
    assert_close(pixel_loss(x, y, kind="l2", color="luma", edge_gain=3.0).detach(), channels[0])


def test_sobel_is_the_convolution_with_a_repeated_border():
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).double() / 8
    for size in ((2, 7, 9), (1, 1, 5), (1, 4, 1), (1, 1, 1)):
        picture = torch.rand(size[0], 1, *size[1:], dtype=torch.float64)
        padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
        down, right = sobel(picture)
        assert_close(down, F.conv2d(padded, kernel.T[None, None]))
        assert_close(right, F.conv2d(padded, kernel[None, None]))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_parts_are_the_terms_before_their_weights(backend):
    x, y = (image((2, 7, 9), torch.float64) for _ in range(2))
    loss, parts = pixel_loss(
        x, y, sobel_weight=0.5, tv_weight=0.3, loss_weight=2.0, return_parts=True, backend=backend
    )
    down, right = sobel(x - y)
    assert not parts.requires_grad
    assert_close(parts[0], F.l1_loss(x, y).detach())
    assert_close(parts[1], (down.abs().mean() + right.abs().mean()).detach())
    assert_close(parts[2], (x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()).detach())
    assert_close(loss.detach(), 2 * (parts @ torch.tensor([1, 0.5, 0.3], dtype=torch.float64)))


def test_total_variation_is_kornias():
    kornia = pytest.importorskip("kornia")
    x = image((1, 9, 11))
    assert_close(total_variation_loss(x, reduction="sum"), kornia.losses.total_variation(x).sum())


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("size", [(2, 1, 7), (2, 7, 1), (2, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_direction_without_neighbours_adds_nothing(size, kind, backend):
    x = image(size)
    loss = total_variation_loss(x, kind=kind, eps=1e-3, delta=0.3, backend=backend)
    (gradient,) = torch.autograd.grad(loss, x)
    neighbours = x.diff(dim=2 if size[1] > 1 else 3)
    expected = TORCH[kind](neighbours, torch.zeros_like(neighbours), reduction="sum") / max(
        1, neighbours.numel()
    )
    assert_close(loss, expected)
    assert_close(gradient, torch.autograd.grad(expected, x)[0])
    for weight in (torch.full((1, 1, 1, 1), 0.5), torch.full(x.shape, 0.5)):
        weighed = total_variation_loss(
            x, weight, kind=kind, eps=1e-3, delta=0.3, weighted_mean=True, backend=backend
        )
        assert_close(weighed, loss)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_mean_over_weights_divides_by_their_mean(backend):
    x, y = (image((2, 8, 9)) for _ in range(2))
    weight = torch.rand(2, 1, 8, 9)
    mask = (torch.rand(1, 3, 8, 1) > 0.5).expand(2, 3, 8, 9)
    mean = pixel_loss(x, y, weight, weighted_mean=True, backend=backend)
    assert_close(mean, (weight * (x - y).abs()).sum() / (3 * weight.sum()))
    assert_close(pixel_loss(x, y, mask, weighted_mean=True, backend=backend), (x - y).abs()[mask].mean())
    variation = total_variation_loss(x, weight, weighted_mean=True, backend=backend)
    down, right = weight[:, :, :-1], weight[..., :-1]
    expected = (down * x.diff(dim=2).abs()).sum() / (3 * down.sum())
    assert_close(variation, expected + (right * x.diff(dim=3).abs()).sum() / (3 * right.sum()))


# --- kernels against the float64 reference -----------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("color", [{}, {"color": "luma"}, YUV], ids=["rgb", "luma", "yuv"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_matches_float64_reference(device, kind, color, size):
    x, y = image(size, device=device), image(size, device=device)
    for more in ({}, EVERYTHING):
        options = {"kind": kind, "tv_kind": kind, "eps": 1e-3, "delta": 0.3, **color, **more}
        assert_near(differentiated(x, y, **options), in_float64(x, y, **options))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("color", [{}, YUV], ids=["rgb", "yuv"])
@pytest.mark.parametrize("weights", [None, (2, 1, 19, 37), (1, 3, 1, 37), (2, 1, 1, 1), "strided"], ids=str)
def test_layouts_and_weights_match_the_float64_reference(device, layout, color, weights):
    size = (2, 19, 37)
    x, y = image(size, device=device, layout=layout), image(size, device=device, layout=layout)
    if layout == "strided":
        y = image(size, device=device)
    weight = None
    if weights is not None:
        weight = image(size, layout="strided").detach() if weights == "strided" else torch.rand(weights)
        weight = weight.to(device)
    for more in ({}, EVERYTHING, {"weighted_mean": weight is not None, **EVERYTHING}, {"reduction": "sum"}):
        options = {"kind": "charbonnier", "eps": 1e-3, **color, **more}
        assert_near(differentiated(x, y, weight, **options), in_float64(x, y, weight, **options))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_photographs_match_the_float64_reference(device, kind, photographs):
    y = photographs.clone().to(device)
    x = (y + 0.02 * torch.randn_like(y)).clamp(0, 1).requires_grad_()
    for more in ({}, {**YUV, **EVERYTHING}):
        options = {"kind": kind, **more}
        assert_near(differentiated(x, y, **options), in_float64(x, y, **options))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtypes", [
    (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16), (torch.bfloat16, torch.float32),
    (torch.float32, torch.float16),
])  # fmt: skip
@pytest.mark.parametrize("color", [{}, YUV], ids=["rgb", "yuv"])
def test_half_types_are_computed_in_float32(device, dtypes, color):
    x, y = (image((2, 37, 53), dtype, device) for dtype in dtypes)
    loss, parts, *gradients = differentiated(x, y, **color, **EVERYTHING)
    expected, expected_parts, *expected_gradients = in_float64(x, y, **color, **EVERYTHING)
    assert loss.dtype == parts.dtype == torch.float32
    assert_near((loss, parts), (expected, expected_parts))
    for leaf, gradient, reference in zip((x, y), gradients, expected_gradients, strict=True):
        assert gradient.dtype == leaf.dtype
        # The gradient is rounded once when it is saved and once when it is scaled.
        assert relative_error(gradient, reference) <= 2 * torch.finfo(leaf.dtype).eps


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.bfloat16)])
def test_one_image_in_float64_makes_all_of_the_loss_that_precise(dtypes, backend):
    pictures = [image((2, 13, 17), dtype).detach() for dtype in dtypes]
    weight = torch.rand(2, 1, 13, 17)
    options = {"weighted_mean": True, **EVERYTHING}
    expected, parts, *gradients = in_float64(*(z.requires_grad_() for z in pictures), weight, **options)
    for wanted in ((False, False), (True, False), (False, True), (True, True)):
        leaves = [z.detach().requires_grad_(wants) for z, wants in zip(pictures, wanted, strict=True)]
        loss, of_terms = ops.pixel_loss(*leaves, weight, **options, backend=backend)
        assert_close((loss.detach(), of_terms), (expected.detach(), parts), rtol=1e-13, atol=0)
    for leaf, gradient in zip(leaves, torch.autograd.grad(3 * loss, leaves), strict=True):
        assert gradient.dtype == leaf.dtype
        assert relative_error(gradient, gradients.pop(0)) <= torch.finfo(leaf.dtype).eps


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels(device, dtype, channels):
    if device == "cuda" and dtype == torch.float64:
        pytest.skip("the GPU's kernels take no float64")
    x, y = (image((2, 9, 13), dtype, device, channels=channels) for _ in range(2))
    tolerance = max(1e-6, 2 * torch.finfo(dtype).eps)
    for more in ({}, {"sobel_weight": 1.0, "tv_weight": 1.0}):
        assert_near(differentiated(x, y, **more), in_float64(x, y, **more), tolerance)


def test_an_eps_of_basicsr_is_exact_near_equal_pixels():
    y = image((1, 30, 40)).detach()
    x = (y + 1e-6 * torch.randn_like(y)).requires_grad_()
    assert_near(differentiated(x, y, kind="charbonnier"), in_float64(x, y, kind="charbonnier"))


# --- gradients
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("more", [{}, EVERYTHING], ids=["alone", "everything"])
def test_one_gradient_alone_matches_both(which, more):
    x, y = image((2, 9, 11)), image((2, 9, 11))
    both = differentiated(x, y, **more)[2:]
    index = "xy".index(which)
    (x, y)[1 - index].requires_grad_(False)
    loss, _ = ops.pixel_loss(x, y, **more)
    (3 * loss).backward()
    assert_close((x, y)[index].grad, both[index], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("color", [{}, {"color": "luma"}, {"color": "yuv"}], ids=["rgb", "luma", "yuv"])
def test_gradients_of_squares_are_exact_in_both_orders(color, backend):
    x, y = (image((2, 4, 5), torch.float64) for _ in range(2))
    weight = torch.rand(2, 1, 4, 5, dtype=torch.float64)
    options = {
        **EVERYTHING,
        **color,
        "kind": "l2",
        "tv_kind": "l2",
        "weighted_mean": True,
        "backend": backend,
    }
    loss = lambda x, y: pixel_loss(x, y, weight, **options)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (x, y))
    assert torch.autograd.gradgradcheck(loss, (x, y))
    variation = lambda x: total_variation_loss(x, weight, kind="l2", backend=backend, **color)  # noqa: E731
    assert torch.autograd.gradgradcheck(variation, (x,))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("kind", ["charbonnier", "huber"])
def test_gradients_of_smooth_penalties_are_exact(kind, backend):
    x, y = (image((1, 4, 5), torch.float64) for _ in range(2))
    options = {**EVERYTHING, "kind": kind, "tv_kind": kind, "eps": 0.1, "delta": 5.0, "backend": backend}
    assert torch.autograd.gradcheck(lambda x, y: pixel_loss(x, y, **options), (x, y))


@pytest.mark.parametrize("kind", ["l1", "charbonnier", "huber"])
def test_a_second_order_that_is_missing_is_refused_and_the_reference_has_it(kind):
    x, y = image((1, 4, 5), torch.float64), image((1, 4, 5), torch.float64)

    def penalty(backend):
        loss = pixel_loss(x, y, kind=kind, eps=0.1, backend=backend)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum() + loss, x)

    with pytest.raises(NotImplementedError, match=f"second-order gradient but of kind='l2'.*got {kind}"):
        penalty(None)
    assert penalty("reference")[0].isfinite().all()


def test_a_product_of_the_loss_has_its_second_derivative():
    """That of the incoming gradient needs none of the penalty."""
    x, y = image((1, 4, 5), torch.float64), image((1, 4, 5), torch.float64)
    results = []
    for backend in (None, "reference"):
        factor = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        loss = factor.square() * pixel_loss(x, y, backend=backend)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        results.append(torch.autograd.grad((gradient * torch.linspace(0, 1, 5)).sum(), factor)[0])
    assert_close(*results)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_backward_twice_with_retained_graph_gives_the_same_gradient(kind):
    x, y = image((1, 8, 8)), image((1, 8, 8)).detach()
    loss = pixel_loss(x, y, kind=kind)
    gradients = [torch.autograd.grad(3 * loss, x, retain_graph=True)[0] for _ in range(2)]
    gradients.append(torch.autograd.grad(3 * loss, x)[0])
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("device", DEVICES)
def test_saves_at_most_one_gradient(device):
    saved = []
    x, y = image((2, 64, 64), device=device), image((2, 64, 64), device=device).detach()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        pixel_loss(x, y, torch.rand(2, 1, 64, 64, device=device), **EVERYTHING)
    assert sum(size for size in saved if size > 64) <= x.nbytes


def test_same_bits_for_any_number_of_threads():
    x, y, weight = image((4, 203, 311)), image((4, 203, 311)), torch.rand(4, 1, 203, 311)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((
                *differentiated(x, y), *differentiated(x, y, weight, weighted_mean=True, **YUV, **EVERYTHING)
            ))  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, results[0], strict=True))


def test_nan_in_an_image_reaches_the_loss_and_its_surroundings_only():
    x, y = image((1, 16, 16)), image((1, 16, 16)).detach()
    with torch.no_grad():
        x[0, 1, 8, 8] = math.nan
    for options, count in (({}, 1), ({"sobel_weight": 1.0}, 21), ({"tv_weight": 1.0, "tv_kind": "l2"}, 5)):
        loss, _, gradient = differentiated(x, y, kind="l2", **options)
        assert loss.isnan() and gradient.isnan().sum() == count
        assert torch.equal(gradient.isnan(), in_float64(x, y, kind="l2", **options)[2].isnan())


# --- compilation, transforms
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction_dtype", [None, torch.float32])
def test_opcheck(device, direction_dtype):
    x, y = image((2, 7, 9), device=device), image((2, 7, 9), device=device, layout="channels_last")
    if direction_dtype is None:
        x, y = x.detach(), y.detach()
    weight, means = torch.rand(2, 3, 7, 9, device=device), torch.rand(3, dtype=torch.float64, device=device)
    gain = torch.tensor(2.0, device=device)
    numbers = (0.0, 1, 1, 2, 1e-3, 1.0, 1.0, 2.0, 3.0)
    for arguments in (
        (x, y, weight, gain, means, *numbers, 0.5, 0.0, 2.0, True, 1, direction_dtype),
        (x, None, None, None, None, *numbers, 0.0, 0.5, 2.0, False, -1, direction_dtype),
    ):
        torch.library.opcheck(torch.ops.fastgan.pixel_loss.default, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("more", [{}, {**YUV, **EVERYTHING}], ids=["alone", "everything"])
def test_compiles_without_a_graph_break_and_with_dynamic_shapes(device, more):
    weight = torch.rand(1, 1, 1, 1, device=device)
    step = lambda x, y: pixel_loss(x * 1.0, y, weight, weighted_mean=True, **more)  # noqa: E731
    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for size in ((2, 8, 9), (3, 10, 12)):
        x, y = image(size, device=device), image(size, device=device)
        ours, expected = (torch.autograd.grad(loss(x, y), (x, y)) for loss in (compiled, step))
        assert_close(ours, expected, rtol=1e-5, atol=1e-8)


def test_works_under_transforms():
    x, y = torch.rand(3, 2, 3, 6, 7), torch.rand(3, 2, 3, 6, 7)
    loss = lambda x, y: pixel_loss(x, y, kind="l2", tv_kind="l2", **{**EVERYTHING, **YUV})  # noqa: E731
    one_by_one = [torch.func.grad(loss, (0, 1))(*pair) for pair in zip(x, y, strict=True)]
    together = torch.vmap(torch.func.grad(loss, (0, 1)))(x, y)
    assert_close(together, tuple(torch.stack(each) for each in zip(*one_by_one, strict=True)))
    leaves = [each.clone().requires_grad_() for each in (x, y)]
    assert_close(torch.autograd.grad(torch.vmap(loss)(*leaves).sum(), leaves), together)
    direction = torch.rand_like(x[0])
    along = torch.func.grad(lambda x: (torch.func.grad(loss)(x, y[0]) * direction).sum())(x[0])
    reference = lambda x: pixel_loss(  # noqa: E731
        x, y[0], kind="l2", tv_kind="l2", backend="reference", **{**EVERYTHING, **YUV}
    )
    assert_close(along, torch.func.grad(lambda x: (torch.func.grad(reference)(x) * direction).sum())(x[0]))


@pytest.mark.parametrize("device", DEVICES)
def test_the_modules_edge_gain_follows_a_schedule(device):
    x, y = image((1, 20, 30), device=device), image((1, 20, 30), device=device)
    module = PixelLoss("l2", edge_gain=2.0, **YUV).to(device)
    assert_close(module(x, y), pixel_loss(x, y, kind="l2", edge_gain=2.0, **YUV))
    module.edge_gain.fill_(7.0)
    assert_close(module(x, y), pixel_loss(x, y, kind="l2", edge_gain=7.0, **YUV))
    loss, parts = PixelLoss(tv_weight=0.1, return_parts=True)(x, y, torch.ones(1, 1, 20, 30, device=device))
    assert_close(loss, parts[0] + 0.1 * parts[2])


# --- errors
# --------------------------------------------------------------------------------------------------

X = torch.rand(2, 3, 8, 9)
W = torch.rand(2, 1, 8, 9)


@pytest.mark.parametrize("arguments, options, error, message", [
    ((X, None), {}, TypeError, "y must be a tensor, got None"),
    ((X, X[:, :2]), {}, ValueError, r"same shape, got \(2, 3, 8, 9\) and \(2, 2, 8, 9\)"),
    ((X[:, :2], X[:, :2]), {"color": "luma"}, ValueError, r"shape \(N, 3, H, W\), got \(2, 2, 8, 9\)"),
    ((X[0], X[0]), {}, ValueError, r"x must have shape \(N, C, H, W\), got \(3, 8, 9\)"),
    ((X[:0], X[:0]), {}, ValueError, r"x must not be empty, got shape \(0, 3, 8, 9\)"),
    ((X.byte(), X), {}, TypeError, "x must be a floating-point image.*got torch.uint8"),
    ((X, X.to("meta")), {}, ValueError, "x on cpu, y on meta"),
    ((X, X, W.to("meta")), {}, ValueError, "x on cpu, weight on meta"),
    ((X, X, W[..., :-1]), {}, ValueError, r"weight must broadcast to \(2, 3, 8, 9\), got.*8, 8\)"),
    ((X, X, W[0]), {}, ValueError, r"weight must have four dimensions and.*\(2, 3, 8, 9\), got.*\(1, 8, 9\)"),
    ((X, X, X), {"color": "luma"}, ValueError, r"weight must broadcast to \(2, 1, 8, 9\)"),
    ((X, X, 2.0), {}, TypeError, "weight must be a tensor, got float 2.0"),
    ((X, X, W.clone().requires_grad_()), {}, ValueError, "weight gets no gradient.*'reference'"),
    ((X, X), {"kind": "smooth"}, ValueError, "kind must be one of l1, l2, charbonnier, huber, got 'smooth'"),
    ((X, X), {"tv_kind": None}, ValueError, "tv_kind must be one of.*got None"),
    ((X, X), {"color": "lab"}, ValueError, "color must be one of rgb, luma, yuv, got 'lab'"),
    ((X, X), {"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
    ((X, X), {"delta": 0}, ValueError, "delta must be positive, got 0"),
    ((X, X), {"delta": -1.0}, ValueError, "delta must be positive, got -1.0"),
    ((X, X), {"eps": 0}, ValueError, "eps must be at least 1.18e-38, float32's smallest.*got 0"),
    ((X, X), {"eps": math.nan}, ValueError, "eps must be finite, got nan"),
    ((X, X), {"sobel_weight": math.inf}, ValueError, "sobel_weight must be finite, got inf"),
    ((X, X), {"loss_weight": "1"}, TypeError, "loss_weight must be a number, got str"),
    ((X, X), {"yuv_scales": (1, 2, 3)}, ValueError, r"yuv_scales are for color='yuv', got \(1, 2, 3\)"),
    ((X, X), {"color": "yuv", "yuv_scales": (1, 2)}, ValueError, r"yuv_scales must be 3.*got \(1, 2\)"),
    ((X, X), {"edge_gain": torch.ones(2)}, ValueError, r"edge_gain must be a number or a 0-d.*\(2,\)"),
    ((X, X), {"reduction": "none", "tv_weight": 1.0}, ValueError, "reduction='none' is for x and y without"),
    ((X, X), {"reduction": "none", "return_parts": True}, ValueError, "return_parts=True is for a mean"),
    ((X, X), {"reduction": "none", "backend": "native"}, RuntimeError, "'native' was requested, but"),
    ((X, X, W), {"weighted_mean": True, "reduction": "sum"}, ValueError, "weighted_mean=True is.*got 'sum'"),
    ((X, X), {"backend": "triton"}, RuntimeError, "no triton kernel for device 'cpu'"),
])  # fmt: skip
def test_wrong_inputs_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        pixel_loss(*arguments, **options)


def test_one_image_alone_has_nothing_but_its_variation():
    with pytest.raises(ValueError, match="without y, tv_weight must not be 0, got 0.0"):
        ops.pixel_loss(X, None)
    numbers = (0.0, 0, 0, 0, 1e-12, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, True, 1, torch.float32)
    with pytest.raises(RuntimeError, match="without y, tv_weight must not be 0"):
        torch.ops.fastgan.pixel_loss(X, None, None, None, None, *numbers)
    with pytest.raises(TypeError, match="y must be a tensor, got None"):
        PixelLoss(tv_weight=1.0)(X, None)


def test_the_variation_alone_names_its_own_arguments():
    with pytest.raises(ValueError, match="^kind must be one of.*got 'l3'"):
        total_variation_loss(X, kind="l3")
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, got 'none'"):
        total_variation_loss(X, reduction="none")


def test_the_module_names_wrong_options_in_its_constructor():
    for options, message in (
        ({"kind": "l3"}, "kind must be one of"), ({"delta": 0.0}, "delta must be positive"),
        ({"backend": "gpu"}, "backend must be one of"),
        ({"reduction": "none", "tv_weight": 1.0}, "reduction='none'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            PixelLoss(**options)


def test_the_reference_has_a_gradient_of_the_weights():
    weight = W.clone().requires_grad_()
    loss = pixel_loss(X, X.flip(0), weight, backend="reference")
    (gradient,) = torch.autograd.grad(loss, weight)
    assert_close(gradient, (X - X.flip(0)).abs().mean(dim=1, keepdim=True) / W.numel())


def test_a_direct_call_with_variation_and_a_gradient_of_y_is_refused():
    x, y = image((1, 3, 4)), image((1, 3, 4))
    numbers = (0.0, 0, 0, 0, 1e-12, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0, True, 1, torch.float32)
    loss, _, _ = torch.ops.fastgan.pixel_loss(x, y, None, None, None, *numbers)
    with pytest.raises(RuntimeError, match="pixel_loss has no gradient of y together with tv_weight"):
        torch.autograd.grad(loss, y)
