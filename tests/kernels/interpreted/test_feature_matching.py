"""The Triton kernels of feature_matching, in the interpreter."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.feature_matching import MOST, NAN, SEGMENT
from tests.kernels.interpreted import interpreted
from tests.ops.test_feature_matching import SIZES, pairs

pytestmark = interpreted


def test_constants_are_those_of_the_op():
    from fastgan.kernels import feature_matching as kernel

    assert (kernel.MOST, kernel.NAN.value) == (MOST, NAN) and SEGMENT % kernel.BLOCK == 0


@pytest.mark.parametrize(
    ("count", "dtypes"),
    [
        (1, (torch.float32, torch.float32)),
        (4, (torch.bfloat16, torch.float32)),
        (MOST, (torch.float16, torch.float16)),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_feature_matching(layout, count, dtypes):
    """Against the CPU's, of maps that fill segments partly, and one of a single element."""
    from fastgan.kernels import feature_matching as kernel

    fake, real, weights = pairs([SIZES[i % 4] for i in range(count)], layout=layout)
    fake, real = (
        [each.detach().to(dtype) for each in side] for side, dtype in zip((fake, real), dtypes, strict=True)
    )
    fake[0][0, 0, 0, 0] = torch.nan if count == 1 else real[0][0, 0, 0, 0]
    arguments = fake, real, weights, SEGMENT, True
    loss, signs, slopes = kernel.feature_matching(*arguments)
    expected = torch.ops.fastgan.feature_matching(*arguments)
    assert_close(loss, expected[0], equal_nan=True, rtol=2e-6, atol=1e-7)
    assert torch.equal(signs, expected[1])
    assert_close(slopes, expected[2], rtol=1e-6, atol=0)
    grad = torch.tensor(3.0)
    for dtype in dtypes:
        assert_close(
            kernel.feature_matching_backward(signs, slopes, grad, dtype),
            torch.ops.fastgan.feature_matching_backward(*expected[1:], grad, dtype),
            equal_nan=True, rtol=1e-2 if dtype != torch.float32 else 1e-6, atol=0,
        )  # fmt: skip
    without = kernel.feature_matching(*arguments[:-1], False)
    assert_close(without[0], loss, equal_nan=True, rtol=0, atol=0)
    assert without[1].shape == (0, SEGMENT) and without[2].numel() == 0
