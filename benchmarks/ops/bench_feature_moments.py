"""DISTS's head on the features of all stages of VGG16, against the package's steps, eager and compiled.

Run by `fastgan bench feature_moments`. Features of a batch of 4 (on a GPU 32) at 256 x 256, without a
gradient for those of the second image. "package" are the steps of dists-pytorch's forward method after its
network.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.losses.dists import dists_head

SHAPES = [(3, 256), (64, 256), (128, 128), (256, 64), (512, 32), (512, 16)]
BATCH = {"cpu": 4, "cuda": 32}
EPS = 1e-6
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
PROVIDERS = ["package", "package, compiled", "fastgan", "fastgan, channels_last"]


def by_steps(features_x: list[Tensor], features_y: list[Tensor], alpha: Tensor, beta: Tensor) -> Tensor:
    """A quotient of means and one of variances for each map, in PyTorch's operations."""
    similarity, begin, total = torch.zeros((), device=alpha.device), 0, alpha.sum() + beta.sum()
    for x, y in zip(features_x, features_y, strict=True):
        end = begin + x.shape[1]
        mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
        texture = (2 * mean_x * mean_y + EPS) / (mean_x.square() + mean_y.square() + EPS)
        variance_x = (x - mean_x).square().mean((2, 3), keepdim=True)
        variance_y = (y - mean_y).square().mean((2, 3), keepdim=True)
        covariance = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
        structure = (2 * covariance + EPS) / (variance_x + variance_y + EPS)
        of_map = alpha[begin:end] * texture[..., 0, 0] + beta[begin:end] * structure[..., 0, 0]
        similarity, begin = similarity + of_map.sum(dim=1) / total, end
    return 1 - similarity


def setup(provider: str) -> Callable[[list[Tensor], list[Tensor], Tensor, Tensor], Tensor]:
    """The provider's distance of each sample, of (features of x, of y, alpha, beta)."""
    if provider.startswith("fastgan"):
        return dists_head
    return torch.compile(by_steps, fullgraph=True) if provider.endswith("compiled") else by_steps


@pytest.mark.parametrize("provider", PROVIDERS)
def test_feature_moments(measure, device, provider):
    torch.manual_seed(0)
    x, y = (
        [torch.randn(BATCH[device], c, size, size, device=device).relu() for c, size in SHAPES]
        for _ in range(2)
    )
    if provider.endswith("channels_last"):
        x, y = ([map_.to(memory_format=torch.channels_last) for map_ in maps] for maps in (x, y))
    for map_ in x:
        map_.requires_grad_()
    alpha, beta = (torch.rand(sum(c for c, _ in SHAPES), device=device) for _ in range(2))
    distance = setup(provider)

    def forward() -> Tensor:
        return distance(x, y, alpha, beta).mean()

    def full() -> None:
        for map_ in x:
            map_.grad = None
        forward().backward()

    measure(
        op="feature_moments",
        provider=provider,
        size=f"{BATCH[device]}x3x256x256",
        mode="full",
        run=full,
        # both are read forward and backward, a gradient is written
        floor_bytes=5 * 4 * sum(map_.numel() for map_ in x),
        forward=forward,
        inputs=(*x, *y),
        rounds=30,
    )
