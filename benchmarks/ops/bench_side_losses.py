"""Losses of one side of the game, of one or three scales, with statistics or without, against eager PyTorch.

Run by `fastgan bench side_losses`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.losses import AdversarialLoss

# The logits of each scale.
SIZES: dict[str, list[tuple[int, ...]]] = {
    "64": [(64,)],
    "16x1x30x30": [(16, 1, 30, 30)],
    "3 of 16x1x30x30": [(16, 1, 30, 30)] * 3,
    "16x1x30x30 and halves": [(16, 1, 30, 30), (16, 1, 15, 15), (16, 1, 8, 8)],
    "3 of 1x1x30x30": [(1, 1, 30, 30)] * 3,
    "8x1x256x256": [(8, 1, 256, 256)],
}
KINDS = ["statistics", "nonsaturating", "lsgan", "hinge", "wgan"]
PROVIDERS = ["fastgan", "eager"]


def eager(scales: list[Tensor], kind: str) -> Tensor:
    """D's loss on reals, as usually written in trainers; "statistics" with those of `SideStatistics`."""
    loss, statistics = torch.zeros((), device=scales[0].device), []
    for logits in scales:
        if kind == "lsgan":
            loss = loss + F.mse_loss(logits, torch.ones_like(logits)) / 2
        elif kind == "hinge":
            loss = loss + F.relu(1 - logits).mean()
        elif kind == "wgan":
            loss = loss - logits.mean()
        else:
            loss = loss + F.softplus(-logits).mean()
        if kind == "statistics":
            with torch.no_grad():
                correct, violations = (logits > 0).float().mean(), (logits < 1).float().mean()
                statistics.append((logits.mean(), logits.sigmoid().mean(), correct, violations))
    return loss


def setup(provider: str, kind: str) -> Callable[[list[Tensor]], Tensor]:
    """The provider's loss of a list of scales."""
    if provider == "eager":
        return lambda scales: eager(scales, kind)
    fused = AdversarialLoss("nonsaturating" if kind == "statistics" else kind)  # type: ignore[arg-type]
    if kind == "statistics":
        return lambda scales: fused.real(scales, return_statistics=True)[0]
    return fused.real


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_side_losses(measure, device, size, kind, provider):
    scales = [torch.randn(shape, device=device, requires_grad=True) for shape in SIZES[size]]
    function = setup(provider, kind)

    def full() -> None:
        for logits in scales:
            logits.grad = None
        function(scales).backward()

    measure(
        op="side_losses",
        provider=provider,
        size=f"{size}, {kind}",
        mode="full",
        run=full,
        floor_bytes=sum(2 * logits.numel() * logits.element_size() for logits in scales),
        forward=lambda: function(scales),
        inputs=tuple(scales),
    )
