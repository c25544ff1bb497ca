"""Adversarial losses: kernels against the float64 reference, to second order."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fastgan.ops.adversarial import GAMES, discriminator_loss, generator_loss
from tests.conftest import DEVICES
from tests.ops.layouts import exact

SHAPES = [((1,), (1,)), ((64,), (64,)), ((5, 1), (7, 1)), ((16, 1, 30, 30), (3, 1, 7, 9)), ((5000,), (4097,))]


def logits(shape, dtype=torch.float32, device="cpu"):
    """Logits from near zero to where exp would overflow; rounding moves none of them across a kink."""
    x = torch.randn(shape, dtype=torch.float64) * torch.tensor([0.1, 2.0, 30.0])[torch.randint(3, shape)]
    x = torch.where(((x.abs() - 1).abs() < 1e-3) | (x.abs() < 1e-3), 0.3, x)
    return x.to(device, dtype).requires_grad_()


def assert_near(slopes, expected):
    """Compares with a tolerance of 1e-6; a slope of e^-60 has the rounding error of its logit.

    On a GPU to 2e-6: exp and the two divisions behind a slope are right to 2 units in the last place each,
    and exp's argument is rounded once more in base 2.
    """
    tolerance = 1e-6 if slopes.device.type == "cpu" else 2e-6
    assert (slopes.cpu().double() - expected).norm() <= tolerance * expected.norm() + 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_kernel_matches_float64_reference(device, shapes, game, sign):
    if game == "relativistic":
        shapes = (shapes[0], shapes[0])
    real, fake = (logits(shape, device=device) for shape in shapes)
    labels = {"real_label": 0.9, "fake_label": 0.2}
    loss, statistics = discriminator_loss(real, fake, game, sign=sign, **labels)
    wide = exact(real), exact(fake)
    expected, expected_statistics = discriminator_loss(*wide, game, sign=sign, **labels, backend="reference")
    # Wasserstein losses are differences: the error is relative to what is subtracted.
    size = expected.abs() + wide[0].detach().abs().mean() + wide[1].detach().abs().mean()
    assert (loss.cpu() - expected).abs() <= 1e-6 * size
    assert_close(statistics.cpu().double(), expected_statistics, rtol=1e-6, atol=1e-6)
    assert not statistics.requires_grad
    for one, other in zip(
        torch.autograd.grad(3 * loss, (real, fake)), torch.autograd.grad(3 * expected, wide), strict=True
    ):
        assert_near(one, other)

    loss = generator_loss(fake, real, game, sign=sign, real_label=0.9)
    expected = generator_loss(wide[1], wide[0], game, sign=sign, real_label=0.9, backend="reference")
    assert (loss.cpu() - expected).abs() <= 1e-6 * size
    inputs = (fake, real) if game == "relativistic" else (fake,)
    wanted = (wide[1], wide[0]) if game == "relativistic" else (wide[1],)
    for one, other in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, wanted), strict=True
    ):
        assert_near(one, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(device, dtype, game):
    real, fake = logits((300,), dtype, device), logits((300,), dtype, device)
    loss, statistics = discriminator_loss(real, fake, game)
    expected, _ = discriminator_loss(exact(real), exact(fake), game, backend="reference")
    assert loss.dtype == statistics.dtype == torch.float32
    assert (loss.cpu() - expected).abs() <= 1e-6 * (expected.abs() + exact(real).abs().mean())
    # As under a GradScaler: the slopes must not have vanished before they are multiplied.
    grad_real, grad_fake = torch.autograd.grad(loss, (real, fake), torch.tensor(2.0**14, device=device))
    assert grad_real.dtype == grad_fake.dtype == dtype
    (wanted,) = torch.autograd.grad(
        2**14 * discriminator_loss(x := exact(real), exact(fake), game, backend="reference")[0], x
    )
    assert_close(grad_real.cpu().double(), wanted, rtol=2.0**-7, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("game", GAMES)
def test_gradients_of_every_order(game, sign):
    real, fake = logits((5, 1), torch.float64), logits((5, 1), torch.float64)
    discriminator = lambda r, f: discriminator_loss(r, f, game, sign=sign, real_label=0.9)[0]  # noqa: E731
    generator = lambda r, f: generator_loss(f, r, game, sign=sign)  # noqa: E731
    for function in (discriminator, generator):
        assert torch.autograd.gradcheck(function, (real, fake))
        assert torch.autograd.gradgradcheck(lambda r, f, function=function: function(r, f) ** 2, (real, fake))


def test_only_one_side_may_require_grad():
    real, fake = logits((6,)), logits((6,))
    for needs in (real, fake):
        other = {id(real): fake.detach(), id(fake): real.detach()}[id(needs)]
        arguments = (needs, other) if needs is real else (other, needs)
        for game in GAMES:
            loss, _ = discriminator_loss(*arguments, game)
            expected, _ = discriminator_loss(*arguments, game, backend="reference")
            assert_close(torch.autograd.grad(loss, needs)[0], torch.autograd.grad(expected, needs)[0])


def test_same_bits_for_any_number_of_threads():
    real, fake = logits((70_000,)), logits((50_001,))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            loss, statistics = discriminator_loss(real, fake, "cross_entropy")
            results.append((loss, statistics, *torch.autograd.grad(loss, (real, fake))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("game", GAMES)
def test_nan_and_infinity_are_not_hidden(game):
    fake = torch.tensor([0.5, 1.0])
    loss, statistics = discriminator_loss(torch.tensor([0.5, torch.nan]), fake, game)
    assert loss.isnan() and statistics[0].isnan()
    loss, _ = discriminator_loss(torch.tensor([0.5, -torch.inf]), fake, game)
    assert loss.isinf()


def test_opcheck_and_compile():
    real, fake = logits((6, 1)), logits((6, 1))
    for game in range(len(GAMES)):
        for generator in (False, True):
            arguments = (real, fake, game, generator, -1.0, 0.9, 0.0, True)
            torch.library.opcheck(torch.ops.fastgan.adversarial.default, arguments)
    step = lambda r, f: discriminator_loss(r, f, "hinge")[0] * 2  # noqa: E731
    expected = torch.autograd.grad(step(real, fake), (real, fake))
    actual = torch.autograd.grad(torch.compile(step, fullgraph=True)(real, fake), (real, fake))
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)


def test_errors_name_what_is_wrong():
    x = torch.rand(3)
    with pytest.raises(ValueError, match="game must be one of cross_entropy, .*, got 'chess'"):
        discriminator_loss(x, x, "chess")
    with pytest.raises(ValueError, match="one device, got real_logits on cpu, fake_logits on meta"):
        discriminator_loss(x, x.to("meta"), "hinge")


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("label", "logit", "loss", "slope"), [
    (1.0, torch.inf, 0.0, 0.0),
    (1.0, -torch.inf, torch.inf, -1.0),
    (0.9, torch.inf, torch.inf, 0.1),
    (0.9, -torch.inf, torch.inf, -0.9),
    (0.0, -torch.inf, 0.0, 0.0),
    (0.0, torch.inf, torch.inf, 1.0),
    (1.2, torch.inf, -torch.inf, -0.2),
    (0.9, torch.nan, torch.nan, torch.nan),
])  # fmt: skip
def test_cross_entropy_of_infinite_logits_is_the_limit(label, logit, loss, slope, dtype, backend):
    fake = torch.tensor([logit], dtype=dtype, requires_grad=True)
    value = generator_loss(fake, None, "cross_entropy", real_label=label, backend=backend)
    (gradient,) = torch.autograd.grad(value, fake)
    torch.testing.assert_close(value.item(), loss, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(gradient.item(), slope, equal_nan=True, rtol=0, atol=4e-3)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("game", "slope"), [
    ("cross_entropy", torch.nan), ("least_squares", torch.nan), ("hinge", torch.nan),
    ("wasserstein", -0.5), ("relativistic", torch.nan),
])  # fmt: skip
def test_nan_in_a_logit_is_nan_in_its_gradient_alone(game, slope, backend):
    real = torch.tensor([torch.nan, 0.3], requires_grad=True)
    fake = torch.tensor([0.1, 0.2], requires_grad=True)
    loss, _ = discriminator_loss(real, fake, game, backend=backend)
    grad_real, grad_fake = torch.autograd.grad(loss, (real, fake))
    assert loss.isnan() and grad_real[1].isfinite() and grad_fake[1].isfinite()
    torch.testing.assert_close(grad_real[0].item(), slope, equal_nan=True)


@pytest.mark.parametrize("game", ["cross_entropy", "least_squares", "relativistic"])
def test_second_derivatives_of_half_precision_are_rounded_once(game):
    logits = torch.linspace(-3, 3, 10).to(torch.bfloat16)
    results = []
    for x in (logits, logits.float()):
        x = x.clone().requires_grad_()
        fake = torch.zeros_like(x)
        loss, _ = discriminator_loss(x, fake, game)
        (gradient,) = torch.autograd.grad(1e5 * loss, x, create_graph=True)
        results.append(torch.autograd.grad(gradient.float().square().sum(), x)[0])
    torch.testing.assert_close(
        results[0].float(), results[1], rtol=0.02, atol=1e-3 * results[1].abs().max().item()
    )


@pytest.mark.parametrize("game", GAMES)
def test_logits_of_inference_mode_stand_beside_others(game):
    with torch.inference_mode():
        real = torch.randn(5, 1)
    fake = torch.randn(5, 1, requires_grad=True)
    loss, _ = discriminator_loss(real, fake, game)
    (gradient,) = torch.autograd.grad(loss, fake)
    expected, _ = discriminator_loss(real, fake, game, backend="reference")
    assert_close(gradient, torch.autograd.grad(expected, fake)[0])
