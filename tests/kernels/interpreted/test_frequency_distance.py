"""The Triton kernels of frequency_distance, in the interpreter."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.kernels.interpreted import interpreted

pytestmark = interpreted


@pytest.mark.parametrize("case", [
    "root", "power", "log", "batch", "falling", "matrix", "nan in matrix", "zeros", "nan",
])  # fmt: skip
@pytest.mark.parametrize("width", [9, 130])
def test_frequency_distance(width, case):
    """Against the CPU's, of planes that fill parts partly."""
    from fastgan.kernels import frequency_distance as kernel

    spectrum, vectors = torch.randn(2, 2, 1, 3, 21, width // 2 + 1, 2)
    if case in ("zeros", "nan"):
        spectrum[1, 0, 2] = 0
        spectrum[0, 0, 1, 2, 3, 0] = 0 if case == "zeros" else torch.nan
    matrix = None
    if "matrix" in case:
        matrix = torch.rand(1, 1, 3, 21, width // 2 + 1)
        matrix[0, 0, 1, 2, 3] = torch.nan if "nan" in case else 1
        matrix = matrix.expand(spectrum.shape[:-1])
    alpha = {"power": 0.7, "log": 2.5, "falling": -0.5}.get(case, 1.0)
    options = width, alpha, case == "log"
    arguments = spectrum, matrix, *options, case in ("batch", "nan")
    loss, maxima = kernel.frequency_distance(*arguments)
    expected = torch.ops.fastgan.frequency_distance(*arguments)
    assert_close(loss, expected[0], equal_nan=True, rtol=2e-6, atol=0)
    assert_close(maxima, expected[1], equal_nan=True, rtol=1e-6, atol=0)
    for of in (spectrum, vectors):
        arguments = spectrum, expected[1], matrix, of, torch.tensor(3.0), *options
        assert_close(
            kernel.frequency_distance_backward(*arguments),
            torch.ops.fastgan.frequency_distance_backward(*arguments),
            equal_nan=True, rtol=2e-6, atol=1e-12,
        )  # fmt: skip
