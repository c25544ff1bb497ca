"""Entries of fastgan.metrics."""

from __future__ import annotations

import torch

from fastgan import metrics
from tests.catalogue.entry import constructor, entry, method
from tests.catalogue.inputs import images, logits

for _name in ("psnr", "ssim", "psnr_y", "ssim_y"):
    entry(f"metrics.{_name}", lambda: {"images": images(), "references": images()})
entry("metrics.luma", lambda: {"images": images()})
entry("metrics.bit_accuracy", lambda: {"logits": logits(2, 8), "bits": torch.ones(2, 8)})
entry("metrics.nearness", lambda: {"images": images()})
entry("metrics.precision_recall", lambda: {"real": torch.randn(8, 4), "fake": torch.randn(7, 4)})


def _measure(distance: metrics.FrechetDistance) -> None:
    for real in (True, False):
        distance.update(images(), real=real)
    distance.compute()


# Inception's weights; the torch-fidelity package.
_MISSING = (FileNotFoundError, ModuleNotFoundError)
constructor("metrics.FrechetDistance", lambda: {"weights": None}, _measure, _MISSING)
method(
    "metrics.FrechetDistance.update",
    lambda: {"images": images(), "real": True},
    lambda: metrics.FrechetDistance(None),
)
