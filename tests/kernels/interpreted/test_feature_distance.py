"""The Triton kernels of feature_distance, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference.feature_distance import feature_distance as reference
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, relative_error
from tests.ops.test_feature_distance import FORMULAS, maps

pytestmark = interpreted


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("p", "normalize", "relu_x"), FORMULAS)
@pytest.mark.parametrize(("size", "channels"), [((1, 2, 2), 5), ((2, 17, 33), 24), ((2, 3, 5), 600)])
def test_feature_distance(size, channels, p, normalize, relu_x, layout):
    from fastgan.kernels import feature_distance as kernel

    x, y = maps(size, layout=layout, channels=channels)
    weight = torch.rand(channels)
    images = x.detach(), y.detach()
    actual = kernel.feature_distance(*images, weight, p, normalize, 1e-10, relu_x, False, True, True)
    wide = [exact(m) for m in (x, y)]
    expected = reference(*wide, weight.double(), p, normalize, relu_x=relu_x)
    assert relative_error(actual[0], expected) <= 2e-6
    pixels = size[1] * size[2]
    for direction, gradient in zip(actual[1:], torch.autograd.grad(expected.sum(), wide), strict=True):
        assert direction.stride() == torch.empty_like(x).stride()
        tolerance = 1e-3 if p == 1 and normalize else 5e-6
        assert relative_error(direction, pixels * gradient) <= tolerance
    grad = torch.rand(size[0])
    for with_mean, factor in ((True, size[0]), (False, 1 / pixels)):
        scaled = kernel.feature_distance_backward(actual[1], grad, with_mean)
        torch.testing.assert_close(scaled, factor * grad[:, None, None, None] * actual[1])
    # In place, samples whose factor is 1 are not changed.
    grad[0], in_place = 1 / size[0], actual[1].clone()
    kernel.feature_distance_backward_(in_place, grad, True)
    assert torch.equal(in_place[0], actual[1][0])
    torch.testing.assert_close(in_place, size[0] * grad[:, None, None, None] * actual[1])
    with_mean = kernel.feature_distance(*images, weight, p, normalize, 1e-10, relu_x, True, True, True)
    for direction, of_sum in zip(with_mean[1:], actual[1:], strict=True):
        torch.testing.assert_close(direction, of_sum / (size[0] * pixels))
    without_directions = kernel.feature_distance(
        *images, weight, p, normalize, 1e-10, relu_x, True, False, False
    )
    assert (
        torch.equal(without_directions[0], actual[0])
        and without_directions[1].numel() == without_directions[2].numel() == 0
    )
    options = p, normalize, 1e-10, relu_x, False, True, True
    equal = torch.full((channels,), 1 / channels)
    for mean, weighted in zip(
        *(kernel.feature_distance(*images, w, *options) for w in (None, equal)), strict=True
    ):
        assert torch.equal(mean, weighted)


@pytest.mark.parametrize(("p", "normalize", "relu_x"), FORMULAS)
def test_special_values_are_treated_as_on_the_cpu(p, normalize, relu_x):
    from fastgan.kernels import feature_distance as kernel

    x, y = torch.randn(8, 5, 2, 3), torch.randn(8, 5, 2, 3)
    x[0, :, 0, 0] = 0  # a zero vector
    y[1, :, 1, 1] = 0
    x[2, 3, 0, 1] = torch.nan
    y[3, 4, 1, 0] = torch.nan
    x[4, 0, 1, 2] = torch.inf
    y[5, :, 0, 2] *= 1e20  # squares that overflow
    x[6, :, 1, 0] = y[6, :, 1, 0] = torch.rand(5)  # equal vectors
    x[7, 2] = 0  # the kink of relu
    for weight in (torch.rand(5), None):
        arguments = x, y, weight, p, normalize, 1e-10, relu_x, False, True, True
        for ours, expected in zip(
            kernel.feature_distance(*arguments), torch.ops.fastgan.feature_distance(*arguments), strict=True
        ):
            torch.testing.assert_close(ours, expected, equal_nan=True, rtol=2e-5, atol=1e-5)
