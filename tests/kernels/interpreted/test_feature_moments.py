"""The Triton kernels of feature_moments, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from fastgan.reference.feature_moments import feature_moments as reference
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, relative_error
from tests.ops.test_feature_moments import assert_near, maps

pytestmark = interpreted


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("size", "channels", "dtype", "mean"),
    [
        ((1, 1, 1), 1, torch.float32, 0.5),
        ((2, 17, 33), 37, torch.float32, 0.5),
        ((1, 90, 110), 3, torch.float32, 300.0),  # several parts of a plane
        ((2, 3, 5), 130, torch.bfloat16, 0.5),
    ],
)
def test_feature_moments(size, channels, dtype, mean, layout):
    from fastgan.kernels import feature_moments as kernel

    x, y = maps(size, dtype, layout=layout, channels=channels, mean=mean)
    images, wide = (x.detach(), y.detach()), (exact(x), exact(y))
    moments, rests = kernel.feature_moments(*images)
    expected = reference(*wide)
    assert_near(moments, expected)
    means = moments[..., :2].double() + rests.double()
    assert relative_error(means, expected[..., :2]) <= 1e-8
    grad = torch.randn(*moments.shape)
    gradients = kernel.feature_moments_backward(*images, moments, rests, grad, True, True)
    for ours, theirs, image in zip(
        gradients, torch.autograd.grad(expected, wide, grad.double()), images, strict=True
    ):
        assert ours.stride() == image.stride() and ours.dtype == dtype
        assert relative_error(ours, theirs) <= max(1e-6, torch.finfo(dtype).eps)
    for number, with_one in enumerate(((True, False), (False, True))):
        alone = kernel.feature_moments_backward(*images, moments, rests, grad, *with_one)
        assert torch.equal(alone[number], gradients[number]) and alone[1 - number].numel() == 0


def test_special_values_are_treated_as_on_the_cpu():
    from fastgan.kernels import feature_moments as kernel

    x, y = torch.rand(2, 4, 40, 40), torch.rand(2, 4, 40, 40)
    x[0, 1, 3, 4], x[1, 2, 30, 5], y[1, 3, 7, 7] = torch.nan, torch.inf, -torch.inf
    for ours, expected in zip(
        kernel.feature_moments(x, y), torch.ops.fastgan.feature_moments(x, y), strict=True
    ):
        torch.testing.assert_close(ours, expected, equal_nan=True, rtol=2e-6, atol=1e-7)
