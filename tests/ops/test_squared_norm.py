"""Squared norms of samples: kernels against the float64 reference, to second order."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan import ops
from tests.conftest import DEVICES
from tests.ops.layouts import DTYPES, LAYOUTS, exact, image, relative_error

SIZES = [(1, 1, 1), (5, 3, 7), (3, 17, 33), (2, 150, 140)]


def both_orders(x, norm):
    """The norms, the gradient of a weighted sum, and the gradient of a penalty on that gradient."""
    weights = torch.arange(1, x.shape[0] + 1, device=x.device) / 7
    norms = norm(x)
    (grad,) = torch.autograd.grad((norms.sqrt() * weights).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(norm(grad).sum(), x)
    return norms, grad, second


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_kernel_matches_float64_reference(device, layout, size):
    x = image(size, device=device, layout=layout)
    actual = both_orders(x, ops.squared_norm)
    expected = both_orders(exact(x), lambda x: ops.squared_norm(x, backend="reference"))
    assert relative_error(actual[0], expected[0]) <= 1e-6
    assert relative_error(actual[1], expected[1]) <= 1e-6
    # The second derivative of a norm is a difference of nearly equal numbers.
    assert (actual[2].cpu() - expected[2]).norm() <= 1e-5 * expected[1].norm()


@pytest.mark.parametrize("device", DEVICES)
def test_kernel_matches_float64_reference_on_photographs(device, photographs):
    x = photographs.clone().to(device).requires_grad_()
    expected = ops.squared_norm(exact(x), backend="reference")
    assert relative_error(ops.squared_norm(x), expected) <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_accumulate_in_float32(device, dtype):
    x = image((3, 60, 50), dtype, device)
    norms = ops.squared_norm(x)
    assert norms.dtype == torch.float32
    assert relative_error(norms, ops.squared_norm(exact(x), backend="reference")) <= 1e-6
    (grad,) = torch.autograd.grad(norms.sum(), x)
    assert grad.dtype == dtype and torch.equal(grad, (2 * x.detach().float()).to(dtype))


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4, 5, 6)])
def test_any_number_of_dimensions(shape):
    x = torch.randn(shape)
    assert_close(ops.squared_norm(x), x.square().reshape(shape[0], -1).sum(dim=1))


def test_gradients_of_every_order():
    x = image((3, 4, 2), torch.float64)
    assert torch.autograd.gradcheck(ops.squared_norm, x)
    squared = lambda x: ops.squared_norm(x).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(squared, x)


def test_same_bits_for_any_number_of_threads():
    x = image((3, 203, 311))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.squared_norm(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype):
    for layout in ("contiguous", "channels_last"):
        x = image((2, 5, 6), dtype, layout=layout)
        grad = torch.rand(2, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
        torch.library.opcheck(torch.ops.fastgan.squared_norm.default, (x,))
        torch.library.opcheck(torch.ops.fastgan.squared_norm_backward.default, (x, grad))


def test_under_compile_and_functorch():
    x = image((4, 5, 6))
    expected = torch.autograd.grad(ops.squared_norm(x).sqrt().sum(), x)[0]
    compiled = torch.compile(lambda x: ops.squared_norm(x).sqrt().sum(), fullgraph=True)
    assert_close(torch.autograd.grad(compiled(x), x)[0], expected)
    assert_close(torch.func.grad(lambda x: ops.squared_norm(x).sqrt().sum())(x.detach()), expected)


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        ops.squared_norm(torch.ones(3, dtype=torch.int64))
    for empty in (torch.zeros(()), torch.zeros(0, 3), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match=r"must hold samples, shape \(N, \.\.\.\), got"):
            ops.squared_norm(empty)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_samples_of_one_number(backend):
    x = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    norms = ops.squared_norm(x, backend=backend)
    assert norms.tolist() == [1.0, 4.0, 0.25]
    (gradient,) = torch.autograd.grad(norms.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.allclose(gradient, 4 * x**3) and torch.allclose(second, 12 * x**2)


def test_the_operators_themselves_accept_empty_batches():
    # The public function refuses them, but an exported graph calls the operator.
    x = torch.empty(0, 3)
    assert torch.ops.fastgan.squared_norm(x).shape == (0,)
    assert torch.ops.fastgan.squared_norm_backward(x, torch.empty(0)).shape == (0, 3)
