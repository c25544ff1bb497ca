"""The pure-PyTorch JPEG against the real codec, and its gradients."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.reference.jpeg import ROUNDINGS, jpeg_round_trip, quantization_tables


def through_pil(image, quality, subsampling):
    buffer = io.BytesIO()
    picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    picture.save(buffer, "JPEG", quality=quality, subsampling={"4:2:0": 2, "4:4:4": 0}[subsampling])
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [1, 25, 50, 80, 95, 100])
@pytest.mark.parametrize("size", [(300, 451), (64, 64), (7, 5), (17, 33)])
def test_straight_through_is_the_real_codec_within_a_grey_level(photographs, quality, subsampling, size):
    for image in photographs[..., : size[0], : size[1]]:
        decoded = jpeg_round_trip(image[None], quality, subsampling=subsampling)[0] * 255
        difference = (decoded - through_pil(image, quality, subsampling)).abs()
        # At quality 1 every step is huge: a coefficient on the fence moves a whole block.
        assert difference.mean() < (2.5 if quality == 1 else 1.0)
        assert torch.allclose(decoded, decoded.round(), atol=1e-4)


def test_a_single_pixel_is_off_by_at_most_a_step(photographs):
    # Only the DC coefficient is left, and may lie on the fence between two steps of 16 / 8 grey levels.
    for image in photographs[..., :1, :1]:
        decoded = jpeg_round_trip(image[None], 50)[0] * 255
        assert (decoded - through_pil(image, 50, "4:2:0")).abs().max() <= 2.001


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 99, 100])
def test_tables_are_those_of_libjpeg(quality):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer).quantization
    ours = quantization_tables(quality, 1, torch.device("cpu"))[0].int().flatten(1)
    for table in (0, 1):
        assert ours[table].tolist() == written[table]


def test_each_image_has_its_own_quality_which_stays_untouched(photographs):
    quality = torch.tensor([20.0, 90.0])
    kept = quality.clone()
    together = jpeg_round_trip(photographs, quality)
    for index in (0, 1):
        alone = jpeg_round_trip(photographs[index : index + 1], float(quality[index]))
        assert torch.equal(together[index : index + 1], alone)
    assert torch.equal(quality, kept)


def test_straight_through_gradient_is_that_without_rounding(photographs):
    # Far from the clamps, where both are linear.
    image = (0.3 + 0.4 * photographs[:1, :, 100:148, 100:164]).requires_grad_()
    weight = torch.rand(1, 3, 48, 64)
    gradients = [
        torch.autograd.grad((jpeg_round_trip(image, 80, rounding=name) * weight).sum(), image)[0]
        for name in ("straight_through", "none")
    ]
    assert torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("rounding", ["cubic", "at_zero", "none"])
def test_smooth_roundings_have_true_gradients(rounding):
    image = (0.3 + 0.4 * torch.rand(1, 3, 16, 16)).requires_grad_()
    direction = torch.randn(1, 3, 16, 16)

    def value(t):
        return jpeg_round_trip(image + t * direction, 50, rounding=rounding).double().square().sum()

    (gradient,) = torch.autograd.grad(value(0.0), image)
    with torch.no_grad():
        numeric = (value(2e-4) - value(-2e-4)) / 4e-4
    assert (gradient * direction).sum().item() == pytest.approx(numeric.item(), rel=0.05)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("quality", [1, 100])
def test_extreme_qualities_give_finite_values_and_gradients(photographs, rounding, quality):
    image = photographs[:, :, :40, :40].clone().requires_grad_()
    decoded = jpeg_round_trip(image, quality, rounding=rounding)
    decoded.square().sum().backward()
    assert decoded.isfinite().all() and image.grad.isfinite().all()
    assert decoded.min() >= 0 and decoded.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, r"quality must lie in \[1, 100\], got 0"),
        ({"quality": 101.0}, "got 101.0"),
        ({"quality": 50, "subsampling": "4:1:1"}, "subsampling must be one of .*, got '4:1:1'"),
        ({"quality": 50, "rounding": "floor"}, "rounding must be one of .*, got 'floor'"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        jpeg_round_trip(torch.rand(1, 3, 8, 8), **options)
