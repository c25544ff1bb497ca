"""Focal frequency loss against its formula on whole spectra, and its errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from fastgan.losses import FocalFrequencyLoss, focal_frequency_loss


def of_whole_spectra(
    pred, target, matrix=None, loss_weight=1.0, alpha=1.0, patch_factor=1, ave_spectrum=False,
    log_matrix=False, batch_matrix=False,
):  # fmt: skip
    """With two transforms of all frequencies, as the loss is published."""
    spectra = []
    for images in (pred, target):
        rows = [piece for band in images.chunk(patch_factor, 2) for piece in band.chunk(patch_factor, 3)]
        spectrum = torch.fft.fft2(torch.stack(rows, dim=1), norm="ortho")
        spectra.append(spectrum.mean(dim=0, keepdim=True) if ave_spectrum else spectrum)
    difference = spectra[0] - spectra[1]
    squares = difference.real.square() + difference.imag.square()
    if matrix is None:
        matrix = squares.detach().sqrt() ** alpha
        matrix = (matrix + 1).log() if log_matrix else matrix
        matrix = matrix / (matrix.max() if batch_matrix else matrix.amax(dim=(3, 4), keepdim=True))
        matrix = torch.where(matrix.isnan(), 0, matrix).clamp(0, 1)
    return (matrix * squares).mean() * loss_weight


def images(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, *shape, generator=generator).to(dtype))


OPTIONS = [dict(zip(("ave_spectrum", "log_matrix", "batch_matrix"), flags, strict=True))
           for flags in itertools.product((False, True), repeat=3)]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("size", "patch_factor"), [((12, 16), 1), ((12, 16), 2), ((9, 15), 3), ((7, 11), 1), ((1, 2), 1)]
)
def test_values_and_gradients_are_those_of_whole_spectra(size, patch_factor, options):
    results = []
    for alpha in (1.0, 0.5, 2.0):
        arguments = {"loss_weight": 2.5, "alpha": alpha, "patch_factor": patch_factor, **options}
        leaves = [x.clone().requires_grad_() for x in images(2, 3, *size)]
        value = FocalFrequencyLoss(**arguments)(*leaves)
        results.append((value, *torch.autograd.grad(value, leaves)))
        leaves = [x.double().requires_grad_() for x in images(2, 3, *size)]
        value = of_whole_spectra(*leaves, **arguments)
        results.append((value, *torch.autograd.grad(value, leaves)))
    for ours, theirs in zip(results[::2], results[1::2], strict=True):
        assert_close(ours[0].double(), theirs[0], rtol=1e-5, atol=1e-8)
        for one, other in zip(ours[1:], theirs[1:], strict=True):
            assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 1)])
def test_a_given_matrix_need_not_be_symmetric(size):
    pred, target = images(2, 3, *size)
    for shape in ((2, 1, 3, *size), size, (2, 1, 1, 1, 1)):
        matrix = torch.rand(shape, requires_grad=True)
        leaf = pred.clone().requires_grad_()
        value, expected = (
            focal_frequency_loss(leaf, target, matrix),
            of_whole_spectra(leaf, target, matrix.detach()),
        )
        assert_close(value, expected, rtol=1e-5, atol=1e-8)
        assert_close(
            torch.autograd.grad(value, leaf), torch.autograd.grad(expected, leaf), rtol=1e-4, atol=1e-7
        )


def test_equal_images_have_no_loss_and_no_nan():
    x = images(2, 3, 8, 8)[0].requires_grad_()
    for options in OPTIONS:
        value = focal_frequency_loss(x, x.detach(), **options)
        assert value == 0 and not torch.autograd.grad(value, x)[0].any()
    # One image differs, the other's weights would be 0 / 0.
    other = x.detach().clone()
    other[0] += torch.rand(3, 8, 8)
    value = focal_frequency_loss(x, other)
    assert_close(value, of_whole_spectra(x, other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_transformed_in_float32(dtype):
    pred, target = images(2, 3, 12, 10, dtype=dtype)
    leaf = pred.clone().requires_grad_()
    value = focal_frequency_loss(leaf, target)
    assert value.dtype == torch.float32
    assert_close(value, focal_frequency_loss(pred.float(), target.float()))
    assert torch.autograd.grad(value, leaf)[0].dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(focal_frequency_loss(pred, target), value.detach())


def test_both_orders_of_gradient():
    pred, target = (x.requires_grad_() for x in images(1, 2, 4, 5, dtype=torch.float64))
    matrix = torch.rand(4, 5, dtype=torch.float64)
    function = lambda x, y: focal_frequency_loss(x, y, matrix)  # noqa: E731
    assert torch.autograd.gradcheck(function, (pred, target))
    assert torch.autograd.gradgradcheck(function, (pred, target))


def test_compiles_as_one_graph():
    pred, target = images(2, 3, 12, 10)
    gradients = []
    for function in (focal_frequency_loss, torch.compile(focal_frequency_loss, fullgraph=True)):
        leaf = pred.clone().requires_grad_()
        value = function(leaf, target)
        gradients.append((value, *torch.autograd.grad(value, leaf)))
    assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-8)


X = torch.rand(1, 3, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X[0], X), {}, ValueError, r"pred must have shape \(N, C, H, W\), got \(3, 6, 8\)"),
        ((X, X.long()), {}, TypeError, "target must be a floating-point image"),
        ((X, X[..., :4]), {}, ValueError, "pred and target must have the same shape"),
        ((X, X), {"patch_factor": 4}, ValueError, "patch_factor must divide .* got 4 for images of 6 x 8"),
        ((X, X, torch.ones(5)), {}, ValueError, r"broadcastable to .* \(1, 1, 3, 6, 8\), got shape \(5,\)"),
        (
            (X, X, torch.full((6, 8), 1.5)),
            {},
            ValueError,
            r"matrix must lie in .*, got values in \[1.5, 1.5\]",
        ),
        ((X, X, 0.5), {}, TypeError, "matrix must be a floating-point tensor, got float 0.5"),
        ((X, X), {"alpha": "1"}, TypeError, "alpha must be a number, got str '1'"),
        ((X, X), {"patch_factor": 0}, ValueError, "patch_factor must be at least 1, got 0"),
        ((X, X), {"log_matrix": 3}, TypeError, "log_matrix must be True or False, got int 3"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        focal_frequency_loss(*arguments, **options)
    if len(arguments) == 2 and options.keys() - {"patch_factor"}:
        with pytest.raises(error, match=message):
            FocalFrequencyLoss(**options)
