"""The Triton kernels of side_losses, in the interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan.reference.side_losses import side_losses as plain
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, relative_error

pytestmark = interpreted

# One tensor, three scales, both sides; the last two have more logits than one program processes alone.
COUNTS = [((7,), 1), ((900, 225, 64), 3), ((3000, 2049, 5), 1), ((49153,), 0), ((40000, 1, 12289, 2048), 2)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("reduction", range(3))
@pytest.mark.parametrize("game", range(4))
@pytest.mark.parametrize(("counts", "reals"), COUNTS)
def test_side_losses(counts, reals, game, reduction, sign):
    from fastgan.kernels import side_losses as kernel

    logits = [5 * torch.randn(count) for count in counts]
    options = reals, game, sign, 0.9, 0.1, 0.5, reduction
    expected = plain([exact(each) for each in logits], *options, True, True)
    actual = kernel.side_losses(logits, *options, True, True)
    assert_close(
        actual[0].double(), expected[0].detach(), rtol=2e-6, atol=1e-6 * max(1, 2e3 * (reduction == 1))
    )
    assert_close(actual[1].double(), expected[1], rtol=2e-6, atol=1e-6)
    assert relative_error(actual[2], expected[2].detach()) <= 2e-6
    without = kernel.side_losses(logits, *options, False, False)
    assert torch.equal(without[0], actual[0]) and without[1].shape == (0, 4) and without[2].numel() == 0


@pytest.mark.parametrize("game", range(4))
def test_side_losses_of_nan_and_infinity(game):
    from fastgan.kernels import side_losses as kernel

    for logit in (math.nan, math.inf, -math.inf):
        logits = [torch.tensor([logit, 0.3]), torch.tensor([logit])]
        for label in (1.0, 0.9):
            for reduction in (0, 2):
                options = logits, 1, game, 1.0, label, 0.0, 1.0, reduction, True, True
                for one, other in zip(kernel.side_losses(*options), plain(*options), strict=True):
                    assert_close(one, other, equal_nan=True, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("game", range(4))
def test_side_losses_on_thresholds(game):
    """Logits exactly at the margin, the threshold and the kink are treated as on the CPU."""
    from fastgan.kernels import side_losses as kernel

    logits = torch.tensor([-1.0, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0])
    options = [logits, logits], 1, game, 1.0, 0.75, -0.25, 1.0, 0, True, True
    for one, other in zip(kernel.side_losses(*options), torch.ops.fastgan.side_losses(*options), strict=True):
        assert_close(one, other)
