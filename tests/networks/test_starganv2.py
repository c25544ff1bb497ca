"""StarGAN v2's networks: shapes, the paper's layers, what style and domain do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fastgan.recipes.starganv2.networks import (
    AdaptiveInstanceNorm,
    MappingNetwork,
    ResidualBlock,
    StarGANv2Discriminator,
    StarGANv2Generator,
    StyledBlock,
    StyleEncoder,
    default_downs,
)


@pytest.mark.parametrize("size, channels, downs", [(8, 3, 0), (16, 4, 2), (32, 4, 0), (64, 1, 3)])
def test_shapes(size, channels, downs):
    image, style = torch.randn(3, channels, size, size), torch.randn(3, 5)
    domain = torch.tensor([0, 2, 1])
    generator = StarGANv2Generator(size, channels, 5, base_width=2, max_width=4, downs=downs)
    assert generator(image, style).shape == image.shape
    assert len(generator.decode) == 2 + (downs or default_downs(size))
    assert StyleEncoder(3, size, channels, 5, 2, 4)(image, domain).shape == (3, 5)
    assert StarGANv2Discriminator(3, size, channels, 2, 4)(image, domain).shape == (3,)
    assert MappingNetwork(3, 6, 5, width=8)(torch.randn(3, 6), domain).shape == (3, 5)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_at_256_pixels_the_networks_are_the_paper_s():
    # The supplement's tables: 64 channels at 256x256, 512 at 16x16; D and E go on to 4x4, all with 512 there.
    with torch.device("meta"):
        generator = StarGANv2Generator()
        discriminator, encoder = StarGANv2Discriminator(2), StyleEncoder(2)
        mapping = MappingNetwork(2)
    assert generator.last.weight.shape == (3, 64, 1, 1)
    assert [b.conv2.weight.shape[:2] for b in generator.encode] == [
        (128, 64), (256, 128), (512, 256), (512, 512), (512, 512), (512, 512)
    ]  # fmt: skip
    assert [b.conv2.weight.shape[0] for b in generator.decode] == [512, 512, 512, 256, 128, 64]
    blocks = [b for b in discriminator.shared if isinstance(b, ResidualBlock)]
    assert [b.conv2.weight.shape[0] for b in blocks] == [128, 256, 512, 512, 512, 512]
    assert discriminator.shared[-3].weight.shape == (512, 512, 4, 4)
    # In millions, what the authors' code has with two domains and without high-pass filter.
    layers = {"generator": 33.9, "mapping": 2.4, "encoder": 20.9, "discriminator": 20.9}
    networks = (generator, mapping, encoder, discriminator)
    assert [round(count(network) / 1e6, 1) for network in networks] == list(layers.values())


def test_weights_start_as_he_et_al_have_them():
    torch.manual_seed(0)
    for network in (StarGANv2Generator(32, 4, 64, 64, 64), MappingNetwork(2), StyleEncoder(2, 32, 4, 64, 64)):
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and parameter.numel() > 4000:
                fan_in = parameter[0].numel()
                assert parameter.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name
            elif name.endswith("bias"):
                assert not parameter.any(), name


def test_residual_block_is_its_formula():
    block = ResidualBlock(3, 5, normalize=True, halve=True)
    x = torch.randn(2, 3, 8, 8)

    def activated(y):
        return F.leaky_relu(F.instance_norm(y), 0.2)

    residual = F.avg_pool2d(block.conv1(activated(x)), 2)
    expected = (F.avg_pool2d(block.shortcut(x), 2) + block.conv2(activated(residual))) / 2**0.5
    torch.testing.assert_close(block(x), expected)


def test_styled_block_is_its_formula():
    block = StyledBlock(3, 5, style_dim=4, enlarge=True)
    x, style = torch.randn(2, 3, 8, 8), torch.randn(2, 4)

    def enlarged(y):
        return F.interpolate(y, scale_factor=2)

    residual = block.conv1(enlarged(F.leaky_relu(block.norm1(x, style), 0.2)))
    residual = block.conv2(F.leaky_relu(block.norm2(residual, style), 0.2))
    torch.testing.assert_close(block(x, style), (block.shortcut(enlarged(x)) + residual) / 2**0.5)


def test_adaptive_norm_takes_mean_and_deviation_from_the_style():
    norm = AdaptiveInstanceNorm(4, 3)
    x, style = 7 + 5 * torch.randn(2, 3, 16, 16), torch.randn(2, 4)
    scale, shift = norm.affine(style).chunk(2, dim=1)
    y = norm(x, style)
    torch.testing.assert_close(y.mean((2, 3)), shift, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(y.std((2, 3), correction=0), (1 + scale).abs(), atol=1e-3, rtol=1e-3)


def test_each_sample_gets_its_own_domain_s_head():
    domain = torch.tensor([1, 0, 2, 1])
    image, z = torch.randn(4, 3, 8, 8), torch.randn(4, 6)
    for network, x in (
        (StyleEncoder(3, 8, 3, 5, 2), image),
        (StarGANv2Discriminator(3, 8, 3, 2), image),
        (MappingNetwork(3, 6, 5, 8), z),
    ):
        together = network(x, domain)
        for index in range(4):
            alone = network(x[index : index + 1], domain[index : index + 1])
            torch.testing.assert_close(together[index], alone[0])
        assert not torch.allclose(together, network(x, (domain + 1) % 3))


def test_generator_obeys_the_style_sample_by_sample():
    generator = StarGANv2Generator(16, 3, 5, 2, 4)
    image, styles = torch.randn(1, 3, 16, 16).expand(2, -1, -1, -1), torch.randn(2, 5)
    first, second = generator(image, styles)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(generator(image[:1], styles[1:])[0], second)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="power of two and at least 8, got 48"):
        StarGANv2Generator(48)
    with pytest.raises(ValueError, match="got 4"):
        StyleEncoder(2, 4)
    with pytest.raises(ValueError, match="4 halvings leave less than 4x4 of 32x32"):
        StarGANv2Generator(32, downs=4)


def test_a_constant_per_channel_does_not_matter_within_the_generator():
    # Why its convolutions have no biases.
    generator = StarGANv2Generator(16, 3, 5, 2, 4).double()
    image, style = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    assert [
        name for name, _ in generator.named_parameters() if name.endswith("bias") and "norm" not in name
    ] == ["last.bias"]
    expected = generator(image, style)
    for block in (
        generator.first,
        generator.encode[0].conv1,
        generator.encode[1].conv2,
        generator.decode[0].conv1,
    ):
        handle = block.register_forward_hook(lambda module, inputs, output: output + 3)
        torch.testing.assert_close(generator(image, style), expected, rtol=1e-4, atol=1e-5)
        handle.remove()
