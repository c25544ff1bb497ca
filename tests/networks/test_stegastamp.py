"""StegaStamp's networks: shapes at any size, parameters as published, initial behaviour."""

import pytest
import torch

from fastgan.recipes.stegastamp.networks import (
    StegaStampDecoder,
    StegaStampDiscriminator,
    StegaStampEncoder,
)


@pytest.mark.parametrize("image_size", [32, 48, 96, (64, 32), 160])
def test_networks_take_any_multiple_of_sixteen(image_size):
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    secret, image = torch.randint(0, 2, (2, 12)).float(), torch.rand(2, 3, height, width)
    residual = StegaStampEncoder(12, image_size)(secret, image)
    assert residual.shape == image.shape
    assert StegaStampDecoder(12, image_size)(image + residual).shape == (2, 12)
    score, heat_map = StegaStampDiscriminator()(image)
    assert score.shape == (2,) and heat_map.shape[:2] == (2, 1)
    assert torch.allclose(score, heat_map.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("image_size", [0, -16, 40, (64, 40)])
def test_other_sizes_are_refused(image_size):
    with pytest.raises(ValueError, match="multiple of 16 on both sides, got"):
        StegaStampEncoder(12, image_size)


def test_parameter_counts_at_the_original_size():
    # The secret's layer is 100 x 7500 as published (7500 = 3 * 50 * 50); D has 5 layers.
    assert StegaStampEncoder(100, 400).secret_dense.weight.shape == (7500, 100)
    weights = 9 * (3 * 8 + 8 * 16 + 16 * 32 + 32 * 64 + 64 * 1)
    biases = 8 + 16 + 32 + 64 + 1
    parameters = StegaStampDiscriminator().parameters()
    assert sum(p.numel() for p in parameters) == weights + biases == 25105


def test_the_spatial_transformer_starts_as_the_identity():
    decoder = StegaStampDecoder(8, 32).double()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(decoder(image), decoder.reader(image - 0.5), atol=1e-9)


def test_the_residual_depends_on_secret_and_image():
    encoder = StegaStampEncoder(8, 32)
    secret, image = torch.zeros(1, 8), torch.rand(1, 3, 32, 32)
    residual = encoder(secret, image)
    assert not torch.allclose(residual, encoder(1 - secret, image))
    assert not torch.allclose(residual, encoder(secret, 1 - image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "gelu"}, "activation must be 'relu' or 'leaky_relu', got 'gelu'"),
        ({"channels": ()}, r"channels must be one or more positive widths, got \(\)"),
        ({"channels": (8, 0)}, r"got \(8, 0\)"),
    ],
)
def test_wrong_discriminator_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        StegaStampDiscriminator(**options)


def test_score_is_the_mean_over_space_for_any_width_and_activation():
    network = StegaStampDiscriminator((8, 16, 32, 64, 128, 256), "leaky_relu", spectral_norm=True)
    score, heat_map = network(torch.rand(3, 3, 128, 64))
    assert heat_map.shape == (3, 1, 2, 1)
    assert torch.allclose(score, heat_map.mean(dim=(1, 2, 3)))
