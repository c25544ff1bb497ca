"""Data that needs no download: `builtin:NAME/PART` wherever a recipe takes a folder.

It is made once from what other packages carry, and kept in `~/.cache/fastgan` (or `$XDG_CACHE_HOME/fastgan`).
"""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

import fastgan
from fastgan.ops._checks import check_one_of

PREFIX = "builtin:"
# What writes each into a folder.
WRITERS = {
    "digits": "fastgan.training.built_in:write_digits",
    "domains": "fastgan.recipes.starganv2.drawn_domains:write_domains",
    "glyphs": "fastgan.recipes.zi2zi.glyphs:write_demo_glyphs",
    "photographs": "fastgan.training.built_in:write_photographs",
}

# Photographs that ship inside scikit-image's wheel.
TRAIN_PHOTOGRAPHS = (
    "coffee.png", "astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png",
    "motorcycle_right.png", "retina.jpg", "camera.png", "moon.png", "coins.png", "brick.png",
    "grass.png", "gravel.png",
)  # fmt: skip
HELD_OUT_PHOTOGRAPHS = ("chelsea.png", "rocket.jpg", "ihc.png")
# scikit-learn's digits are sorted by writer: those of the last 360 are by other hands.
HELD_OUT_DIGITS = 360


def data_folder(path: str | Path) -> Path:
    """A folder as it is, or, for `builtin:NAME/PART`, that of the built-in data, made if it is not there.

    Raises:
        ValueError: there is no built-in data of that name.
        ModuleNotFoundError: the package that carries it is not installed.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path)
    name, _, part = text.removeprefix(PREFIX).partition("/")
    check_one_of("the name of built-in data", name, WRITERS)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgan" / fastgan.__version__
    folder = cache / name
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        module, function = WRITERS[name].split(":")
        temporary = cache / f"{name}-{uuid.uuid4().hex}"  # mkdtemp's would be its owner's alone
        try:
            temporary.mkdir()
            getattr(importlib.import_module(module), function)(temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder / part


def write_digits(folder: Path) -> None:
    """scikit-learn's handwritten digits, 8x8: train/ (1437) and val/ (360)."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    for index, image in enumerate(images):
        part = "val" if index >= len(images) - HELD_OUT_DIGITS else "train"
        (folder / part).mkdir(exist_ok=True)
        pixels = np.rint(image * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / part / f"{index:04d}.png")


def write_photographs(folder: Path) -> None:
    """scikit-image's photographs: train/ (12) and val/ (3)."""
    import skimage.data

    source = Path(skimage.data.__file__).parent
    for part, names in (("train", TRAIN_PHOTOGRAPHS), ("val", HELD_OUT_PHOTOGRAPHS)):
        (folder / part).mkdir()
        for name in names:
            shutil.copyfile(source / name, folder / part / name)
