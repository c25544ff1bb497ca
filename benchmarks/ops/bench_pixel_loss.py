"""Pixel losses against torch's own, the lines of BasicSR's trainers, eager and under torch.compile, and
kornia.

Run by `fastgan bench pixel_loss`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses import pixel_loss

SIZES = {"cpu": [(4, 400, 400), (16, 64, 64)], "cuda": [(4, 400, 400), (32, 400, 400)]}
LOSSES = ["l1", "charbonnier", "weighted l1", "l1 + tv", "l1 + sobel"]
PROVIDERS = ["fastgan", "eager", "compiled", "kornia"]
# forward + backward reads x and y once and writes one gradient
FLOOR_IMAGES = {"full": 3, "forward": 2}


def charbonnier(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt((x - y) ** 2 + 1e-12).mean()


def weighed(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The mean over weights of one channel, as BasicSR takes it."""
    return (F.l1_loss(x, y, reduction="none") * weight).sum() / (weight.sum() * x.shape[1])


def with_variation(x: Tensor, y: Tensor) -> Tensor:
    across = F.l1_loss(x[:, :, :-1], x[:, :, 1:]) + F.l1_loss(x[..., :-1], x[..., 1:])
    return F.l1_loss(x, y) + 0.1 * across


def with_sobel(x: Tensor, y: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=x.device) / 8
    kernels = torch.stack([kernel.T, kernel])[:, None].repeat(3, 1, 1, 1)
    rows = x - y
    # Not by torch's replication padding, whose compiled gradient fails in torch 2.14.
    rows = torch.cat([rows[:, :, :1], rows, rows[:, :, -1:]], dim=2)
    padded = torch.cat([rows[..., :1], rows, rows[..., -1:]], dim=3)
    return F.l1_loss(x, y) + 0.2 * F.conv2d(padded, kernels, groups=3).abs().mean()


def setup(
    provider: str, loss: str, size: tuple[int, int, int], device: str
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    """The provider's loss(x, y), and x (which requires grad) and y."""
    batch, height, width = size
    x = torch.rand(batch, 3, height, width, device=device, requires_grad=True)
    y = torch.rand(batch, 3, height, width, device=device)
    weight = torch.rand(batch, 1, height, width, device=device)
    of_torch: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": F.l1_loss,
        "charbonnier": charbonnier,
        "weighted l1": lambda x, y: weighed(x, y, weight),
        "l1 + tv": with_variation,
        "l1 + sobel": with_sobel,
    }
    ours: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": pixel_loss,
        "charbonnier": lambda x, y: pixel_loss(x, y, kind="charbonnier"),
        "weighted l1": lambda x, y: pixel_loss(x, y, weight, weighted_mean=True),
        "l1 + tv": lambda x, y: pixel_loss(x, y, tv_weight=0.1),
        "l1 + sobel": lambda x, y: pixel_loss(x, y, sobel_weight=0.1),
    }
    if provider == "kornia":
        kornia = pytest.importorskip("kornia")
        theirs: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            # With an eps of 1.
            "charbonnier": lambda x, y: kornia.losses.charbonnier_loss(x, y, reduction="mean"),
            "l1 + tv": lambda x, y: (
                F.l1_loss(x, y) + 0.1 * kornia.losses.total_variation(x, reduction="mean").mean()
            ),
            "l1 + sobel": lambda x, y: (
                F.l1_loss(x, y) + 0.2 * kornia.filters.spatial_gradient(x - y).abs().mean()
            ),
        }
        if loss not in theirs:
            pytest.skip("kornia has no such loss")
        return theirs[loss], x, y
    if provider == "compiled":
        return torch.compile(of_torch[loss], fullgraph=True), x, y
    return (ours if provider == "fastgan" else of_torch)[loss], x, y


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size_index", [0, 1])
def test_pixel_loss(measure, device, size_index, loss, provider, mode):
    size = SIZES[device][size_index]
    function, x, y = setup(provider, loss, size, device)

    def forward() -> Tensor:
        return function(x, y)

    def full() -> None:
        x.grad = None
        forward().backward()

    @torch.no_grad()
    def forward_only() -> Tensor:
        return function(x, y)

    image_bytes = x.numel() * x.element_size()
    measure(
        op="pixel_loss",
        provider=provider,
        size="{}x3x{}x{}, {}".format(*size, loss),
        mode=mode,
        run=full if mode == "full" else forward_only,
        floor_bytes=(FLOOR_IMAGES[mode] + (1 / 3 if loss == "weighted l1" else 0)) * image_bytes,
        forward=forward if mode == "full" else None,
        inputs=(x, y),
    )
