"""Shared fixtures: devices to test on and real photographs."""

from __future__ import annotations

import pytest
import torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20260714)


@pytest.fixture(scope="session")
def photographs() -> torch.Tensor:
    """Two real photographs, (2, 3, 300, 451) in [0, 1]: scikit-image's cat and coffee."""
    data = pytest.importorskip("skimage.data")
    images = [data.chelsea(), data.coffee()[:300, :451]]
    return torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i in images])


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
