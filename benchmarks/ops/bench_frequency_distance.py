"""Focal frequency loss against its published steps, which transform both images to whole spectra.

Run by `fastgan bench frequency_distance`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.losses import focal_frequency_loss

SIZES = {"cpu": [(4, 3, 256, 256), (4, 3, 1080, 1920)], "cuda": [(32, 3, 256, 256), (8, 3, 1080, 1920)]}
PROVIDERS = ["whole spectra", "whole spectra, compiled", "fastgan"]


def whole_spectra(pred: Tensor, target: Tensor) -> Tensor:
    spectra = [torch.view_as_real(torch.fft.fft2(images, norm="ortho")) for images in (pred, target)]
    with torch.no_grad():
        weights = (spectra[0] - spectra[1]).square().sum(dim=-1).sqrt()
        weights = weights / weights.amax(dim=(2, 3), keepdim=True)
        weights = torch.where(weights.isnan(), 0.0, weights).clamp(0, 1)
    return (weights * (spectra[0] - spectra[1]).square().sum(dim=-1)).mean()


def setup(provider: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The provider's loss(pred, target)."""
    if provider == "fastgan":
        return focal_frequency_loss
    return torch.compile(whole_spectra) if provider.endswith("compiled") else whole_spectra


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
def test_frequency_distance(measure, device, size_index, provider):
    torch.manual_seed(0)
    size = SIZES[device][size_index]
    pred, target = torch.rand(size, device=device, requires_grad=True), torch.rand(size, device=device)
    loss = setup(provider)

    def forward() -> Tensor:
        return loss(pred, target)

    def full() -> None:
        pred.grad = None
        forward().backward()

    measure(
        op="frequency_distance",
        provider=provider,
        size="x".join(map(str, size)),
        mode="full",
        run=full,
        # both are read, a gradient is written
        floor_bytes=3 * pred.numel() * pred.element_size(),
        forward=forward,
        inputs=(pred, target),
        rounds=10,
    )
