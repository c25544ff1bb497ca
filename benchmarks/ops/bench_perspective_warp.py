"""perspective_warp against grid_sample as usually called, and kornia's warp.

Run by `fastgan bench perspective_warp`. kornia is measured if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.augment import random_perspective
from fastgan.bench.ops.image_op import measure_image_op
from fastgan.ops import perspective_warp

PROVIDERS = ["fastgan", "grid_sample", "kornia"]


def sample(image: Tensor, matrix: Tensor) -> Tensor:
    """The grid from the matrix in float32, as in ports of StegaStamp, then torch's sampling."""
    height, width = image.shape[2:]
    rows, columns = (torch.arange(size, dtype=matrix.dtype, device=image.device) for size in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
    x, y, scale = (points @ matrix.mT).unflatten(1, (height, width)).unbind(-1)
    grid = torch.stack([2 * x / (scale * (width - 1)) - 1, 2 * y / (scale * (height - 1)) - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def setup(provider: str, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The provider's warp(image); the corners move by up to a twentieth of the width."""
    batch, _, height, width = image.shape
    generator = torch.Generator(image.device).manual_seed(0)
    warp, unwarp = random_perspective(batch, height, width, 0.05 * width, generator)

    def kornia(image: Tensor) -> Tensor:
        return geometry.warp_perspective(image, unwarp, (height, width), align_corners=True)

    if provider == "kornia":
        geometry = pytest.importorskip("kornia.geometry.transform")
    return {
        "fastgan": lambda image: perspective_warp(image, warp),
        "grid_sample": lambda image: sample(image, warp),
        "kornia": kornia,
    }[provider]


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1, 2])
def test_perspective_warp(measure, device, size_index, provider, mode):
    measure_image_op(
        measure, op="perspective_warp", setup=setup, provider=provider, device=device,
        size_index=size_index, mode=mode,
    )  # fmt: skip
