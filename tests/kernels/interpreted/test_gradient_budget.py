"""The Triton kernels of gradient_budget, in the interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from tests.kernels.interpreted import interpreted
from tests.ops.layouts import image, relative_error

pytestmark = interpreted


def compared(gradients, weights=None):
    """The kernel's results, after a comparison with the formula in float64."""
    from fastgan.kernels import gradient_budget as kernel

    gram, total = kernel.gradient_budget(gradients, weights)
    rows = torch.stack([gradient.double() for gradient in gradients]).flatten(1)
    factors = torch.ones(len(gradients)) if weights is None else weights
    expected = (factors.double() @ rows).view(gradients[0].shape)
    assert gram.dtype == torch.float32 and total.dtype == gradients[0].dtype
    assert relative_error(gram, rows @ rows.T) <= 1e-6
    if total.dtype == torch.float32:
        assert relative_error(total, expected) <= 1e-6
    else:
        assert_close(total, expected.to(total.dtype))
    assert torch.equal(gram, gram.T) and total.stride() == torch.empty_like(gradients[0]).stride()
    return gram, total


def random(count, size=(2, 17, 33), *arguments):
    return [image(size, *arguments).detach() - 0.5 for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 4, 7, 12, 13, 17])
def test_any_number_of_gradients(count):
    gradients = random(count, (1, 17, 15))
    compared(gradients, torch.linspace(-1, 2, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "expanded"])
def test_every_type_and_layout(layout, dtype):
    gradients = random(3, (3, 7, 9), dtype, "cpu", layout)
    compared(gradients, torch.tensor([0.5, -1.0, 2.0]))
    compared([*gradients, *random(1, (3, 7, 9), dtype)])
    if dtype != torch.float32:
        compared([gradients[0]] * 9)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 13, 13), (2, 47, 43), (2, 57, 53)])
def test_every_size(size, monkeypatch):
    """Of one program and of several, of one pass and of eight."""
    from fastgan.kernels import gradient_budget as kernel

    monkeypatch.setattr(kernel, "LARGE", 15000)
    compared(random(2, size))


def test_what_begins_anywhere_in_memory():
    """Where neighbours cannot be read together."""
    compared([torch.rand(1003)[3:] - 0.5 for _ in range(3)])


def test_weights_of_any_stride():
    gradients = random(3)
    strided = torch.linspace(-1, 2, 9)[::4]
    for weights in (strided, torch.tensor(0.5).expand(3)):
        assert torch.equal(compared(gradients, weights)[1], compared(gradients, weights.contiguous())[1])


def test_nan_and_infinity_propagate():
    from fastgan.kernels import gradient_budget as kernel

    gradients = [torch.ones(700) for _ in range(3)]
    gradients[0][3], gradients[2][699] = math.nan, math.inf
    gram, total = kernel.gradient_budget(gradients, None)
    nan, inf = math.nan, math.inf
    expected = torch.tensor([[nan, nan, nan], [nan, 700.0, inf], [nan, inf, inf]])
    assert_close(gram, expected, equal_nan=True)
    assert total[3].isnan() and total[699].isposinf() and (total[4:699] == 3).all()
