"""JPEG under the names and signatures of other libraries."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fastgan.compat import basicsr
from fastgan.losses import DiffJPEG, RandomJPEG, diff_jpeg_coding, jpeg_codec_differentiable
from fastgan.ops import jpeg_round_trip


def test_diffjpeg_is_the_codec_or_its_cubic_surrogate(photographs):
    image = photographs.clone().requires_grad_()
    layer = DiffJPEG(300, 451, True, 60)
    assert_close(layer(image), jpeg_round_trip(image, 60, rounding="cubic"))
    assert layer(image).requires_grad
    exact = DiffJPEG(300, 451, differentiable=False, quality=60)(image)
    assert torch.equal(exact, jpeg_round_trip(photographs, 60)) and not exact.requires_grad
    assert len(layer.state_dict()) == 0 and "quality=60" in repr(layer)
    with pytest.raises(ValueError, match=r"x must be images of height x width 300x451, got \(2, 3, 20, 20\)"):
        layer(image[..., :20, :20])
    with pytest.raises(ValueError, match="got 0"):
        DiffJPEG(8, 8, quality=0)


def test_random_jpeg_draws_a_quality_for_each_image(photographs):
    layer = RandomJPEG(30, 70)
    generator = torch.Generator().manual_seed(4)
    decoded = layer(photographs, generator)
    quality = 30 + 40 * torch.rand(2, generator=generator.manual_seed(4))
    assert torch.equal(decoded, jpeg_round_trip(photographs, quality))
    for low, high in ((0, 50), (60, 50), (50, 101)):
        with pytest.raises(ValueError, match=f"got {low} and {high}"):
            RandomJPEG(low, high)


def test_kornias_signature(photographs):
    quality = torch.tensor([40.0, 90.0])
    expected = jpeg_round_trip(photographs, quality, rounding="polynomial")
    assert_close(jpeg_codec_differentiable(photographs, quality), expected)
    assert jpeg_codec_differentiable(photographs[0], torch.tensor([40.0])).shape == (3, 300, 451)
    assert jpeg_codec_differentiable(photographs[:, None], 40).shape == (2, 1, 3, 300, 451)
    flat = torch.full((2, 8, 8), 16.0, requires_grad=True)
    decoded = jpeg_codec_differentiable(photographs, quality, flat)
    decoded.square().sum().backward()
    assert flat.grad.abs().sum() > 0
    assert not torch.equal(decoded, expected)


def test_diff_jpegs_signature_takes_values_up_to_255(photographs):
    quality = torch.tensor([40.0, 90.0])
    assert_close(
        diff_jpeg_coding(255 * photographs, quality, ste=True),
        255 * jpeg_round_trip(photographs, quality),
        rtol=0, atol=1e-3,
    )  # fmt: skip
    assert_close(
        diff_jpeg_coding(255 * photographs, quality) / 255,
        jpeg_codec_differentiable(photographs, quality),
        rtol=0, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("quality", [40.0, torch.tensor([40.0, 90.0])])
def test_basicsrs_signature_does_not_modify_the_quality(photographs, quality):
    image = photographs.clone().requires_grad_()
    original = quality.clone() if isinstance(quality, torch.Tensor) else quality
    assert_close(basicsr.DiffJPEG()(image, quality), jpeg_round_trip(image, quality, rounding="cubic"))
    exact = basicsr.DiffJPEG(differentiable=False)(image, quality)
    assert torch.equal(exact, jpeg_round_trip(photographs, quality))
    assert torch.equal(torch.as_tensor(quality), torch.as_tensor(original))


LAYERS = {
    "DiffJPEG": lambda x, q: DiffJPEG(16, 24, quality=q)(x),
    "the codec": lambda x, q: DiffJPEG(16, 24, differentiable=False, quality=q)(x),
    "RandomJPEG": lambda x, q: RandomJPEG(q, q)(x),
    "jpeg_codec_differentiable": jpeg_codec_differentiable,
    "diff_jpeg_coding": lambda x, q: diff_jpeg_coding(255 * x, q) / 255,
    "basicsr": lambda x, q: basicsr.DiffJPEG()(x, q),
}


@pytest.mark.parametrize("name", LAYERS)
def test_single_images_and_numpys_numbers_are_accepted(name):
    image = torch.rand(2, 3, 16, 24)
    decoded = LAYERS[name](image, 60)
    assert_close(LAYERS[name](image[0], 60), decoded[0], rtol=0, atol=1e-6)
    for quality in (np.float32(60), np.int64(60)):
        assert_close(LAYERS[name](image, quality), decoded)


@pytest.mark.parametrize("name", LAYERS)
def test_values_that_are_no_images_are_named(name):
    with pytest.raises(TypeError, match="must be a floating-point tensor, got float"):
        if name == "diff_jpeg_coding":
            diff_jpeg_coding(1904.0, 60)
        elif name == "basicsr":
            pytest.skip("its checks are jpeg_round_trip's")
        else:
            LAYERS[name](1904.0, 60)


def test_wrong_tables_and_qualities_are_named():
    image = torch.rand(2, 3, 16, 24)
    with pytest.raises(ValueError, match=r"image_rgb must have shape \(\*, 3, H, W\), got \(16, 24\)"):
        jpeg_codec_differentiable(image[0, 0], 50)
    with pytest.raises(TypeError, match="quantization_table_y must be a tensor, got list"):
        jpeg_codec_differentiable(image, 50, [1.0])
    with pytest.raises(ValueError, match=r"quantization_table_c must have shape .*, got \(3, 8, 8\)"):
        jpeg_codec_differentiable(image, 50, None, torch.ones(3, 8, 8))
    with pytest.raises(TypeError, match="quality must be a number, got str"):
        DiffJPEG(16, 24, quality="50")
    with pytest.raises(TypeError, match="max_quality must be a number, got None"):
        RandomJPEG(50, None)


def test_levels_of_the_layers():
    image = torch.rand(2, 3, 16, 24)
    expected = jpeg_round_trip(image, 60, levels="truncate")
    assert torch.equal(DiffJPEG(16, 24, False, 60, levels="truncate")(image), expected)
    straight_through = DiffJPEG(16, 24, True, 60, rounding="straight_through", levels="truncate")
    assert torch.equal(straight_through(image), expected)
    assert torch.equal(RandomJPEG(60, 60, levels="truncate")(image), expected)
    with pytest.raises(ValueError, match="'cubic' makes no whole levels"):
        DiffJPEG(16, 24, levels="truncate")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"levels": "truncate", "rounding": "cubic"}, ValueError, "levels='truncate' goes with .*'cubic'"),
        ({"levels": "floor"}, ValueError, "levels must be one of round, truncate, got 'floor'"),
        ({"rounding": "up"}, ValueError, "rounding must be one of .*, got 'up'"),
        ({"subsampling": "4:1:1"}, ValueError, "subsampling must be one of .*, got '4:1:1'"),
        ({"upsampling": "linear"}, ValueError, "upsampling must be one of .*, got 'linear'"),
        ({"generator": 3}, TypeError, "generator must be .*, got int 3"),
        ({"backend": "cuda"}, ValueError, "backend must be one of .*, got 'cuda'"),
        ({"quality": 50}, TypeError, "no option 'quality', got int 50; options: subsampling, "),
        ({"quantization_tables": [1]}, TypeError, "quantization_tables must be a tensor, got list"),
        ({"quantization_tables": torch.ones(8, 8)}, ValueError, r"quantization_tables must .*\(8, 8\)"),
        ({"quantization_tables": torch.zeros(1, 2, 8, 8)}, ValueError, "must be positive, got 0.0 at index"),
    ],
)
def test_random_jpeg_refuses_wrong_options_in_its_constructor(options, error, message):
    with pytest.raises(error, match=message):
        RandomJPEG(50, **options)


def test_random_jpeg_takes_the_options_of_the_round_trip():
    image = torch.rand(2, 3, 16, 24)
    options = {
        "subsampling": "4:4:4", "rounding": "cubic", "upsampling": "nearest", "backend": "reference",
        "quantization_tables": torch.full((2, 2, 8, 8), 0.25),
    }  # fmt: skip
    assert_close(RandomJPEG(60, 60, **options)(image), jpeg_round_trip(image, 60, **options))
