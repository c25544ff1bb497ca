"""DCGAN's networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgan.losses import r1_penalty
from fastgan.recipes.dcgan.networks import DCGANDiscriminator, DCGANGenerator
from fastgan.training.batch_norm import BatchNorm2d


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes(image_size, channels):
    image = DCGANGenerator(image_size, channels, z_dim=5, width=2)(torch.randn(3, 5))
    assert image.shape == (3, channels, image_size, image_size)
    assert image.min() >= -1 and image.max() <= 1
    assert DCGANDiscriminator(image_size, channels, width=2)(image).shape == (3,)


def test_the_paper_s_widths():
    widths = [
        layer.out_channels for layer in DCGANGenerator().layers if isinstance(layer, nn.ConvTranspose2d)
    ]
    assert widths == [1024, 512, 256, 128, 3]
    widths = [layer.out_channels for layer in DCGANDiscriminator().modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [128, 256, 512, 1024, 1]


def test_weights_start_as_in_the_paper():
    for network in (DCGANGenerator(), DCGANDiscriminator()):
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            elif isinstance(layer, BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
                assert not layer.bias.any()


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_no_convolution_has_a_bias(norm):
    networks = nn.ModuleList([DCGANGenerator(32, 3, 5, 4), DCGANDiscriminator(32, 3, 4, norm)])
    convolutions = [m for m in networks.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convolutions) == 8 and all(layer.bias is None for layer in convolutions)
    # D's layers but the first and the last have the shift of their normalization, or a bias in its place.
    shifts = [name for name, _ in networks[1].named_parameters() if name.endswith("bias")]
    assert shifts == [f"layers.{index}.{'norm.' if norm != 'none' else ''}bias" for index in (1, 2)]


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_discriminator_is_the_paper_s_formula(norm):
    network = DCGANDiscriminator(32, 3, 4, norm).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    image = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    x = image
    for index, layer in enumerate(network.layers):
        x = nn.functional.conv2d(x, layer.convolution.weight, layer.bias, stride=2, padding=1)
        if index and norm != "none":
            dims = (0, 2, 3) if norm == "batch" else (2, 3)
            x = (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()
            x = x * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
        x = nn.functional.leaky_relu(x, 0.2)
    expected = nn.functional.conv2d(x, network.last.weight).flatten()
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "none", "use_spectral_norm": True}, {"minibatch_std": True}]
)
def test_r1_reaches_every_weight(options):
    network = DCGANDiscriminator(32, 3, 4, **options)
    x = torch.randn(4, 3, 32, 32, requires_grad=True)
    (r1_penalty(network(x), x) + network(x).sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("count, group", [(8, 4), (6, 3), (7, 1), (2, 2)])
def test_minibatch_std_shows_a_collapse(count, group):
    network = DCGANDiscriminator(32, 1, 4, "none", minibatch_std=True)
    seen = []
    network.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, -1]))
    images = torch.randn(count, 1, 32, 32)
    network(images)
    network(images[:1].expand(count, -1, -1, -1))
    various, equal = seen
    features = network.layers(images)
    first = features[:: count // group].std(0, correction=0).mean() if group > 1 else torch.tensor(0.0)
    assert various[0, 0, 0].item() == pytest.approx(first.item(), abs=2e-4)
    assert equal.abs().max() < 2e-4


def test_spectral_norm_is_on_every_convolution():
    network = DCGANDiscriminator(32, use_spectral_norm=True)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 4
    assert all(nn.utils.parametrize.is_parametrized(layer, "weight") for layer in convolutions)


def test_other_sizes_and_norms_are_refused():
    with pytest.raises(ValueError, match="image_size must be one of 32, 64, 128, 256, got 48"):
        DCGANGenerator(48)
    with pytest.raises(ValueError, match="norm must be one of batch, instance, none, got 'layer'"):
        DCGANDiscriminator(norm="layer")
