"""Blur with one kernel per image: the kernels against the float64 reference, to every order of gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan import ops
from fastgan.augment import random_blur_kernels
from tests.conftest import DEVICES
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (2, 3, 5), (3, 17, 33), (1, 64, 64), (2, 70, 9), (2, 5, 1100)]


def kernels(batch, size=7, device="cpu"):
    weights = torch.rand(batch, size, size)
    return (weights / weights.sum(dim=(1, 2), keepdim=True)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reach", [1, 3, 7])
def test_kernel_matches_float64_reference(device, layout, size, reach):
    x, weights = image(size, device=device, layout=layout), kernels(size[0], reach, device)
    blurred, reference = ops.blur(x, weights), exact(x)
    expected = ops.blur(reference, weights.cpu(), backend="reference")
    assert relative_error(blurred, expected) <= 1e-6
    upstream = torch.rand(x.shape, dtype=torch.float64)
    (grad,) = torch.autograd.grad(blurred, x, upstream.to(device, x.dtype))
    (expected_grad,) = torch.autograd.grad(expected, reference, upstream)
    assert relative_error(grad, expected_grad) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_matches_reference_on_photographs_and_drawn_kernels(device, photographs):
    x = photographs.repeat(3, 1, 1, 1).to(device)
    weights = random_blur_kernels(6, torch.Generator().manual_seed(3), (0.4, 0.4))
    expected = ops.blur(x.double().cpu(), weights, backend="reference")
    assert relative_error(ops.blur(x, weights.to(device)), expected) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_types_err_by_one_rounding(device, dtype, step):
    x, weights = image((2, 37, 53), dtype, device), kernels(2, device=device)
    blurred = ops.blur(x, weights)
    assert blurred.dtype == dtype
    assert (blurred.cpu() - ops.blur(exact(x), weights.cpu(), backend="reference")).abs().max() <= step


def test_gradients_of_image_and_kernels_of_every_order():
    x = image((2, 4, 5), torch.float64, channels=2)
    weights = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.blur, (x, weights))
    assert torch.autograd.gradgradcheck(ops.blur, (x, weights))


def test_equals_one_convolution_per_image():
    x, weights = image((3, 20, 17)).detach(), kernels(3)
    blurred = ops.blur(x, weights)
    for index in range(3):
        expected = F.conv2d(x[index][:, None], weights[index][None, None], padding=3)[:, 0]
        assert_close(blurred[index], expected)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
    x, weights = image((2, 9, 8), channels=channels), kernels(2)
    assert_close(ops.blur(x, weights), ops.blur(x, weights, backend="reference"))


@pytest.mark.parametrize("device", DEVICES)
def test_a_kernel_of_one_tap_copies(device):
    x = image((2, 40, 33), device=device)
    identity = torch.zeros(2, 7, 7, device=device)
    identity[:, 3, 3] = 1
    assert torch.equal(ops.blur(x, identity), x)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_spreads_only_through_taps_that_are_not_zero(device):
    x = image((1, 20, 20), device=device).detach()
    x[0, 0, 10, 10] = torch.nan
    line = torch.zeros(1, 7, 7, device=device)
    line[0, 3] = 1 / 7
    nan = ops.blur(x, line).isnan()[0, 0]
    assert nan.sum() == 7 and nan[10, 7:14].all()


def test_saves_only_the_kernels_for_backward():
    saved = []
    x, weights = image((2, 64, 64)), kernels(2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        ops.blur(x, weights)
    assert sum(saved) == 2 * 49


def test_same_bits_for_any_number_of_threads():
    x, weights = image((3, 103, 111)), kernels(3)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.blur(x, weights))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(other, results[0]) for other in results[1:])


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_and_compile(device):
    x, weights = image((2, 7, 9), device=device), kernels(2, device=device)
    for turned in (False, True):
        torch.library.opcheck(torch.ops.fastgan.blur.default, (x, weights, turned))
    blurred = torch.compile(lambda x: ops.blur(x * 1.0, weights), fullgraph=True)(x)
    expected = ops.blur(x, weights)
    assert_close(blurred, expected)
    assert_close(torch.autograd.grad(blurred.sum(), x), torch.autograd.grad(expected.sum(), x))


def test_works_under_functorch_grad():
    x, weights = image((1, 8, 8)), kernels(1)
    loss = lambda x: ops.blur(x, weights).square().sum()  # noqa: E731
    assert_close(torch.func.grad(loss)(x.detach()), torch.autograd.grad(loss(x), x)[0])


@pytest.mark.parametrize(("x", "weights", "error", "message"), [
    (torch.rand(2, 5, 5), torch.rand(2, 3, 3), ValueError, r"image must have shape \(N, C, H, W\)"),
    (torch.rand(2, 3, 5, 5), torch.rand(2, 4, 4), ValueError, r"k odd, got \(2, 4, 4\)"),
    (torch.rand(2, 3, 5, 5), torch.rand(1, 3, 3), ValueError, r"\(2, k, k\) with k odd, got \(1, 3, 3\)"),
    (torch.rand(2, 3, 5, 5), torch.tensor(1.0), ValueError, r"got \(\)"),
    (torch.rand(2, 3, 5, 5), torch.ones(2, 3, 3, dtype=torch.int64), TypeError, "got torch.int64"),
    (torch.rand(2, 3, 5, 5), 3, TypeError, "got int"),
    (torch.zeros(0, 3, 5, 5), torch.rand(0, 3, 3), ValueError, "must not be empty"),
])  # fmt: skip
def test_wrong_inputs_are_named(x, weights, error, message):
    with pytest.raises(error, match=message):
        ops.blur(x, weights)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_tap_that_is_not_finite_counts_where_it_reaches_the_image(backend, value):
    x, weights = image((2, 6, 8)), kernels(2, 3)
    weights[1, 0, 1] = value  # the tap on the pixel above
    blurred = ops.blur(x, weights, backend=backend)
    (gradient,) = torch.autograd.grad(blurred.sum(), x)
    for result, rows in ((blurred, slice(1, None)), (gradient, slice(0, -1))):
        affected = torch.zeros_like(result, dtype=torch.bool)
        affected[1, :, rows] = True
        assert torch.equal(~result.isfinite(), affected)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_nan_in_a_pixel_reaches_what_reads_it(backend):
    x = image((1, 9, 9)).detach()
    x[0, 0, 4, 4] = torch.nan
    x.requires_grad_()
    weights = torch.zeros(1, 3, 3)
    weights[0, 1] = torch.tensor([0.2, 0.0, 0.8])
    weights.requires_grad_()
    blurred = ops.blur(x, weights, backend=backend)
    image_gradient, kernel_gradient = torch.autograd.grad(blurred.sum(), (x, weights))
    nan = blurred.isnan()
    assert nan.sum() == 2 and nan[0, 0, 4, 3] and nan[0, 0, 4, 5]
    assert image_gradient.isfinite().all()  # blur is linear
    # A tap of weight zero reads no NaN; the gradients of the others do.
    assert kernel_gradient.isnan().nonzero().tolist() == [[0, 1, 0], [0, 1, 2]]
