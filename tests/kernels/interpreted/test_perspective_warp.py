"""The Triton kernels of perspective_warp, in the interpreter."""

from __future__ import annotations

import re

import pytest
import torch

from fastgan import ops
from fastgan.augment import random_perspective
from tests.kernels.budget_cases import NEAR_IDENTITY
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import LAYOUTS, exact, image, relative_error
from tests.ops.test_perspective_warp import SPECIAL

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from fastgan.kernels._homography import coefficients  # noqa: E402
from fastgan.kernels._perspective_gather import COLUMNS, FOUR, ROWS, adjugate, window  # noqa: E402

pytestmark = [interpreted, pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")]
SIZES = [(1, 1, 1), (2, 17, 33), (1, 40, 61)]
HOMOGRAPHIES = SPECIAL | {
    "enlarged": [[0.11, 0.01, 3.0], [0.01, 0.13, 2.0], [0.0, 0.0, 1.0]],
    "a pole of the inverse": [[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.03, 0.0, 1.0]],
    "a line": [[1.0, 2.0, 3.0], [0.5, 1.0, 1.5], [0.0, 0.0, 1.0]],
    "a point": [[0.0, 0.0, 3.3], [0.0, 0.0, 4.4], [0.0, 0.0, 1.0]],
    "nearly a line": [[1.0, 2.0, 3.0], [0.5, 1.001, 1.5], [0.0, 0.0, 1.0]],
    "whole pixels, times 41": [[41.0, 0.0, 123.0], [0.0, 41.0, -82.0], [0.0, 0.0, 41.0]],
}


def small_warps(size, share=0.15):
    n, h, w = size
    return random_perspective(n, h, w, share * max(h, w), torch.Generator().manual_seed(2))[0].double()


def compare(x, matrix, fill=None, tolerance=2e-6, rounding=0.0):
    """Compares both kernels with the float64 reference, and with each other as transposes."""
    from fastgan.kernels import perspective_warp as kernel

    matrix = matrix.double().contiguous()
    expanded = None if fill is None else torch.full((), fill, dtype=x.dtype).expand(x.shape)
    reference = exact(x)
    expected = ops.perspective_warp(
        reference, matrix, fill=None if fill is None else expanded.double(), backend="reference"
    )
    warped = kernel.perspective_warp(x, matrix, expanded)
    upstream = torch.rand(x.shape).to(x.dtype)
    grad = kernel.perspective_warp_backward(upstream, matrix)
    (expected_grad,) = torch.autograd.grad(expected, reference, upstream.double())
    assert grad.dtype == warped.dtype == x.dtype and grad.stride() == torch.empty_like(upstream).stride()
    assert relative_error(warped, expected) <= tolerance + rounding
    assert relative_error(grad, expected_grad) <= tolerance + rounding
    if fill is None:
        forward_product, backward_product = (warped.double() * upstream).sum(), (x.double() * grad).sum()
        assert abs(forward_product - backward_product) <= (1e-6 + rounding) * forward_product.abs()


def test_a_matrix_may_be_float32():
    from fastgan.kernels import perspective_warp as kernel

    x, single = torch.rand(2, 3, 19, 23), small_warps((2, 19, 23)).float()
    assert torch.equal(*(kernel.perspective_warp(x, m, None) for m in (single, single.double())))
    assert torch.equal(*(kernel.perspective_warp_backward(x, m) for m in (single, single.double())))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [None, 0.7])
def test_equals_the_reference(size, layout, fill):
    compare(image(size, layout=layout).detach(), small_warps(size), fill)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_halves(dtype, rounding):
    compare(image((1, 17, 33), dtype).detach(), small_warps((1, 17, 33)), rounding=rounding)


@pytest.mark.parametrize("channels", [1, 4, 5, 8])
def test_any_number_of_channels(channels):
    compare(image((2, 9, 20), channels=channels).detach(), small_warps((2, 9, 20)))


@pytest.mark.parametrize("size", [(1, 11, 35), (1, 2, 5)])
@pytest.mark.parametrize("name", HOMOGRAPHIES)
def test_any_homography(name, size):
    compare(image(size, channels=1).detach(), torch.tensor([HOMOGRAPHIES[name]]), tolerance=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_drawn_homographies_of_any_kind(seed):
    matrix = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    compare(image((1, 11, 23), channels=1).detach(), matrix, tolerance=1e-5)


def test_more_images_than_a_launch_takes_and_64_bit_offsets(monkeypatch):
    from fastgan.kernels import perspective_warp as kernel

    monkeypatch.setattr(kernel, "LARGEST_GRID", 2)
    monkeypatch.setattr(kernel, "index_type", lambda count, block: kernel.tl.int64)
    compare(image((3, 9, 12), channels=2).detach(), small_warps((3, 9, 12)))


@pytest.mark.parametrize("shape", [(1, 3, 9, 12), (1, 1, 33, 12)])
def test_more_channels_or_rows_than_a_launch_takes_are_named(monkeypatch, shape):
    from fastgan.kernels import perspective_warp as kernel

    monkeypatch.setattr(kernel, "LARGEST_GRID", 2)
    message = re.escape(f"at most 2 channels and 32 rows, got shape {shape}")
    with pytest.raises(ValueError, match=message):
        kernel.perspective_warp(torch.rand(shape), torch.eye(3, dtype=torch.float64)[None], None)


def test_output_pixels_without_weight_are_not_read():
    from fastgan.kernels import perspective_warp as kernel

    matrix = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    upstream = torch.rand(1, 3, 14, 36)
    upstream[0, 2, 3, 3], upstream[0, 1, 7, 9], upstream[0, 0, 0, 35] = torch.nan, torch.inf, torch.nan
    grad = kernel.perspective_warp_backward(upstream, matrix)
    expected = torch.zeros_like(upstream)
    expected[..., 2:] = upstream[..., :-2]
    torch.testing.assert_close(grad, expected, rtol=0, atol=0, equal_nan=True)


@triton.jit
def windows(matrix, sizes, height, width, STEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Stores the sizes of the windows of every STEP-th program along either axis."""
    m, _ = coefficients(matrix)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    inverse = adjugate(m00 + m22, m01, m02, m10, m11 + m22, m12, m20, m21, m22)
    left, top = tl.program_id(0) * (2 * COLUMNS * STEP), tl.program_id(1) * (2 * ROWS * STEP)
    actual = window(m, inverse, left, top, COLUMNS + 0.5, ROWS + 0.5, width, height)
    sizes += 3 * (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0))
    tl.store(sizes, actual[3])
    tl.store(sizes + 1, actual[2] // FOUR)
    tl.store(sizes + 2, actual[4].to(tl.int32))


def test_windows_of_stegastamp_have_the_sizes_of_the_budgets():
    height, width, step = 1080, 1920, 8
    columns, rows = width // (2 * COLUMNS * step), height // (2 * ROWS * step)
    for matrix in small_warps((4, height, width), share=0.02).contiguous():
        sizes = torch.zeros(rows, columns, 3, dtype=torch.int32)
        windows[(columns, rows)](matrix, sizes, height, width, step, ROWS, COLUMNS)
        exist, inner_rows = sizes[..., 2], sizes[..., 0]
        assert (exist == 1).all() and (sizes[..., 1] == NEAR_IDENTITY[1]).all()
        # No rows where no output pixel samples, which is at the border; three where the image shrinks.
        assert inner_rows.max() == NEAR_IDENTITY[0] and (inner_rows[1:-1, 1:-1] > 0).all()


@pytest.mark.parametrize("value", [0.0, torch.inf])
def test_pixels_without_a_source_are_filled(value):
    from fastgan.kernels import perspective_warp as kernel

    matrix = torch.full((1, 3, 3), value, dtype=torch.float64)
    x = torch.rand(1, 2, 5, 6)
    warped = kernel.perspective_warp(x, matrix, torch.full((), 0.5).expand(x.shape))
    assert (warped == 0.5).all()
    assert (kernel.perspective_warp_backward(x, matrix) == 0).all()


@pytest.mark.parametrize("place", [0, 4, 8])
def test_nan_in_a_matrix_makes_only_its_image_nan(place):
    from fastgan.kernels import perspective_warp as kernel

    matrix = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    matrix[1, place // 3, place % 3] = torch.nan
    x = torch.rand(2, 2, 5, 6)
    warped = kernel.perspective_warp(x, matrix, torch.full((), 0.5).expand(x.shape))
    grad = kernel.perspective_warp_backward(x, matrix)
    assert torch.equal(warped[0], x[0]) and warped[1].isnan().all()
    assert torch.equal(grad[0], x[0]) and grad[1].isnan().all()
