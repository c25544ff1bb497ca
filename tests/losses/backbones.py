"""Files of random backbone weights in the layout of torch hub."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from fastgan.losses import _backbones


def install_backbone(monkeypatch, folder: Path, network: str) -> dict[str, torch.Tensor]:
    """Writes random weights, in a file named by its hash, into a temporary torch hub; returns the weights."""
    import torchvision

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    with torch.device("meta"):
        features = getattr(torchvision.models, network)(weights=None).features
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"features.{name}": 0.05 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in features.state_dict().items()
    }
    weights["classifier.0.weight"] = torch.zeros(1)  # in the place of the largest part, which no loss reads
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    name = f"{network}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(_backbones.FILES, network, name)
    path = _backbones.weights_path(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return weights
