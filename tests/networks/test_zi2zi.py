"""zi2zi's networks: sizes, options, embeddings."""

from __future__ import annotations

import pytest
import torch

from fastgan.recipes.zi2zi.networks import SelfAttention, Zi2ZiDiscriminator, Zi2ZiGenerator, halvings
from fastgan.training.batch_norm import BatchNorm2d
from fastgan.training.networks import statistics_kept


@pytest.mark.parametrize(
    "size, wanted, downs", [(256, 0, 8), (384, 0, 7), (64, 0, 6), (32, 0, 5), (64, 4, 4)]
)
def test_halvings(size, wanted, downs):
    assert halvings(size, wanted) == downs


@pytest.mark.parametrize("size, downs", [(64, 7), (64, 2), (100, 0), (384, 8), (0, 0), (64, -1)])
def test_impossible_halvings_are_refused(size, downs):
    with pytest.raises(ValueError, match=f"image_size .*{size}"):
        halvings(size, downs)


@pytest.mark.parametrize("size, bottleneck", [(32, 1), (64, 1), (96, 3), (384, 3)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_generator_keeps_the_size_and_returns_mean_features(size, bottleneck, norm):
    torch.manual_seed(0)
    network = Zi2ZiGenerator(size, channels=3, category_num=3, width=2, embedding_dim=4, norm=norm)
    image = torch.rand(2, 3, size, size) * 2 - 1
    seen = []
    network.encoder[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    fake, feature = network(image, torch.tensor([0, 2]), return_feat=True)
    assert fake.shape == image.shape and fake.abs().max() <= 1
    assert seen[0].shape == (2, 16, bottleneck, bottleneck)
    torch.testing.assert_close(feature, seen[0].mean((2, 3)))
    assert torch.equal(network.encode(image), feature)
    fake.sum().backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in network.named_parameters()}


def test_the_original_s_widths_and_dropout():
    network = Zi2ZiGenerator()
    assert [layer.convolution.out_channels for layer in network.encoder] == [64, 128, 256] + [512] * 5
    assert network.decoder[-1].convolution.in_channels == 512 + 128
    assert [layer.dropout.p for layer in network.decoder] == [0.0] * 5 + [0.5] * 3
    discriminator = Zi2ZiDiscriminator()
    assert [layer.convolution.out_channels for layer in discriminator.layers] == [64, 128, 256, 512]
    assert [layer.convolution.stride[0] for layer in discriminator.layers] == [2, 2, 2, 1]


def test_categories_are_embeddings_that_can_be_mixed():
    torch.manual_seed(0)
    network = Zi2ZiGenerator(32, category_num=2, width=4, embedding_dim=8).eval()
    image = torch.rand(2, 1, 32, 32)
    labels = torch.tensor([0, 1])
    assert torch.equal(network(image, labels), network(image, network.embedding(labels)))
    half = network(image, network.embedding.weight.mean(0).expand(2, -1))
    assert not torch.allclose(half, network(image, labels))


def test_attention_starts_as_the_identity_and_looks_everywhere():
    torch.manual_seed(0)
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 3, 5, requires_grad=True)
    assert torch.equal(attention(x), x)
    torch.nn.init.ones_(attention.gamma)
    query, key, value = attention.project(x).flatten(2).split(attention.sizes, dim=1)
    found = value @ torch.softmax(query.transpose(1, 2) @ key, dim=2).transpose(1, 2)
    torch.testing.assert_close(attention(x), x + attention.out(found.unflatten(2, (3, 5))))
    (gradient,) = torch.autograd.grad(attention(x)[0, :, 0, 0].sum(), x)
    assert (gradient[0] != 0).all() and not gradient[1].any()
    network = Zi2ZiGenerator(64, width=8, self_attention=True)
    seen = []
    network.attention.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    network(torch.rand(2, 1, 64, 64), torch.tensor([0, 1]))
    assert seen == [(2, 32, 8, 8)]


@pytest.mark.parametrize("size, patches", [(32, 3), (64, 7), (256, 31)])
def test_discriminator_judges_patches_and_categories(size, patches):
    network = Zi2ZiDiscriminator(1, 5, width=2)
    source, image = torch.rand(2, 2, 1, size, size)
    logits, of_category = network(source, image)
    assert logits.shape == (2, 1, patches, patches) and of_category.shape == (2, 5)
    assert not torch.equal(network(image, source)[0], logits), "the order counts"


def test_spectral_norm_takes_the_place_of_normalization():
    network = Zi2ZiDiscriminator(1, 5, width=2, use_spectral_norm=True)
    assert not any(isinstance(module, BatchNorm2d) for module in network.modules())
    for _ in range(100):
        network(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    for module in (*(layer.convolution for layer in network.layers), network.binary, network.category):
        largest = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.ones(()), rtol=1e-3, atol=0)


def test_statistics_are_kept_while_asked_to():
    network = Zi2ZiGenerator(32, width=2)
    image = torch.randn(4, 1, 32, 32)
    before = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    with statistics_kept(network):
        kept = network.encode(image)
    assert all(torch.equal(network.get_buffer(name), buffer) for name, buffer in before.items())
    assert torch.equal(network.encode(image), kept), "normalized by the batch's statistics all the same"
    assert any(not torch.equal(network.get_buffer(name), buffer) for name, buffer in before.items())
