"""Every loss is computed in float32 (float64 for float64), also with half-precision inputs and autocast."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan import compat, losses
from fastgan.compat import basicsr, pix2pix, r3gan, starganv2, studiogan, zi2zi
from fastgan.losses._borrowed import BORROWED

LABELS = torch.tensor([0, 3, 1, 1])
BITS = torch.tensor([[0, 1, 1, 0]] * 4)


def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Conv2d(4, 4, 3, 2, 1), nn.Softplus())


def with_logits(loss):
    """A loss, and logits whose squares or sums overflow in half precision."""
    return loss, lambda: 100 * torch.linspace(-3, 3, 16).reshape(4, 4)


def with_images(loss):
    return loss, lambda: torch.rand(4, 3, 9, 8, generator=torch.Generator().manual_seed(1))


def penalty(function):
    """A penalty of logits and samples, with a gradient that is large for half precision."""
    return (lambda x: function((30 * x * x).sum(dim=1), x)), lambda: torch.linspace(0.1, 1, 16).reshape(4, 4)


def gradient_penalty(function):
    """A penalty of a discriminator and samples; a square makes the penalty's gradient depend on x."""

    def call(x):
        torch.manual_seed(3)
        return function(lambda x: (x * x).flatten(1).sum(dim=1), x)

    return with_images(call)


def flipped(x):
    """Other logits of the same dtype, without a graph."""
    return x.detach().flip(0)


LOSSES = {
    "adv_loss": with_logits(lambda x: losses.adv_loss(x, 1)),
    "bce_secret_loss": with_logits(lambda x: losses.bce_secret_loss(x, BITS)),
    "BinaryLoss": with_logits(losses.BinaryLoss(False)),
    "CategoryLoss": with_logits(lambda x: losses.CategoryLoss(4)(x, LABELS)),
    "style_reconstruction_loss": with_logits(lambda x: losses.style_reconstruction_loss(x, flipped(x))),
    "cycle_consistency_loss": with_logits(lambda x: losses.cycle_consistency_loss(x, flipped(x))),
    "identity_loss": with_logits(lambda x: losses.identity_loss(flipped(x), x)),
    "diversity_sensitive_loss": with_logits(lambda x: losses.diversity_sensitive_loss(x, flipped(x))),
    "yuv_color_l2": with_images(lambda x: losses.yuv_color_l2(x, flipped(x))),
    "pixel_loss": with_images(lambda x: losses.pixel_loss(x, flipped(x))),
    "PixelLoss": with_images(lambda x: losses.PixelLoss("l2", sobel_weight=1.0)(x, flipped(x))),
    "total_variation_loss": with_images(losses.total_variation_loss),
    "ssim": with_images(lambda x: losses.ssim(x, flipped(x), window_size=7)),
    "ssim_loss": with_images(lambda x: losses.ssim_loss(x, flipped(x), window_size=7)),
    "ssim_l1_loss": with_images(lambda x: losses.ssim_l1_loss(x, flipped(x))),
    "SSIMLoss": with_images(lambda x: losses.SSIMLoss(window_size=7)(x, flipped(x))),
    "focal_frequency_loss": with_images(lambda x: losses.focal_frequency_loss(x, flipped(x))),
    "FocalFrequencyLoss": with_images(lambda x: losses.FocalFrequencyLoss()(x, flipped(x))),
    "feature_matching_loss": with_images(lambda x: losses.feature_matching_loss([x, x], [flipped(x), x])),
    "pix2pix.feature_matching_loss": with_images(
        lambda x: pix2pix.feature_matching_loss([[x, x]], [[flipped(x), x]], num_D=1)
    ),
    "studiogan.feature_matching_loss": with_images(
        lambda x: studiogan.feature_matching_loss(x[:2], x[2:])
    ),
    "YUVColorL2": with_images(lambda x: losses.YUVColorL2()(x, flipped(x))),
    "r1_penalty": penalty(losses.r1_penalty),
    "r2_penalty": penalty(losses.r2_penalty),
    "basicsr.r1_penalty": penalty(basicsr.r1_penalty),
    "starganv2.r1_reg": penalty(starganv2.r1_reg),
    "studiogan.cal_r1_reg": penalty(lambda d, x: studiogan.cal_r1_reg(d, x, "cpu")),
    "r3gan.ZeroCenteredGradientPenalty": penalty(
        lambda d, x: r3gan.ZeroCenteredGradientPenalty(x, d).mean()
    ),
    "basicsr.gradient_penalty_loss": gradient_penalty(
        lambda d, x: basicsr.gradient_penalty_loss(d, x, x.flip(0))
    ),
    "pix2pix.cal_gradient_penalty": gradient_penalty(
        lambda d, x: pix2pix.cal_gradient_penalty(d, x, x.flip(0), "cpu")[0]
    ),
    "studiogan.cal_grad_penalty": gradient_penalty(
        lambda d, x: studiogan.cal_grad_penalty(
            x, None, x.flip(0), lambda x, label, eval: {"adv_output": d(x)}, "cpu"
        )
    ),
    "studiogan.cal_maxgrad_penalty": gradient_penalty(
        lambda d, x: studiogan.cal_maxgrad_penalty(
            x, None, x.flip(0), lambda x, label, eval: {"adv_output": d(x)}, "cpu"
        )
    ),
    "studiogan.stylegan_cal_r1_reg": penalty(studiogan.stylegan_cal_r1_reg),
    "studiogan.crammer_singer_loss": with_logits(
        lambda x: studiogan.crammer_singer_loss(x, LABELS, False)
    ),
    "studiogan.cal_dra_penalty": gradient_penalty(
        lambda d, x: studiogan.cal_dra_penalty(
            x, None, lambda x, label, eval: {"adv_output": d(x)}, "cpu"
        )
    ),
    "starganv2.adv_loss": with_logits(lambda x: starganv2.adv_loss(x, 0)),
    "zi2zi.BinaryLoss": with_logits(zi2zi.BinaryLoss(True)),
    "zi2zi.CategoryLoss": with_logits(lambda x: zi2zi.CategoryLoss(4)(x, LABELS)),
}  # fmt: skip
for game in ("bce", "nonsaturating", "lsgan", "hinge", "wgan", "relativistic"):
    d_loss, g_loss = (getattr(losses, f"{side}_{game}_loss") for side in "dg")
    LOSSES[d_loss.__name__] = with_logits(lambda x, loss=d_loss: loss(x, flipped(x)))
    if game == "relativistic":
        LOSSES["g_relativistic_loss"] = with_logits(lambda x: losses.g_relativistic_loss(x, flipped(x)))
        continue
    LOSSES[f"g_{game}_loss"] = with_logits(g_loss)
    LOSSES[f"AdversarialLoss.halves, {game}"] = with_logits(
        lambda x, game=game: sum(losses.AdversarialLoss(game).halves(x, flipped(x)))
    )
for game in ("vanilla", "logistic", "ls", "hinge", "wasserstein"):
    d_loss, g_loss = (getattr(studiogan, f"{side}_{game}") for side in "dg")
    LOSSES[f"studiogan.d_{game}"] = with_logits(lambda x, loss=d_loss: loss(x, flipped(x), False))
    LOSSES[f"studiogan.g_{game}"] = with_logits(lambda x, loss=g_loss: loss(x, False))
for game in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"):
    for disc in (True, False):
        LOSSES[f"basicsr.GANLoss, {game}, {disc}"] = with_logits(
            lambda x, game=game, disc=disc: basicsr.GANLoss(game, loss_weight=0.3)(x, True, is_disc=disc)
        )
        LOSSES[f"basicsr.MultiScaleGANLoss, {game}, {disc}"] = with_logits(
            lambda x, game=game, disc=disc: basicsr.MultiScaleGANLoss(game)([x, x[:2]], True, is_disc=disc)
        )
for game in ("vanilla", "lsgan", "wgangp", "hinge"):
    LOSSES[f"pix2pix.GANLoss, {game}"] = with_logits(lambda x, game=game: pix2pix.GANLoss(game)(x, True))

# Tested elsewhere: what returns no single number, or converts a discriminator's input to float32 itself.
TESTED_ELSEWHERE = {
    "LPIPS", "LPIPSLoss", "ImageFeatures", "lpips_weights_path", "PerceptualLoss", "VGGFeatures",
    "gram_matrix", "layer_index", "DiffJPEG", "RandomJPEG", "diff_jpeg_coding", "jpeg_codec_differentiable",
    "AdversarialStatistics", "SideStatistics", "PenaltyTerm", "check_supports_penalty",
    "g_adversarial_loss", "AdversarialLoss", "R1", "r1_penalty_of", "gradient_penalty", "approximate_r1",
    "DISTS", "DISTSLoss", "dists_head", "ms_ssim", "ms_ssim_loss", "MSSSIMLoss", "PathLength", "PathLengths",
    "PathLengthTerm", "path_length_penalty", "path_length_penalty_of", "basicsr.g_path_regularize",
    "studiogan.PathLengthRegularizer", "basicsr.DiffJPEG", "basicsr.PerceptualLoss",
    "starganv2.moving_average",
}  # fmt: skip


def test_every_public_loss_is_tested_here():
    names = {*losses.__all__, *BORROWED}
    for module in (basicsr, pix2pix, r3gan, starganv2, studiogan, zi2zi):
        short = module.__name__.removeprefix(f"{compat.__name__}.")
        names |= {
            f"{short}.{name}" for name, value in vars(module).items()
            if inspect.isroutine(value) or inspect.isclass(value)
            if value.__module__ == module.__name__ and not name.startswith("_")
        }  # fmt: skip
    assert names - TESTED_ELSEWHERE == {name.split(",")[0] for name in LOSSES} - {
        "AdversarialLoss.halves", "zi2zi.BinaryLoss"
    }  # fmt: skip


def gradient(value, x):
    return torch.autograd.grad(value, x)[0]


@pytest.mark.filterwarnings("ignore:a penalty of")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=["plain", "bf16", "f16"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_float32(name, dtype, autocast):
    loss, inputs = LOSSES[name]
    x = inputs().to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    expected = loss(exact)
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        actual = loss(x)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # In penalties torch rounds gradients and interpolated points to the dtype of the samples.
    penalty_tolerances = (
        {torch.float16: 2e-2, torch.bfloat16: 0.2} if "penalty" in name.lower() or "r1" in name else {}
    )
    tolerance = penalty_tolerances.get(dtype, 1e-5)
    assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    (expected_gradient,) = torch.autograd.grad(expected, exact, allow_unused=True)
    if expected_gradient is not None:  # interpolated points have none
        actual_gradient = gradient(actual, x)
        assert actual_gradient.dtype == dtype
        assert_close(
            actual_gradient.double(),
            expected_gradient,
            rtol=max(tolerance, torch.finfo(dtype).eps),
            atol=1e-3,
        )


def test_values_beyond_the_range_of_half_precision():
    """Expected are those of BasicSR and pix2pix: under autocast torch computes their losses in float32."""
    logits = torch.full((8, 1, 30, 30), 300.0, dtype=torch.float16, requires_grad=True)
    assert losses.d_lsgan_loss(logits, logits).item() == pytest.approx((299**2 + 300**2) / 2)
    for loss in (basicsr.GANLoss("lsgan"), pix2pix.GANLoss("lsgan")):
        assert loss(logits, False).item() == pytest.approx(300**2)
        assert loss(logits, True).item() == pytest.approx(299**2)
        assert gradient(loss(logits, False), logits).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.full((4, 1), 3.0).bfloat16()
        for value in (losses.adv_loss(logits, 1), losses.BinaryLoss(True)(logits)):
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(0.04858735, rel=1e-6)


def test_float64_gradients_keep_their_digits_under_a_grad_scaler():
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    expected = losses.r1_penalty((x**3).sum(dim=1), x)
    assert_close(losses.r1_penalty((x**3).sum(dim=1), x, scaler=scaler), expected, rtol=1e-14, atol=0)
