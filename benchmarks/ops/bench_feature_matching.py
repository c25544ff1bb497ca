"""Feature matching on all layers of pix2pixHD's discriminators, against its lines, eager and compiled.

Run by `fastgan bench feature_matching`. Features of three discriminators, each at half the size of the one
before it, of images of 256 x 256 (on a GPU 512 x 1024).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses import feature_matching_loss

SIZES = {"cpu": (2, 256, 256), "cuda": (4, 512, 1024)}
CHANNELS = (64, 128, 256, 512)
SCALES = 3
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
PROVIDERS = ["layer by layer", "layer by layer, compiled", "fastgan"]


def layer_by_layer(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    loss = torch.zeros((), device=fake[0][0].device)
    for of_fake, of_real in zip(fake, real, strict=True):
        for a, b in zip(of_fake, of_real, strict=True):
            loss = loss + 1 / len(fake) * 4 / len(of_fake) * F.l1_loss(a, b.detach()) * 10.0
    return loss


def fused(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
    return feature_matching_loss(fake, real, with_logits=False)


def setup(provider: str) -> Callable[[list[list[Tensor]], list[list[Tensor]]], Tensor]:
    """The provider's loss of (features of fakes, of reals)."""
    if provider == "fastgan":
        return fused
    return torch.compile(layer_by_layer, fullgraph=True) if "compiled" in provider else layer_by_layer


@pytest.mark.parametrize("provider", PROVIDERS)
def test_feature_matching(measure, device, provider):
    torch.manual_seed(0)
    samples, height, width = SIZES[device]

    def features() -> list[list[Tensor]]:
        """The layers halve their input, but the last, whose stride is 1."""
        return [
            [
                torch.randn(
                    samples,
                    c,
                    height >> (scale + min(i + 1, 3)),
                    width >> (scale + min(i + 1, 3)),
                    device=device,
                )
                for i, c in enumerate(CHANNELS)
            ]
            for scale in range(SCALES)
        ]

    fake, real = features(), features()
    leaves = [each.requires_grad_() for scale in fake for each in scale]
    loss = setup(provider)

    def forward() -> Tensor:
        return loss(fake, real)

    def full() -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().backward()

    measure(
        op="feature_matching",
        provider=provider,
        size=f"{samples}x3x{height}x{width}",
        mode="full",
        run=full,
        # both are read, a gradient is written
        floor_bytes=3 * 4 * sum(leaf.numel() for leaf in leaves),
        forward=forward,
        inputs=(*leaves, *(each for scale in real for each in scale)),
        rounds=30,
    )
