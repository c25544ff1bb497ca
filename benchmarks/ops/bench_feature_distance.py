"""LPIPS's head on the features of all layers of a network, against the package's, eager and compiled.

Run by `fastgan bench feature_distance`. Features of a batch of 4 (on a GPU 32) at 256 x 256, without a
gradient for those of the second image.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastgan.ops import lpips_head

SHAPES = {
    "vgg": [(64, 256), (128, 128), (256, 64), (512, 32), (512, 16)],
    "alex": [(64, 63), (192, 31), (384, 15), (256, 15), (256, 15)],
}
BATCH = {"cpu": 4, "cuda": 32}
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
PROVIDERS = ["lpips", "lpips, compiled", "fastgan", "fastgan, channels_last"]


def setup(provider: str, weights: list[Tensor]) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
    """The provider's distance, 0-d, of features (x, y)."""

    def fused(x: list[Tensor], y: list[Tensor]) -> Tensor:
        total = x[0].new_zeros(())
        for weight, a, b in zip(weights, x, y, strict=True):
            total = total + lpips_head(a, b, weight).mean()
        return total

    if provider.startswith("fastgan"):
        return fused
    lpips = pytest.importorskip("lpips")
    layers = []
    for weight in weights:
        layer = lpips.lpips.NetLinLayer(len(weight), use_dropout=True).eval().to(weight.device)
        layer.model[1].weight = nn.Parameter(weight.view(1, -1, 1, 1))
        layers.append(layer)

    def package_distance(x: list[Tensor], y: list[Tensor]) -> Tensor:
        total = x[0].new_zeros(())
        for layer, a, b in zip(layers, x, y, strict=True):
            difference = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2
            total = total + lpips.lpips.spatial_average(layer(difference)).mean()
        return total

    if provider == "lpips, compiled":
        return torch.compile(package_distance, fullgraph=True)
    return package_distance


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("net", SHAPES)
def test_feature_distance(measure, device, net, provider):
    torch.manual_seed(0)
    x, y = (
        [torch.randn(BATCH[device], c, size, size, device=device).relu() for c, size in SHAPES[net]]
        for _ in range(2)
    )
    if provider.endswith("channels_last"):
        x, y = ([map_.to(memory_format=torch.channels_last) for map_ in maps] for maps in (x, y))
    for map_ in x:
        map_.requires_grad_()
    weights = [torch.rand(c, device=device) for c, _ in SHAPES[net]]
    distance = setup(provider, weights)

    def forward() -> Tensor:
        return distance(x, y)

    def full() -> None:
        for map_ in x:
            map_.grad = None
        forward().backward()

    measure(
        op="feature_distance",
        provider=provider,
        size=f"{net}, {BATCH[device]}x3x256x256",
        mode="full",
        run=full,
        # reads both, writes a gradient
        floor_bytes=3 * 4 * sum(map_.numel() for map_ in x),
        forward=forward,
        inputs=(*x, *y),
        rounds=30,
    )
