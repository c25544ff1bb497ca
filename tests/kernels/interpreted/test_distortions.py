"""The Triton kernels of photometric and blur, in the interpreter."""

from __future__ import annotations

import itertools

import pytest
import torch

from fastgan import ops
from fastgan.augment import random_blur_kernels
from fastgan.reference.photometric import normal_noise, photometric
from tests.kernels.interpreted import VECTORS, interpreted, rows
from tests.ops.layouts import LAYOUTS, exact, image, relative_error

pytestmark = interpreted
SIZES = [(1, 1, 1), (2, 17, 33), (2, 40, 61)]


def parameters(batch):
    first = [0.1 * torch.rand(batch), torch.rand(batch) + 0.5, *(0.4 * torch.rand(3, batch) - 0.2)]
    return torch.stack([*first, torch.rand(batch)], dim=1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_photometric_equals_the_reference(size, layout):
    from fastgan.kernels import photometric as kernel

    x, columns, seed = image(size, layout=layout), parameters(size[0]), torch.tensor(2**45 + 3)
    distorted, masks = kernel.photometric(x, columns, seed, True)
    reference = exact(x)
    strength, contrast, *offset, desaturation = columns.double().T
    expected = ops.photometric(
        reference, noise=strength, contrast=contrast, offset=torch.stack(offset, 1),
        desaturation=desaturation, seed=seed, backend="reference",
    )  # fmt: skip
    assert relative_error(distorted, expected) <= 1e-6
    upstream = torch.rand(x.shape)
    grad = kernel.photometric_backward(upstream, columns, masks)
    (expected_grad,) = torch.autograd.grad(expected, reference, upstream.double())
    differs = (grad - expected_grad).abs() > 1e-5
    assert differs.double().mean() <= 1e-3
    assert relative_error(grad.double()[~differs], expected_grad[~differs]) <= 1e-6
    assert kernel.photometric(x, columns, seed, False)[1].numel() == 0


@pytest.mark.parametrize("layout", VECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_photometric_with_vectors_equals_that_with_single_values(dtype, layout):
    from fastgan.kernels import _pixels
    from fastgan.kernels import photometric as kernel

    x, columns, seed = rows((2, 22, 32), dtype, layout), parameters(2), torch.tensor(7)
    walk = _pixels.walk(kernel.THREADS, x)
    assert walk.run == 16 // x.itemsize
    assert walk.line(x) == (walk.run if layout.startswith("channels_last") else 0)
    distorted, masks = kernel.photometric(x, columns, seed, True)
    single = torch.empty(2, 3, 22, 64)[..., ::2].copy_(x)
    assert _pixels.walk(kernel.THREADS, single).line(single) == 0
    expected, expected_masks = kernel.photometric(single, columns, seed, True)
    assert torch.equal(distorted, expected.to(dtype)) and torch.equal(masks, expected_masks)
    grad = kernel.photometric_backward(x, columns, masks)
    assert torch.equal(grad, kernel.photometric_backward(single, columns, masks).to(dtype))


@pytest.mark.parametrize("pixels", [509, 510, 511, 512, 513])
def test_photometric_of_images_that_begin_within_a_quad_of_noise(pixels):
    from fastgan.kernels import photometric as kernel

    x, columns, seed = torch.rand(5, 3, 1, pixels), parameters(5), torch.tensor(2)
    distorted, masks = kernel.photometric(x, columns, seed, True)
    noise = normal_noise(seed, 5, 1, pixels, torch.float64)
    strength, contrast, *offset, desaturation = columns.double().T
    expected = photometric(
        x.double(), strength[:, None, None, None] * noise, contrast, torch.stack(offset, 1), desaturation
    )
    assert (distorted - expected).abs().max() <= 1e-5
    ones = torch.ones_like(x)
    assert (
        masks.shape == (5, 1, pixels) and kernel.photometric_backward(ones, columns, masks).isfinite().all()
    )


def test_photometric_noise_in_64_bit_indices(monkeypatch):
    from fastgan.kernels import _pixels
    from fastgan.kernels import photometric as kernel

    monkeypatch.setattr(_pixels, "index_type", lambda count, block: kernel.tl.int64)
    grey = torch.full((2, 3, 21, 17), 0.5)
    columns = torch.tensor([[0.01, 1, 0, 0, 0, 0]]).repeat(2, 1)
    noise = (kernel.photometric(grey, columns, torch.tensor(-5), False)[0] - 0.5) / 0.01
    expected = normal_noise(torch.tensor(-5), 2, 21, 17, torch.float64)
    assert (noise - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_blur_equals_the_reference(size, layout):
    from fastgan.kernels import blur as kernel

    x = image(size, layout=layout).detach()
    weights = random_blur_kernels(size[0], torch.Generator().manual_seed(1), (0.5, 0.5))
    expected = ops.blur(x.double(), weights, backend="reference")
    assert relative_error(kernel.blur(x, weights, False), expected) <= 1e-6
    assert torch.equal(kernel.blur(x, weights, True), kernel.blur(x, weights.flip(1, 2), False))


@pytest.mark.parametrize(
    ("taps", "layout"),
    [*itertools.product((1, 3, 5, 7), LAYOUTS), (17, "channels_last"), (17, "strided")],
)
def test_blur_with_other_sizes_of_kernels_and_64_bit_offsets(taps, layout, monkeypatch):
    from fastgan.kernels import blur as kernel

    if taps == 5:
        monkeypatch.setattr(kernel, "index_type", lambda count, block: kernel.tl.int64)
    x, weights = image((2, 9, 32), layout=layout).detach(), torch.rand(2, taps, taps) - 0.3
    weights[weights.abs() < 0.1] = 0
    expected = ops.blur(x.double(), weights, backend="reference")
    assert relative_error(kernel.blur(x, weights, False), expected) <= 2e-6
    assert torch.equal(kernel.blur(x, weights, True), kernel.blur(x, weights.flip(1, 2), False))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_blur_with_a_tap_that_is_not_finite(value):
    from fastgan.kernels import blur as kernel

    x, weights = torch.rand(1, 2, 6, 8), torch.rand(1, 3, 3)
    weights[0, 0, 1] = value
    expected = ops.blur(x, weights, backend="reference")
    torch.testing.assert_close(kernel.blur(x, weights, False), expected, equal_nan=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("few_taps", [True, False])
def test_blur_does_not_read_pixels_of_taps_that_are_zero(few_taps, value):
    from fastgan.kernels import blur as kernel

    x, weights = torch.rand(1, 2, 19, 23), torch.rand(1, 7, 7) + 0.1
    weights[0, 2] = weights[0, :, 6] = 0
    if few_taps:
        weights[0, 3:] = 0
    x[0, 0, 9, 12] = value
    expected = ops.blur(x, weights, backend="reference")
    assert expected.isfinite().sum() > x.numel() - 49
    torch.testing.assert_close(kernel.blur(x, weights, False), expected, equal_nan=True)


def test_photometric_of_nan():
    from fastgan.kernels import photometric as kernel

    x, columns, seed = torch.full((1, 3, 4, 5), 0.5), parameters(1), torch.tensor(3)
    x[0, 1, 2, 3] = torch.nan
    distorted, masks = kernel.photometric(x, columns, seed, True)
    assert distorted.isnan().nonzero().tolist() == [[0, c, 2, 3] for c in range(3)]
    grad = kernel.photometric_backward(torch.ones_like(x), columns, masks)
    assert grad.isnan().nonzero().tolist() == [[0, 1, 2, 3]]
