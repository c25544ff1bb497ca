"""Data that needs no download: `builtin:NAME/PART` wherever a recipe takes a folder.

It is written once, from data that other packages ship, to `~/.cache/fastgan` (or `$XDG_CACHE_HOME/fastgan`).
Recipes' own built-in data is found once `fastgan.recipes` is imported, which the command line and every
recipe do.
"""

from __future__ import annotations

import os
import pkgutil
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import fastgan
from fastgan._files import alone
from fastgan.ops._checks import check_one_of
from fastgan.training.registration import registered

PREFIX = "builtin:"
# The functions that write each into a folder. Recipes register more.
WRITERS = {
    "digits": "fastgan.training.built_in:write_digits",
    "photographs": "fastgan.training.built_in:write_photographs",
}

# Photographs that ship inside scikit-image's wheel.
TRAIN_PHOTOGRAPHS = (
    "coffee.png", "astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png",
    "motorcycle_right.png", "retina.jpg", "camera.png", "moon.png", "coins.png", "brick.png",
    "grass.png", "gravel.png",
)  # fmt: skip
HELD_OUT_PHOTOGRAPHS = ("chelsea.png", "rocket.jpg", "ihc.png")
# scikit-learn's digits are sorted by writer: the last 360 are by writers that the others are not by.
HELD_OUT_DIGITS = 360


def data_folder(path: str | Path) -> Path:
    """The folder itself; for `builtin:NAME/PART`, that of the built-in data, which is written at first use.

    Raises:
        ValueError: there is no built-in data of that name.
        ModuleNotFoundError: the package that carries it is not installed.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return Path(path)
    name, _, part = text.removeprefix(PREFIX).partition("/")
    writer = _writer(name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgan" / fastgan.__version__
    folder = cache / name
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with alone(cache / f".{name}.lock"):
            if not folder.exists():
                _write(pkgutil.resolve_name(writer), folder)
    return folder / part


def _write(writer: Callable[[Path], None], folder: Path) -> None:
    temporary = folder.with_name(f"{folder.name}-{uuid.uuid4().hex}")  # mkdtemp's is its owner's alone
    try:
        temporary.mkdir()
        writer(temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another process was faster, on a file system without locks
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _writer(name: str) -> str:
    """The function that writes the data of this name, as "MODULE:FUNCTION"."""
    functions, registrations = dict(WRITERS), registered()
    while name not in functions and (registration := next(registrations, None)) is not None:
        functions |= registration[1].built_in_data
    check_one_of("the name of built-in data", name, sorted(functions))
    return functions[name]


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
