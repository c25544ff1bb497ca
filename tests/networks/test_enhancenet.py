"""EnhanceNet's networks: sizes, what they start from, how far they see; and resampling as files have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.recipes.enhancenet.networks import (
    EnhanceNetDiscriminator,
    EnhanceNetGenerator,
    bicubic_upscale,
    low_resolution,
)


def awake(generator):
    """With a last layer that is not zero, as after some training."""
    torch.nn.init.normal_(generator.residual.weight, std=0.05)
    return generator


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (5, 13), (1, 2)])
def test_the_generator_takes_any_size(scale, size):
    low = torch.rand(2, 3, *size)
    assert EnhanceNetGenerator(scale, 4, 2)(low).shape == (2, 3, scale * size[0], scale * size[1])


def test_it_starts_from_the_bicubic_image():
    low = torch.rand(1, 3, 6, 7)
    assert torch.equal(EnhanceNetGenerator(4, 8, 2)(low), bicubic_upscale(low, 4))


def test_the_papers_network_has_its_size():
    # Ten blocks of two layers, two after upsampling and one more, 64 to 64 channels; the first; the last.
    count = sum(p.numel() for p in EnhanceNetGenerator().parameters())
    assert count == 23 * (9 * 64 * 64 + 64) + (9 * 3 * 64 + 64) + (9 * 64 * 3 + 3)


@pytest.mark.parametrize("scale", [2, 4])
def test_radius_is_how_far_it_sees(scale):
    torch.manual_seed(0)
    generator = awake(EnhanceNetGenerator(scale, 4, 2)).double()
    size, radius = 31, generator.radius
    low = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    middle = size // 2
    high = slice(scale * middle, scale * (middle + 1))
    (gradient,) = torch.autograd.grad(generator(low)[:, :, high, high].sum(), low)
    seen = gradient.abs().sum((0, 1))
    assert seen[middle - radius + 1].sum() > 0, "the radius is much too large"
    inside = slice(middle - radius, middle + radius + 1)
    seen[inside, inside] = 0
    assert not seen.any()


def test_resampling_is_that_of_pil():
    skimage = pytest.importorskip("skimage.data")
    picture = Image.fromarray(skimage.chelsea()[:96, :128])
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    for scale in (2, 4):
        small = picture.resize((128 // scale, 96 // scale), Image.Resampling.BICUBIC)
        low = low_resolution(image, scale)
        assert torch.equal((low * 255).round() / 255, low)
        of_pil = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
        assert (low - of_pil).abs().max() < 1.5 / 255, "PIL rounds between its two passes"
        large = torch.from_numpy(np.array(small.resize((128, 96), Image.Resampling.BICUBIC)))
        ours = bicubic_upscale(of_pil, scale)[0].permute(1, 2, 0).clamp(0, 1) * 255
        assert (ours - large).abs().max() < 1.5


@pytest.mark.parametrize("size", [32, 40, 64])
def test_the_discriminator_gives_one_logit_per_image(size):
    discriminator = EnhanceNetDiscriminator(size, (4, 8, 8), dense=6)
    assert discriminator(torch.rand(3, 3, size, size)).shape == (3, 1)


def test_the_papers_discriminator_ends_at_4x4():
    discriminator = EnhanceNetDiscriminator()
    assert discriminator.features(torch.rand(1, 3, 128, 128)).shape == (1, 512, 4, 4)
    convolutions = [m for m in discriminator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in convolutions] == [1, 2] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnhanceNetGenerator(3), "scale must be 2 or 4, got 3"),
        (lambda: EnhanceNetGenerator(4, 0), "width must be at least 1, got 0"),
        (lambda: EnhanceNetGenerator(4, 8, 0), "blocks must be at least 1, got 0"),
        (lambda: EnhanceNetDiscriminator(16), "needs at least 32 pixels on each side, got 16"),
        (lambda: EnhanceNetDiscriminator(32, ()), r"must be positive, got \(\)"),
        (lambda: low_resolution(torch.rand(1, 3, 8, 10), 4), "multiples of 4, got 8x10"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
