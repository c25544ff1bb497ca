"""Weights files of random backbones, as torch hub would have them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from fastgan.losses import _backbones


def install_backbone(monkeypatch, folder: Path, network: str) -> dict[str, torch.Tensor]:
    """Puts a file with a name that tells its hash into a hub of its own; returns its weights."""
    import torchvision

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    torch.manual_seed(1)
    weights = getattr(torchvision.models, network)(weights=None).state_dict()
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    name = f"{network}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(_backbones.FILES, network, name)
    path = _backbones.weights_path(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return weights
