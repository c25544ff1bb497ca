"""The generator's step of VQGAN's loss: LPIPS with VGG, a PatchGAN, the adaptive weight, and backward.

Run by `fastgan bench tokenizer`. "published" is taming-transformers' formula in plain PyTorch: both networks
run backward for the adaptive weight, and again with the loss. "two passes" is that formula with fastgan's
LPIPS. "fastgan" is `fastgan.compat.taming`, where both run backward once. The autoencoder is its last layer
alone, and the discriminator is frozen meanwhile, as by Lightning; VGG is random: weights do not affect time.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.compat.taming import VQLPIPSWithDiscriminator
from fastgan.losses import LPIPS

SIZES = {"cpu": (4, 3, 128, 128), "cuda": (16, 3, 256, 256)}
WIDTH = 128  # of the last layer's input, as in VQGAN
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
PROVIDERS = ["published", "two passes", "fastgan"]
Step = Callable[[], Tensor]


class PlainLPIPS(nn.Module):
    """LPIPS as in trainers: a ReLU at a time, and each layer's normalized difference as a tensor."""

    def __init__(self, network: LPIPS) -> None:
        super().__init__()
        self.scaling_layer = network.scaling_layer
        self.slices = [getattr(network.net, f"slice{number + 1}") for number in range(network.net.N_slices)]
        self.lins = [getattr(network, f"lin{number}").model[-1] for number in range(network.net.N_slices)]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.scaling_layer(x), self.scaling_layer(y)
        distances = []
        for layers, lin in zip(self.slices, self.lins, strict=True):
            x, y = layers(x), layers(y)
            difference = (_normalized(x) - _normalized(y)) ** 2
            distances.append(lin(difference).mean(dim=(2, 3), keepdim=True))
        return torch.stack(distances).sum(dim=0)


def _normalized(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def published(
    lpips: nn.Module, discriminator: nn.Module, inputs: Tensor, fake: Tensor, layer: nn.Parameter
) -> Tensor:
    """Taming-transformers' loss of the generator."""
    rec_loss = (inputs - fake).abs() + lpips(inputs, fake)
    nll_loss, g_loss = rec_loss.mean(), -discriminator(fake).mean()
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (nll_loss, g_loss)]
    weight = (norms[0] / (norms[1] + 1e-4)).clamp(0.0, 1e4).detach()
    return nll_loss + weight * g_loss


def setup(provider: str, size: tuple[int, ...], device: str) -> tuple[Step, tuple[Tensor, ...]]:
    """(the step's forward part, its inputs): the loss is ready for backward()."""
    pytest.importorskip("torchvision")
    pytest.importorskip("lpips")
    torch.manual_seed(0)
    loss = VQLPIPSWithDiscriminator(0, weights=None).to(device)
    loss.discriminator.requires_grad_(False)
    conv_out = nn.Parameter(0.02 * torch.randn(3, WIDTH, 3, 3, device=device))
    features = torch.randn(size[0], WIDTH, *size[2:], device=device, requires_grad=True)
    inputs = 2 * torch.rand(size, device=device) - 1
    codebook_loss = torch.zeros((), device=device)
    lpips = loss.perceptual_loss
    assert isinstance(lpips, LPIPS)
    network = PlainLPIPS(lpips) if provider == "published" else lpips

    def step() -> Tensor:
        fake = F.conv2d(features, conv_out, padding=1)
        if provider != "fastgan":
            return published(network, loss.discriminator, inputs, fake, conv_out)
        # Not called as a module, whose hooks for counting operations fail where an input is a parameter.
        return loss.forward(codebook_loss, inputs, fake, 0, 0, conv_out)[0]

    return step, (inputs, features, conv_out, *loss.parameters())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tokenizer(measure, device, memory, provider):
    if memory == "kept":
        pytest.skip("measured in the state of a process with default settings")
    size = SIZES[device]
    step, inputs = setup(provider, size, device)

    def full() -> None:
        for tensor in inputs:
            tensor.grad = None
        step().backward()

    measure(
        op="tokenizer",
        provider=provider,
        size="x".join(str(length) for length in size),
        mode="full",
        run=full,
        floor_bytes=inputs[0].numel() * inputs[0].element_size(),
        forward=step,
        inputs=inputs,
        rounds=5,
        counts_flops=True,
    )
