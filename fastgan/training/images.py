"""Sample grids as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image

from fastgan._files import replacing, replacing_binary


def save_grid(rows: dict[str, Tensor], path: Path, padding: int = 2) -> None:
    """Saves one row of images per name, in order, scaled to the first row's size; rows.txt gets the names."""
    size = next(iter(rows.values())).shape[-2:]
    images = []
    for batch in rows.values():
        batch = batch.detach().float().cpu().clamp(0, 1).expand(-1, 3, -1, -1)
        if batch.shape[-2:] != size:
            batch = F.interpolate(batch, size=size, mode="nearest")
        images.append(make_grid(batch, nrow=batch.shape[0], padding=padding, pad_value=1.0))
    with replacing_binary(path) as picture:
        save_image(torch.cat(images, dim=1), picture, format="png")
    with replacing(path.parent / "rows.txt") as file:
        file.write("\n".join(rows) + "\n")
