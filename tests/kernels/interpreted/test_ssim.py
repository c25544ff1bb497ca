"""The Triton kernels of ssim, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference.ssim import ssim as reference
from fastgan.reference.ssim import window_taps
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, largest_error, relative_error
from tests.ops.test_ssim import PADDINGS, pair

pytestmark = interpreted


# More than a strip of columns and than a band of rows, and windows beyond both borders at once.
@pytest.mark.parametrize(
    ("size", "channels", "window_size", "padding", "layout"),
    [
        ((1, 19, 66), 1, 11, "valid", "contiguous"),
        ((2, 9, 7), 2, 5, "valid", "channels_last"),
        ((1, 9, 7), 2, 9, "same", "contiguous"),
        ((1, 7, 66), 1, 7, "reflect", "contiguous"),
        ((1, 9, 7), 2, 5, "reflect", "strided"),
        ((1, 19, 9), 1, 11, "reflect", "strided"),
    ],
)
def test_ssim(size, channels, window_size, padding, layout):
    from fastgan.kernels import ssim as kernel

    x, y = pair(size, layout=layout, channels=channels)
    images = x.detach(), y.detach()
    formula = window_size, 1.5, 1e-4, 9e-4, PADDINGS.index(padding), False, 0.7, 0.3
    loss, *directions = kernel.ssim(*images, *formula, True, True)
    wide = [exact(z) for z in (x, y)]
    expected = reference(*wide, window_taps(window_size, 1.5), 1e-4, 9e-4, padding, False, 0.7, 0.3)
    assert relative_error(loss, expected) <= 2e-6
    for direction, gradient in zip(directions, torch.autograd.grad(expected.mean(), wide), strict=True):
        assert direction.stride() == torch.empty_like(x).stride()
        assert relative_error(direction, gradient) <= 1e-5


def errors(x, y, window_size=11, sigma=1.5, padding="valid"):
    """Of the loss and of the worse gradient."""
    from fastgan.kernels import ssim as kernel

    formula = window_size, sigma, 1e-4, 9e-4, PADDINGS.index(padding), False, 1.0, 0.0
    loss, *directions = kernel.ssim(x, y, *formula, True, True)
    wide = [z.double().requires_grad_() for z in (x, y)]
    expected = reference(*wide, window_taps(window_size, sigma), 1e-4, 9e-4, padding)
    gradients = torch.autograd.grad(expected.mean(), wide)
    return largest_error(loss, expected), max(map(largest_error, directions, gradients))


# Steps at every row of those that share a shift, on both sides of row 13, where a band ends, and between two
# pairs of columns and within one; windows of little more than a pixel, of equal taps, and beyond the border.
@pytest.mark.parametrize("images_with_it", [1, 2])
@pytest.mark.parametrize(
    ("axis", "at", "window_size", "sigma", "padding"),
    [
        (2, 12, 11, 1.5, "valid"),
        (2, 13, 11, 1.5, "valid"),
        (2, 14, 11, 1.5, "valid"),
        (2, 15, 11, 1.5, "same"),
        (2, 17, 11, 1.5, "same"),
        (2, 14, 11, 2.0, "reflect"),
        (2, 13, 11, 0.3, "valid"),
        (3, 12, 11, 1.5, "valid"),
        (3, 13, 5, 0.3, "valid"),
        (3, 11, 5, 1e-3, "same"),
        (2, 14, 5, 0.0, "reflect"),
        (2, 13, 5, 0.5, "same"),
        (2, 13, 7, 1.5, "valid"),
    ],
)
def test_keeps_its_digits_next_to_a_step(axis, at, window_size, sigma, padding, images_with_it):
    x, y = 0.05 * torch.rand(2, 1, 1, 26, 22, generator=torch.Generator().manual_seed(0))
    for image in (x, y)[:images_with_it]:
        image.narrow(axis, at, image.shape[axis] - at).add_(1)
    of_loss, of_gradients = errors(x, y, window_size, sigma, padding)
    assert of_loss <= 1e-6 and of_gradients <= 2e-5


@pytest.mark.parametrize("row", [10, 11, 12, 13])
@pytest.mark.parametrize("rows", [1, 20])
def test_keeps_its_digits_above_and_below_bright_rows_and_pixels(rows, row):
    x, y = 0.05 * torch.rand(2, 1, 1, 26, 22, generator=torch.Generator().manual_seed(0))
    x[..., row : row + rows, :] = 1
    x[..., row - 3, 9] = 1
    of_loss, of_gradients = errors(x, y)
    assert of_loss <= 2e-6 and of_gradients <= 2e-5


@pytest.mark.parametrize(
    ("at", "step", "loss", "gradients"),
    [(14, 10, 5e-6, 5e-5), (15, 100, 5e-4, 2e-3), (16, 10, 5e-6, 5e-5), (17, 100, 5e-4, 2e-3)],
)
def test_loses_less_than_the_reference_next_to_a_step_of_many_data_ranges(at, step, loss, gradients):
    x, y = torch.rand(2, 1, 1, 34, 20, generator=torch.Generator().manual_seed(0))
    for image in (x, y):
        image[..., at:, :] += step
    of_loss, of_gradients = errors(x, y)
    assert of_loss <= loss and of_gradients <= gradients
    taps = window_taps(11, 1.5)
    expected = reference(x.double(), y.double(), taps, 1e-4, 9e-4)
    assert of_loss <= 0.1 * largest_error(reference(x, y, taps, 1e-4, 9e-4), expected)


def test_a_variance_below_0_by_rounding_has_no_huge_derivative():
    x, y = 0.002 * torch.rand(2, 1, 1, 34, 20, generator=torch.Generator().manual_seed(0))
    for image in (x, y):
        image[..., 15:, :] += 300
    of_loss, of_gradients = errors(x, y)
    assert of_loss <= 0.2 and of_gradients <= 0.5


def test_flat_and_bright_images_keep_their_digits():
    x, y = 0.002 * torch.rand(2, 1, 1, 13, 14, generator=torch.Generator().manual_seed(0)) + 1
    of_loss, of_gradients = errors(x, y)
    assert of_loss <= 1e-5 and of_gradients <= 1e-4


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_images_keep_their_digits(noise):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 12, 14, generator=generator)
    y = x + noise * torch.randn(1, 1, 12, 14, generator=generator)
    of_loss, of_gradients = errors(x, y)
    assert of_loss <= 1e-6 and of_gradients <= 1e-5


def test_a_window_of_one_pixel():
    """It has no variance, and NaN stays at its pixel."""
    from fastgan.kernels import ssim as kernel

    x, y = (z.detach() for z in pair((1, 3, 6), channels=1))
    x[..., 1, 2] = float("nan")
    _, direction, _ = kernel.ssim(x, y, 1, 1.5, 1e-4, 9e-4, 0, False, 1.0, 0.0, True, False)
    wide = [z.double().requires_grad_() for z in (x, y)]
    expected = reference(*wide, [1.0], 1e-4, 9e-4)
    gradient = torch.autograd.grad(expected.mean(), wide[0])[0]
    torch.testing.assert_close(direction.double(), gradient, rtol=1e-5, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize(("size", "sigma"), [(11, 1.5), (11, 0.3), (5, 1e-3), (33, 5.0), (1, 1.5)])
def test_weights_of_rows_are_zero_or_normal_numbers_of_float32(size, sigma):
    from fastgan.kernels import ssim as kernel

    weights = kernel.row_weights_of(kernel.taps_of(size, sigma))
    assert len(weights) == size and weights[-1] == 1
    assert all(weight == 0 or 2**-126 <= weight <= 1 for weight in weights)


@pytest.mark.parametrize(
    ("size", "sigma", "rows"),
    [
        *((11, 1.5, 4), (11, 2.0, 3), (15, 2.5, 4), (21, 3.5, 4)),
        *(
            (9, 1.5, 1),
            (5, 0.4, 1),
            (11, 0.3, 1),
            (11, 3.0, 1),
            (11, 0.0, 1),
            (33, 0.0, 1),
            (33, 5.0, 1),
            (1, 1.5, 1),
        ),
    ],
)
def test_rows_that_share_a_shift(size, sigma, rows):
    from fastgan.kernels import ssim as kernel

    assert kernel.rows_per_shift(kernel.taps_of(size, sigma)) == rows


def test_few_strips_have_lower_bands():
    from fastgan.kernels import ssim as kernel

    sizes = (26, 1), (40, 1), (1080, 100), (1080, 5000)
    assert [kernel.rows_of(*size) for size in sizes] == [13, 14, 60, 216]


@pytest.mark.parametrize("height", [1, 15, 16, 240, 241, 1080, 4001])
@pytest.mark.parametrize("strips", [1, 100, 5000])
def test_bands_have_about_equal_rows(height, strips):
    from fastgan.kernels import ssim as kernel

    rows = kernel.rows_of(height, strips)
    bands = -(-height // rows)
    assert 1 <= rows <= kernel.MOST_ROWS and bands * rows - height < bands


# Rows that give a shift: 10 in the first band, 20 in the second, whose first is a pixel of row 9; 7: none.
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(
    ("value", "row"), [("nan", 7), ("nan", 9), ("inf", 10), ("-inf", 9), ("nan", 20), ("1e20", 10)], ids=str
)
def test_what_is_not_finite_stays_in_its_windows(value, row):
    from fastgan.kernels import ssim as kernel

    x, y = (z.detach() for z in pair((1, 40, 20), channels=1))
    x[..., row, 8] = float(value)
    _, direction, _ = kernel.ssim(x, y, 11, 1.5, 1e-4, 9e-4, 0, False, 1.0, 0.0, True, False)
    wide = [z.double().requires_grad_() for z in (x, y)]
    gradient = torch.autograd.grad(reference(*wide, window_taps(11, 1.5), 1e-4, 9e-4).mean(), wide[0])[0]
    if value == "1e20":  # squares overflow in float32
        gradient[..., : row + 11, :], direction[..., : row + 11, :] = 0, 0
    torch.testing.assert_close(direction.double(), gradient, rtol=1e-4, atol=1e-7, equal_nan=True)


def test_gradients_of_one_image_alone_and_their_scaling():
    from fastgan.kernels import ssim as kernel

    images = [z.detach() for z in pair((2, 6, 7), channels=2)]
    formula = 5, 1.5, 1e-4, 9e-4, 1, False, 0.7, 0.3
    loss, *directions = kernel.ssim(*images, *formula, True, True)
    for which in range(2):
        alone = kernel.ssim(*images, *formula, which == 0, which == 1)
        assert torch.equal(alone[0], loss) and alone[2 - which].numel() == 0
        torch.testing.assert_close(alone[1 + which], directions[which], rtol=1e-4, atol=1e-7)
    only_loss = kernel.ssim(*images, *formula, False, False)
    assert torch.equal(only_loss[0], loss) and only_loss[1].numel() == only_loss[2].numel() == 0

    grad = torch.rand(2, 2)
    scaled = kernel.ssim_backward(directions[0], grad, torch.float32)
    torch.testing.assert_close(scaled, 4 * grad[..., None, None] * directions[0])
    # In place, channels whose factor is 1 are not changed.
    grad[0, 0], in_place = 1 / 4, directions[0].clone()
    kernel.ssim_backward_(in_place, grad)
    assert torch.equal(in_place[0, 0], directions[0][0, 0])
    torch.testing.assert_close(in_place, 4 * grad[..., None, None] * directions[0])


def test_contrast_alone_and_equal_images():
    from fastgan.kernels import ssim as kernel

    x, y = (z.detach() for z in pair((1, 7, 8), channels=1))
    loss, *_ = kernel.ssim(x, y, 5, 0.0, 1e-4, 9e-4, 0, True, 1.0, 0.0, False, False)
    expected = reference(x.double(), y.double(), window_taps(5, 0.0), 1e-4, 9e-4, contrast=True)
    assert relative_error(loss, expected) <= 2e-6
    loss, direction, _ = kernel.ssim(x, x.clone(), 5, 1.5, 1e-4, 9e-4, 0, False, 1.0, 0.0, True, False)
    assert (loss == 0).all() and (direction == 0).all()


def test_nan_reaches_the_gradients_of_pixels_that_share_a_window_with_it():
    from fastgan.kernels import ssim as kernel

    x, y = (z.detach() for z in pair((1, 6, 19)))
    x[..., 2, 18] = float("nan")  # near the end of a row, whose derivatives are beside those of the next one
    _, direction, _ = kernel.ssim(x, y, 5, 1.5, 1e-4, 9e-4, 0, False, 1.0, 0.0, True, False)
    assert direction.isnan().any(0).any(0).any(0).tolist() == [False] * 14 + [True] * 5
