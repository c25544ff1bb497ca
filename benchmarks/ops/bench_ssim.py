"""SSIM as a loss, against pytorch-msssim, torchmetrics, kornia and fused-ssim's formula.

Run by `fastgan bench ssim`. The gradient is that of one image. "with L1" is the loss of Gaussian splatting in
one op, and "MS-SSIM" the loss at five scales. Packages are measured if they are installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses import ms_ssim_loss, ssim_l1_loss, ssim_loss

SIZES = {"cpu": [(4, 3, 256, 256), (4, 3, 1080, 1920)], "cuda": [(5, 5, 1080, 1920), (4, 3, 256, 256)]}
# fastgan last: its calls make glibc keep freed memory, from which the others would profit.
PROVIDERS = [
    "pytorch-msssim", "pytorch-msssim, compiled", "torchmetrics", "kornia", "fused-ssim's formula",
    "L1 and fused-ssim's formula", "pytorch-msssim, MS-SSIM",
    "fastgan", "fastgan, with L1", "fastgan, MS-SSIM",
]  # fmt: skip
Loss = Callable[[Tensor, Tensor], Tensor]


def with_zeros(x: Tensor, y: Tensor) -> Tensor:
    """fused-ssim's formula by the filters of Gaussian splatting's code: whole windows, zeros beyond."""
    offsets = torch.arange(11, dtype=x.dtype, device=x.device) - 5
    taps = torch.exp(-(offsets**2) / 4.5)
    window = torch.outer(taps, taps) / taps.sum() ** 2
    channels = x.shape[1]
    window = window.expand(channels, 1, 11, 11)

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image, window, padding=5, groups=channels)

    mean_x, mean_y = mean(x), mean(y)
    products = mean_x * mean_y
    squares = mean_x.square() + mean_y.square()
    variances, covariance = mean(x * x) + mean(y * y) - squares, mean(x * y) - products
    numerator = (2 * products + 1e-4) * (2 * covariance + 9e-4)
    return 1 - (numerator / ((squares + 1e-4) * (variances + 9e-4))).mean()


def setup(provider: str) -> Loss:
    """The provider's loss(x, y)."""
    ours: dict[str, Loss] = {
        "fastgan": ssim_loss, "fastgan, with L1": ssim_l1_loss, "fastgan, MS-SSIM": ms_ssim_loss,
    }  # fmt: skip
    if provider in ours:
        return ours[provider]
    if provider.endswith("fused-ssim's formula"):
        if not provider.startswith("L1"):
            return with_zeros
        return lambda x, y: 0.8 * F.l1_loss(x, y) + 0.2 * with_zeros(x, y)
    if provider == "torchmetrics":
        functional = pytest.importorskip("torchmetrics.functional.image")
        return lambda x, y: 1 - functional.structural_similarity_index_measure(x, y, data_range=1.0)
    if provider == "kornia":
        kornia = pytest.importorskip("kornia.losses")
        return lambda x, y: 2 * kornia.ssim_loss(x, y, 11)
    package = pytest.importorskip("pytorch_msssim")
    if provider.endswith("MS-SSIM"):
        return lambda x, y: 1 - package.ms_ssim(x, y, data_range=1.0)
    if provider.endswith("compiled"):
        return torch.compile(lambda x, y: 1 - package.ssim(x, y, data_range=1.0), fullgraph=True)
    return lambda x, y: 1 - package.ssim(x, y, data_range=1.0)


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
def test_ssim(measure, device, size_index, provider, mode):
    size = SIZES[device][size_index]
    x = torch.rand(size, device=device, requires_grad=True)
    y = (0.7 * x + 0.3 * torch.rand_like(x)).detach()
    loss = setup(provider)

    def forward() -> Tensor:
        return loss(x, y)

    def full() -> None:
        x.grad = None
        forward().backward()

    @torch.no_grad()
    def forward_only() -> Tensor:
        return loss(x, y)

    measure(
        op="ssim",
        provider=provider,
        size="x".join(map(str, size)),
        mode=mode,
        run=full if mode == "full" else forward_only,
        # reads both, writes a gradient
        floor_bytes=(3 if mode == "full" else 2) * 4 * x.numel(),
        forward=forward if mode == "full" else None,
        inputs=(x, y),
        rounds=(20, 5)[size_index] if device == "cpu" else 20,
    )
