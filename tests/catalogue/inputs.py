"""Small valid arguments, made anew at each call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def images(channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(2, channels, size, size)


def logits(*shape: int) -> Tensor:
    return torch.randn(*(shape or (4, 1)))


def two_logits() -> dict[str, Tensor]:
    return {"real_logits": logits(), "fake_logits": logits()}


def matrices() -> Tensor:
    return torch.eye(3).repeat(2, 1, 1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


class Critic(nn.Module):
    """A discriminator of samples of any shape, with gradients of every order."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, *labels: Any) -> Tensor:
        return (self.scale * x).tanh().flatten(1).sum(1)


def judged(logits: str, x: str) -> dict[str, Tensor]:
    """Samples and their logits under the names given."""
    samples = images().requires_grad_()
    return {logits: Critic()(samples), x: samples}


def mapped(images: str, latents: str) -> dict[str, Tensor]:
    """Latents and images that a generator made of them, under the names given."""
    w = torch.randn(2, 3, 5, requires_grad=True)
    return {images: synthesis(w), latents: w}


def synthesis(w: Tensor, *labels: Any) -> Tensor:
    """2 x 3 x 4 x 4 images, with gradients of every order."""
    return w.tanh().sum(dim=(1, 2))[:, None, None, None] * torch.linspace(-1, 1, 48).reshape(3, 4, 4)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def parameters() -> list[nn.Parameter]:
    """With gradients."""
    made = [nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(3))]
    for parameter in made:
        parameter.grad = torch.ones_like(parameter)
    return made
