"""The Triton kernels of squared_norm, bias_leaky_relu and adversarial, in the interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.adversarial import GAMES, discriminator_loss, generator_loss
from fastgan.reference.bias_leaky_relu import bias_leaky_relu as leaky_reference
from tests.kernels.interpreted import interpreted
from tests.ops.layouts import exact, image, relative_error

pytestmark = interpreted


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 17, 33), (2, 90, 70), (2, 107, 103)])
def test_squared_norm(size, layout):
    from fastgan.kernels import squared_norm as kernel

    x, grad = image(size, layout=layout).detach(), torch.rand(size[0])
    expected = x.double().square().flatten(1).sum(dim=1)
    assert relative_error(kernel.squared_norm(x), expected) <= 1e-6
    assert_close(kernel.squared_norm_backward(x, grad), 2 * grad[:, None, None, None] * x)


@pytest.mark.parametrize("clamp", [math.inf, 0.3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "size",
    # The last two have, channels last, as many rows as one program sums alone, and one more.
    [(1, 1, 1), (5, 3, 7), (3, 17, 33), (2, 40, 61), (7, 49, 50), (1, 130, 130), (1, 16, 16), (1, 257, 1)],
)
def test_bias_leaky_relu(size, layout, clamp):
    from fastgan.kernels import bias_leaky_relu as kernel

    x = (image(size, layout=layout, channels=5) - 0.5).detach()
    bias = torch.rand(5) - 0.5
    y, codes = kernel.bias_leaky_relu(x, bias, 0.2, 1.4, clamp, True)
    wide, wide_bias = exact(x), exact(bias)
    expected = leaky_reference(wide, wide_bias, 0.2, 1.4, None if clamp == math.inf else clamp)
    assert relative_error(y, expected) <= 1e-6
    assert y.stride() == codes.stride() == x.stride()
    grad = torch.rand_like(x)
    grad_x, grad_bias = kernel.bias_leaky_relu_backward(grad, codes, 0.2, 1.4, torch.float32)
    expected_gradients = torch.autograd.grad(expected, (wide, wide_bias), grad.double())
    assert (
        relative_error(grad_x, expected_gradients[0]) <= 1e-6
        and relative_error(grad_bias, expected_gradients[1]) <= 1e-6
    )
    only_grad_x, no_grad_bias = kernel.bias_leaky_relu_backward(grad, codes, 0.2, 1.4, None)
    assert torch.equal(only_grad_x, grad_x) and no_grad_bias.numel() == 0
    half = kernel.bias_leaky_relu_backward(grad, codes, 0.2, 1.4, torch.float16)[1]
    assert torch.equal(half, grad_bias.half())
    tangent = kernel.bias_leaky_relu_tangent(grad, bias, codes, 0.2, 1.4)
    factors = torch.tensor([0.28, 1.4, 0.0, 0.0])[codes.long()]
    assert_close(tangent, factors * (grad + bias[:, None, None]))
    assert torch.equal(kernel.bias_leaky_relu(x, bias, 0.2, 1.4, clamp, False)[0], y)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("game", range(len(GAMES)))
@pytest.mark.parametrize("counts", [(1500, 1500), (17000, 17000), (900, 7001), (8193, 5)])
def test_adversarial(game, sign, counts):
    from fastgan.kernels import adversarial as kernel

    if GAMES[game] == "relativistic" and counts[0] != counts[1]:
        pytest.skip("the relativistic loss compares pairs")
    real, fake = (5 * torch.randn(count) for count in counts)
    wide = exact(real), exact(fake)
    options = {"sign": sign, "real_label": 0.9, "backend": "reference"}
    expected, statistics = discriminator_loss(*wide, GAMES[game], fake_label=0.1, **options)
    loss, actual, slopes = kernel.adversarial(real, fake, game, False, sign, 0.9, 0.1, True)
    assert_close(loss.double(), expected, rtol=2e-6, atol=1e-6)
    assert_close(actual.double(), statistics, rtol=2e-6, atol=1e-6)
    for one, other in zip(slopes.split(counts), torch.autograd.grad(expected, wide), strict=True):
        assert relative_error(one, other) <= 2e-6

    relativistic = GAMES[game] == "relativistic"
    expected = generator_loss(wide[1], wide[0], GAMES[game], **options)
    arguments = (real if relativistic else None, fake, game, True, sign, 0.9, 0.0)
    loss, actual, slopes = kernel.adversarial(*arguments, True)
    assert actual.numel() == 0
    assert_close(loss.double(), expected, rtol=2e-6, atol=1e-6)
    expected_gradients = torch.autograd.grad(expected, wide, allow_unused=True)
    expected_gradients = [gradient for gradient in expected_gradients if gradient is not None]
    assert relative_error(slopes, torch.cat(expected_gradients)) <= 2e-6
    assert kernel.adversarial(*arguments, False)[2].numel() == 0


def test_bias_leaky_relu_of_nan_and_infinity():
    from fastgan.kernels import bias_leaky_relu as kernel

    x = torch.tensor([[math.nan, math.inf, -math.inf, 2.0]])
    for slope in (0.2, 0.0):
        y, codes = kernel.bias_leaky_relu(x, None, slope, 2.0, math.inf, True)
        leaf = x.clone().requires_grad_()
        expected = leaky_reference(leaf, None, slope, 2.0, None)
        assert_close(y, expected.detach(), equal_nan=True)
        grad = kernel.bias_leaky_relu_tangent(torch.ones_like(x), None, codes, slope, 2.0)
        assert_close(grad, torch.autograd.grad(expected.sum(), leaf)[0], equal_nan=True)


@pytest.mark.parametrize("game", GAMES)
def test_adversarial_of_nan_and_infinity(game):
    from fastgan.kernels import adversarial as kernel

    for logit in (math.nan, math.inf, -math.inf):
        for label in (1.0, 0.9):
            real, fake = (torch.tensor([logit, 0.3], requires_grad=True) for _ in range(2))
            expected, _ = discriminator_loss(real, fake, game, real_label=label, backend="reference")
            gradients = torch.autograd.grad(expected, (real, fake))
            loss, _, slopes = kernel.adversarial(
                real.detach(), fake.detach(), GAMES.index(game), False, 1.0, label, 0.0, True
            )
            assert_close(loss, expected.detach(), equal_nan=True)
            assert_close(slopes, torch.cat(gradients), equal_nan=True)


@pytest.mark.parametrize("game", GAMES)
def test_adversarial_on_thresholds(game):
    """Logits exactly at the margin, the threshold and the kink are treated as on the CPU."""
    from fastgan.kernels import adversarial as kernel

    real = torch.tensor([-1.0, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0])
    options = GAMES.index(game), False, 1.0, 0.75, -0.25, True
    ours = kernel.adversarial(real, real.flip(0), *options)
    for one, other in zip(ours, torch.ops.fastgan.adversarial(real, real.flip(0), *options), strict=True):
        assert_close(one, other)
