"""Small discriminators of common architectures, for 3 x 16 x 16 images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class Residual(nn.Module):
    """StarGAN v2's: residual blocks that halve the image, and one logit per domain, selected by the label."""

    def __init__(self, domains: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 16 // 2, 3, 1, 1), nn.Conv2d(8, 8, 1, bias=False)]
            )
            for _ in range(2)
        )
        self.last = nn.Conv2d(8, 16, 4)
        self.head = nn.Conv2d(16, domains, 1)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for first, second, shortcut in self.blocks:
            residual = F.avg_pool2d(first(F.leaky_relu(x, 0.2)), 2)
            residual = second(F.leaky_relu(residual, 0.2))
            x = (F.avg_pool2d(shortcut(x), 2) + residual) / 2**0.5
        x = self.head(F.leaky_relu(self.last(F.leaky_relu(x, 0.2)), 0.2)).flatten(1)
        return x.gather(1, label[:, None]).squeeze(1)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))


def _dcgan() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4),
    )  # fmt: skip


def _spectral() -> nn.Module:
    network = _dcgan()
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)
    return network


def _patch() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        nn.InstanceNorm2d(16), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 3, 1, 1),
    )  # fmt: skip


CRITICS = {"mlp": _mlp, "dcgan": _dcgan, "residual": Residual, "spectral": _spectral, "patch": _patch}


def make(kind: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, tuple]:
    """A critic, real and fake images, and the critic's further arguments."""
    torch.manual_seed(7)
    network = CRITICS[kind]()
    real, fake = torch.rand(2, 4, 3, 16, 16)
    return network, real, fake, (torch.tensor([0, 1, 1, 0]),) if kind == "residual" else ()
