"""Real photographs, small enough for tests."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def write_photographs(folder: Path) -> Path:
    """Twelve crops of scikit-image's photographs, 80x96, in nested folders."""
    from skimage import data

    for name in ("chelsea", "coffee", "astronaut"):
        image = Image.fromarray(getattr(data, name)())
        (folder / name).mkdir(parents=True)
        for part in range(4):
            left, top = 90 * (part % 2), 100 * (part // 2)
            image.crop((left, top, left + 96, top + 80)).save(folder / name / f"{part}.jpg", quality=95)
    return folder
