"""Sampling through homographies: the kernels against the float64 reference, to every order of gradient."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from fastgan.augment import random_perspective
from tests.conftest import DEVICES
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (2, 3, 5), (3, 17, 33), (1, 64, 64), (2, 70, 9), (2, 5, 700), (1, 90, 120)]
# Row by row: half a turn, shrinking, a right angle, a vanishing line in view.
SPECIAL = {
    "turned": [[-1.0, 0.0, 30.0], [0.0, -1.0, 20.0], [0.0, 0.0, 1.0]],
    "shrunk": [[3.0, 0.5, -9.0], [-0.3, 2.0, 4.0], [0.0, 0.0, 1.0]],
    "rotated": [[0.0, 1.0, 0.3], [-1.0, 0.0, 28.6], [0.0, 0.0, 1.0]],
    "vanishing": [[1.0, 0.2, 3.0], [0.1, 1.0, -2.0], [-0.05, 0.01, 1.0]],
}


def jitter(size, device="cpu", displacement=0.15):
    n, h, w = size
    generator = torch.Generator().manual_seed(5)
    return random_perspective(n, h, w, displacement * max(h, w), generator)[0].to(device)


def compare(x, matrix, fill, tolerance=1e-6):
    warped, reference = ops.perspective_warp(x, matrix, fill=fill), exact(x)
    fill = fill.double().cpu() if isinstance(fill, torch.Tensor) else fill
    expected = ops.perspective_warp(reference, matrix.cpu(), fill=fill, backend="reference")
    assert relative_error(warped, expected) <= tolerance
    upstream = torch.rand(x.shape, dtype=torch.float64)
    (grad,) = torch.autograd.grad(warped, x, upstream.to(x.device, x.dtype))
    (expected_grad,) = torch.autograd.grad(expected, reference, upstream)
    assert relative_error(grad, expected_grad) <= tolerance


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [None, 0.7])
def test_kernel_matches_float64_reference(layout, size, fill):
    compare(image(size, layout=layout), jitter(size), fill)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [None, 0.7])
def test_gpu_kernel_matches_float64_reference(layout, size, fill):
    """Its coordinates are float32, as displacements."""
    compare(image(size, device="cuda", layout=layout), jitter(size, "cuda"), fill, tolerance=1e-5)


@pytest.mark.parametrize("name", SPECIAL)
def test_any_homography(name):
    matrix = torch.tensor([SPECIAL[name]]).expand(2, 3, 3)
    compare(image((2, 29, 41)), matrix, 0.3)


@pytest.mark.parametrize("seed", range(5))
def test_drawn_homographies_of_any_kind(seed):
    matrix = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = image((2, 23, 37), torch.float64)
    compare(x, matrix, 0.3, tolerance=1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["image", "colour per image", "one colour", "number"])
def test_fills(device, kind):
    x = image((2, 24, 31), device=device)
    shapes = {"image": (2, 3, 24, 31), "colour per image": (2, 3, 1, 1), "one colour": (1, 3, 1, 1)}
    fill = torch.rand(shapes[kind], device=device) if kind in shapes else 0.25
    compare(x, jitter((2, 24, 31), device), fill, tolerance=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_matches_reference_on_photographs(device, photographs):
    x = photographs.clone().to(device).requires_grad_()
    compare(x, jitter((2, 300, 451), device, 0.05), x.detach(), tolerance=1e-6 if device == "cpu" else 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_types_err_by_one_rounding(device, dtype, step):
    size = (2, 37, 53)
    x, matrix = image(size, dtype, device), jitter(size, device)
    warped = ops.perspective_warp(x, matrix)
    expected = ops.perspective_warp(exact(x), matrix.cpu(), backend="reference")
    assert warped.dtype == dtype and (warped.cpu() - expected).abs().max() <= step
    (grad,) = torch.autograd.grad(warped.sum(), x)
    assert grad.dtype == dtype


def test_gradients_of_image_and_fill_of_every_order():
    x, fill = (image((2, 5, 6), torch.float64, channels=2) for _ in range(2))
    matrix = jitter((2, 5, 6))
    function = lambda x, fill: ops.perspective_warp(x, matrix, fill=fill)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, fill))
    squared = lambda x, fill: function(x, fill).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(squared, (x, fill))


def test_the_reference_has_a_gradient_for_the_matrix():
    x, matrix = image((1, 6, 7), torch.float64), jitter((1, 6, 7)).double().requires_grad_()
    function = lambda matrix: ops.perspective_warp(x.detach(), matrix, backend="reference")  # noqa: E731
    assert torch.autograd.gradcheck(function, matrix)


@pytest.mark.parametrize("device", DEVICES)
def test_identity_copies_and_translations_move_by_whole_pixels(device):
    x = image((2, 9, 11), device=device).detach()
    identity = torch.eye(3, device=device).expand(2, 3, 3)
    assert torch.equal(ops.perspective_warp(x, identity), x)
    moved = identity.clone()
    moved[:, 0, 2], moved[:, 1, 2] = 2, -3
    warped = ops.perspective_warp(x, moved, fill=0.5)
    assert torch.equal(warped[:, :, 3:, :-2], x[:, :, :-3, 2:])
    assert (warped[:, :, :3] == 0.5).all() and (warped[:, :, :, -2:] == 0.5).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("value", [0.0, torch.inf])
def test_pixels_sent_nowhere_are_outside(device, value):
    x = image((1, 6, 6), device=device)
    matrix = torch.full((1, 3, 3), value, device=device)
    warped = ops.perspective_warp(x, matrix, fill=0.5)
    assert (warped == 0.5).all()
    (grad,) = torch.autograd.grad(warped.sum(), x)
    assert (grad == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_nan_is_seen_by_pixels_that_look_at_it(device):
    x = image((1, 12, 12), device=device).detach()
    x[0, 1, 6, 6] = torch.nan
    matrix = torch.eye(3, device=device)[None].clone()
    matrix[0, 0, 2] = 0.5
    nan = ops.perspective_warp(x, matrix, fill=0.5).isnan()
    assert nan.sum() == 2 and nan[0, 1, 6, 5:7].all()


def test_saves_the_matrix_alone():
    saved = []
    x = image((2, 64, 64))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        ops.perspective_warp(x, jitter((2, 64, 64)), fill=x.detach())
    assert sum(saved) == 2 * 9


def test_same_bits_for_any_number_of_threads():
    size = (3, 103, 211)
    x, matrix = image(size), jitter(size)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            warped = ops.perspective_warp(x, matrix, fill=0.1)
            results.append((warped, torch.autograd.grad(warped.square().sum(), x)[0]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.gpu
def test_same_bits_each_time_on_a_gpu():
    size = (3, 103, 211)
    x, matrix = image(size, device="cuda"), jitter(size, "cuda")
    upstream = torch.rand(x.shape, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (
            torch.autograd.grad(ops.perspective_warp(x, matrix), x, upstream)[0] for _ in range(20)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [None, *SPECIAL])
def test_the_backward_pass_is_the_transpose(device, name):
    size = (2, 29, 41)
    matrix = jitter(size) if name is None else torch.tensor([SPECIAL[name]]).expand(2, 3, 3)
    x = image(size, device=device)
    warped = ops.perspective_warp(x, matrix.to(device))
    upstream = torch.rand(x.shape, device=device)
    (grad,) = torch.autograd.grad(warped, x, upstream)
    given, got = (warped.double() * upstream).sum(), (x.double() * grad).sum()
    assert_close(got, given, rtol=1e-6, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SPECIAL)
def test_any_homography_on_a_gpu(name):
    compare(
        image((2, 129, 241), device="cuda"),
        torch.tensor([SPECIAL[name]], device="cuda").expand(2, 3, 3),
        0.3,
        1e-4,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck_and_compile(device):
    size = (2, 7, 9)
    x, matrix = image(size, device=device), jitter(size, device)
    fill, dense_matrix = image(size, device=device), matrix.double().contiguous()
    torch.library.opcheck(torch.ops.fastgan.perspective_warp.default, (x, dense_matrix, fill))
    torch.library.opcheck(torch.ops.fastgan.perspective_warp.default, (x, dense_matrix, None))
    torch.library.opcheck(torch.ops.fastgan.perspective_warp_backward.default, (fill, dense_matrix))
    warp = lambda x: ops.perspective_warp(x * 1.0, matrix, fill=0.5)  # noqa: E731
    warped, expected = torch.compile(warp, fullgraph=True)(x), warp(x)
    assert_close(warped, expected)
    assert_close(torch.autograd.grad(warped.sum(), x), torch.autograd.grad(expected.sum(), x))


def test_works_under_functorch_grad():
    x, matrix = image((1, 8, 8)), jitter((1, 8, 8))
    loss = lambda x: ops.perspective_warp(x, matrix).square().sum()  # noqa: E731
    assert_close(torch.func.grad(loss)(x.detach()), torch.autograd.grad(loss(x), x)[0])


IMAGE, MATRIX = torch.rand(2, 3, 5, 5), torch.eye(3).expand(2, 3, 3)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((torch.rand(2, 5, 5), MATRIX, None), ValueError, r"image must have shape \(N, C, H, W\)"),
    ((IMAGE, torch.eye(3), None), ValueError, r"matrix must have shape \(2, 3, 3\), got \(3, 3\)"),
    ((IMAGE, MATRIX.int(), None), TypeError, "matrix must be a floating-point tensor, got torch.int32"),
    ((IMAGE, [1], None), TypeError, "got list"),
    ((IMAGE, MATRIX, torch.rand(2, 4, 1, 1)), ValueError, r"fill must expand .* got \(2, 4, 1, 1\)"),
    ((IMAGE, MATRIX, torch.ones(2, 3, 5, 5, dtype=torch.int64)), TypeError, "fill .* got torch.int64"),
    ((IMAGE, MATRIX, "white"), TypeError, "fill must be None, a number or a tensor, got str"),
    ((IMAGE, MATRIX.clone().requires_grad_(), None), ValueError, "matrix requires grad"),
])  # fmt: skip
def test_wrong_inputs_are_named(arguments, error, message):
    image, matrix, fill = arguments
    with pytest.raises(error, match=message):
        ops.perspective_warp(image, matrix, fill=fill)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("place", range(9))
def test_a_matrix_that_is_nan_makes_its_image_nan_and_no_other(backend, place):
    x, fill = image((2, 6, 7)), image((2, 6, 7))
    matrix = jitter((2, 6, 7))
    matrix[1, place // 3, place % 3] = torch.nan
    warped = ops.perspective_warp(x, matrix, fill=fill, backend=backend)
    assert warped[0].isfinite().all() and warped[1].isnan().all()
    for gradient in torch.autograd.grad(warped.sum(), (x, fill)):
        assert gradient[0].isfinite().all() and gradient[1].isnan().all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_what_has_no_weight_is_not_read(backend):
    x = image((1, 9, 11)).detach()
    x[0, 0, 4, 5], x[0, 1, 2, 2] = torch.nan, torch.inf
    x.requires_grad_()
    fill = torch.full((1, 3, 9, 11), torch.nan)
    fill[..., -2:] = 0.5
    matrix = torch.eye(3)[None].clone()
    matrix[0, 0, 2] = 2  # whole pixels to the right
    warped = ops.perspective_warp(x, matrix, fill=fill, backend=backend)
    assert torch.equal(warped[..., :-2].isnan(), x[..., 2:].isnan())
    assert (warped[..., -2:] == 0.5).all() and warped[0, 1, 2, 0] == torch.inf
    upstream = torch.ones_like(warped)
    upstream[0, 2, 3, 3] = torch.nan
    (gradient,) = torch.autograd.grad(warped, x, upstream)
    assert gradient.isnan().sum() == 1 and gradient[0, 2, 3, 5].isnan()


def test_the_reference_has_a_gradient_for_the_matrix_of_whole_pixels():
    """There half of the taps weigh nothing, but the slope of their weights does not."""
    x = image((1, 6, 7), torch.float64).detach()
    matrix = torch.eye(3, dtype=torch.float64)[None].clone().requires_grad_()
    warped = ops.perspective_warp(x, matrix, backend="reference")
    (gradient,) = torch.autograd.grad(warped[0, 0, 2, 3], matrix)
    assert_close(gradient[0, 0, 2], x[0, 0, 2, 4] - x[0, 0, 2, 3])
    assert_close(gradient[0, 1, 2], x[0, 0, 3, 3] - x[0, 0, 2, 3])
