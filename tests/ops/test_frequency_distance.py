"""The focal distance of spectra: the kernel against float64, gradients, transforms."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.frequency_distance import frequency_distance
from fastgan.reference.frequency_distance import frequency_distance as reference
from tests.conftest import DEVICES
from tests.ops.layouts import exact, relative_error

SIZES = [(2, 1, 3, 37, 50), (1, 4, 2, 8, 1), (1, 1, 1, 1, 2), (2, 1, 1, 129, 133)]
WEIGHTS = [
    {"alpha": alpha, "log_matrix": log, "batch_matrix": batch}
    for alpha, log, batch in itertools.product((1.0, 0.0, 0.4, 2.0, 7.5, -0.5), (False, True), (False, True))
]


def patches(size=SIZES[0], dtype=torch.float32, device="cpu"):
    """Differences of images, of which the lowest frequencies are by far the largest."""
    return (torch.rand(size) - 0.2).to(device, dtype).requires_grad_()


def results(function, x, *arguments, **options):
    """Loss, gradient, and the gradient's product with a constant image, differentiated once more."""
    loss = function(x, *arguments, **options)
    (gradient,) = torch.autograd.grad(loss.square(), x, create_graph=True)
    along = torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).reshape(x.shape)
    return loss, gradient, torch.autograd.grad((gradient * along).sum(), x)[0]


def slope(function, x):
    (gradient,) = torch.autograd.grad(function(x).square(), x, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_the_formula_in_float64(device, size):
    for weights in WEIGHTS:
        x = patches(size, device=device)
        ours, plain, expected = (
            results(function, leaf, None, **weights)
            for function, leaf in ((frequency_distance, x), (reference, x), (reference, exact(x)))
        )
        assert ours[0].dtype == torch.float32 and ours[0].shape == ()
        for our, its, right in zip(ours, plain, expected, strict=True):
            # Of large and of negative powers, the transform's errors are large, too.
            assert relative_error(our, right) <= max(1e-6, 1.2 * relative_error(its, right))


def test_weights_of_numbers_that_are_zero_or_beyond_their_type():
    """As in PyTorch's operations: 0 where a weight or the maximum is not a number."""
    for scale, dtype in itertools.product((0.0, 1e-25, 1e-3, 1e6, 3e18), (torch.float32, torch.float64)):
        x = (scale * torch.linspace(-1, 2, 60, dtype=dtype).reshape(1, 2, 1, 5, 6)).requires_grad_()
        for weights in WEIGHTS:
            ours, theirs = (
                (loss, *torch.autograd.grad(loss, x))
                for loss in (frequency_distance(x, **weights), reference(x, None, **weights))
            )
            assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * scale**2 + 1e-30, equal_nan=True)


def test_gradients_of_every_order_under_a_matrix():
    x, matrix = patches((2, 1, 1, 3, 4), torch.float64), torch.rand(2, 1, 1, 3, 4, dtype=torch.float64)
    for given in (matrix, matrix[0, 0, 0], matrix[0, 0, 0, 0, 0]):
        function = partial(frequency_distance, matrix=given)
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(lambda x: function(x).square(), x)  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda x: slope(function, x), x)  # noqa: B023


def test_same_bits_for_any_number_of_threads():
    threads, x, outcomes = torch.get_num_threads(), patches((2, 1, 3, 200, 300)), []
    spectrum = torch.view_as_real(torch.fft.rfft2(x.detach()))
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            loss, maxima = torch.ops.fastgan.frequency_distance(spectrum, None, 300, 0.5, False, False)
            arguments = spectrum, maxima, None, spectrum, loss, 300, 0.5, False
            outcomes.append((loss, maxima, torch.ops.fastgan.frequency_distance_backward(*arguments)))
    finally:
        torch.set_num_threads(threads)
    for outcome in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcome, outcomes[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    ops = torch.ops.fastgan
    x, matrix = patches((2, 1, 2, 4, 5), dtype), torch.rand(2, 1, 2, 4, 3, dtype=dtype)
    for weights in ((None, 0.5, True, False), (matrix, 1.0, False, True)):
        torch.library.opcheck(ops.spectral_distance.default, (x, *weights))
        with torch.no_grad():
            loss, spectrum, maxima = ops.spectral_distance(x, *weights)
        torch.library.opcheck(ops.frequency_distance.default, (spectrum, weights[0], 5, *weights[1:]))
        vectors = torch.randn_like(spectrum).requires_grad_()
        grad = loss.clone().requires_grad_()
        arguments = spectrum, maxima, weights[0], vectors, grad, 5, *weights[1:3]
        torch.library.opcheck(ops.frequency_distance_backward.default, arguments)


def test_under_functorch():
    x, matrix = patches((3, 2, 1, 2, 4, 5)).detach(), torch.rand(3, 4, 5)

    def loss(x, matrix):
        return frequency_distance(x, matrix).square() + frequency_distance(x, alpha=0.5)

    leaves = x.clone().unbind()
    expected = [
        torch.autograd.grad(loss(y.requires_grad_(), m), y)[0] for y, m in zip(leaves, matrix, strict=True)
    ]
    assert_close(torch.vmap(torch.func.grad(loss))(x, matrix), torch.stack(expected))
    leaf = x.clone().requires_grad_()
    assert_close(torch.autograd.grad(torch.vmap(loss)(leaf, matrix).sum(), leaf)[0], torch.stack(expected))


X = torch.rand(2, 1, 3, 6, 8)


@pytest.mark.parametrize("arguments, options, error, message", [
    (([1.0],), {}, TypeError, r"patches must be a floating-point tensor, got list \[1.0\]"),
    ((X.half(),), {}, TypeError, "patches must be in float32 or float64, got torch.float16 of shape"),
    ((X[0],), {}, ValueError, r"patches must have shape \(N, patches, C, H, W\), got \(1, 3, 6, 8\)"),
    ((X[:0],), {}, ValueError, r"patches must not be empty, got shape \(0, 1, 3, 6, 8\)"),
    ((X, 0.5), {}, TypeError, "matrix must be a floating-point tensor, got float 0.5"),
    ((X, X[..., :4]), {}, ValueError, r"broadcastable to .*6, 8\), got shape \(2, 1, 3, 6, 4\)"),
    ((X, X[None]), {}, ValueError, "matrix must be broadcastable to"),
    ((X, X.to("meta")), {}, ValueError, "on one device, got matrix on meta, patches on cpu"),
    ((X, X - 2), {}, ValueError, r"matrix must lie in \[0, 1\], got values in \[-"),
    ((X,), {"alpha": "1"}, TypeError, "alpha must be a number, got str '1'"),
    ((X,), {"alpha": float("nan")}, ValueError, "alpha must be finite, got nan"),
    ((X,), {"log_matrix": 3}, TypeError, "log_matrix must be True or False, got int 3"),
    ((X,), {"batch_matrix": None}, TypeError, "batch_matrix must be True or False, got None"),
    ((X,), {"backend": "cuda"}, ValueError, "cuda"),
])  # fmt: skip
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        frequency_distance(*arguments, **options)
