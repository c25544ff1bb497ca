"""An adversarial loss with its statistics and gradient, against eager PyTorch and torch.compile.

Run by `fastgan bench adversarial`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses import AdversarialLoss

SIZES = [(64,), (16, 1, 30, 30)]
PROVIDERS = ["fastgan", "eager", "compiled"]


def eager(real: Tensor, fake: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The non-saturating loss of D and the same statistics, as usually written in trainers."""
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    with torch.no_grad():
        statistics = [
            real.mean(), fake.mean(), real.sigmoid().mean(), fake.sigmoid().mean(),
            (real > 0).float().mean(), (fake < 0).float().mean(),
            (real < 1).float().mean(), (fake > -1).float().mean(),
        ]  # fmt: skip
    return loss, statistics


def setup(provider: str) -> Callable[[Tensor, Tensor], tuple]:
    """The provider's loss(real, fake), with statistics."""
    fused = AdversarialLoss("nonsaturating")
    return {
        "fastgan": lambda real, fake: fused.discriminator(real, fake, return_statistics=True),
        "eager": eager,
        "compiled": torch.compile(eager, fullgraph=True),
    }[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_adversarial(measure, device, size, provider):
    real, fake = (torch.randn(size, device=device, requires_grad=True) for _ in range(2))
    function = setup(provider)

    def full() -> None:
        real.grad = fake.grad = None
        function(real, fake)[0].backward()

    measure(
        op="adversarial",
        provider=provider,
        size="x".join(str(length) for length in size),
        mode="full",
        run=full,
        floor_bytes=4 * real.numel() * real.element_size(),
        forward=lambda: function(real, fake)[0],
        inputs=(real, fake),
    )
