"""Pairs of glyphs, side by side in one image, each with a category (font) and a character."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastgan._names import printable
from fastgan.recipes.zi2zi.glyphs import COLUMNS, CSV, JSON
from fastgan.training.data import ImageFolder, find_images
from fastgan.training.image_files import READING, Reading, UnusableImage
from fastgan.training.shards.paths import File, data_root, relative

# zi2zi's names: "%d_%05d.png", category and character.
NUMBERED = re.compile(r"(\d+)_.+")
MOST_CATEGORIES = 10**5  # a list of names is made up to the largest number
LAST_NUMBER = re.compile(r"(\d+)$")


class Pair(NamedTuple):
    """One image with a source and a target glyph."""

    path: File
    category: int
    character: str
    """The character; those that look alike share a name, so that they are held out together."""


def find_pairs(folder: str | File, passed_over: Counter[str] | None = None) -> tuple[list[Pair], list[str]]:
    """All pairs of a folder, and the names of their categories.

    A folder written by `fastgan data glyphs` lists its content itself. In others each sub-folder is a
    category; without sub-folders, the category is the number at the start of a name, as in zi2zi's
    `3_00042.png`. The number at the end of a name, or else the whole name, is the character. It must mean the
    same character in every category, so files must not be numbered separately for each font.

    Raises:
        FileNotFoundError: no such folder, or a file listed in its glyphs.csv is missing.
        ValueError: no images; names without a category.
    """
    if not str(folder):
        raise ValueError("train_path must name a folder with pairs of glyphs, got ''")
    root = data_root(folder)
    if (root / CSV).is_file():
        return _listed_pairs(root)
    files = find_images(root, passed_over)
    folders = sorted({relative(file, root).parts[0] for file in files if file.parent != root})
    pairs = []
    for file in files:
        if folders:
            if file.parent == root:
                raise ValueError(
                    f"{printable(root)} has categories as folders, but {printable(file.name)} lies in none"
                )
            category = folders.index(relative(file, root).parts[0])
        else:
            match = NUMBERED.match(file.stem)
            if match is None or int(match[1]) >= MOST_CATEGORIES:
                raise ValueError(
                    f"{printable(file)} tells no category: name pairs as 3_00042.png (category 3, character "
                    "42), or put those of each category into a folder of its own"
                )
            category = int(match[1])
        number = LAST_NUMBER.search(file.stem)
        pairs.append(Pair(file, category, str(int(number[1])) if number else file.stem))
    return pairs, folders or [str(category) for category in range(max(p.category for p in pairs) + 1)]


def _listed_pairs(root: File) -> tuple[list[Pair], list[str]]:
    with (root / CSV).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = printable(root / CSV)
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise ValueError(f"{shown} must have rows and the columns {', '.join(COLUMNS)}")
    for number, row in enumerate(rows, 1):
        if None in row.values() or not row["category"].isdecimal() or int(row["category"]) >= MOST_CATEGORIES:
            raise ValueError(f"row {number} of {shown} is not complete, or its category no number")
    pairs = [Pair(root / row["file"], int(row["category"]), row["looks_like"]) for row in rows]
    missing = [pair.path for pair in pairs if not pair.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} files of {shown} are not there, like {printable(missing[0])}"
        )
    names = {int(row["category"]): row["font"] for row in rows}
    return pairs, [names.get(category, str(category)) for category in range(max(names) + 1)]


def read_about(folder: str | File) -> dict | None:
    """Content of a folder's glyphs.json, see :mod:`fastgan.recipes.zi2zi.glyphs`; None if there is none.

    Raises:
        ValueError: it is not JSON, or not as `fastgan data glyphs` writes it.
    """
    path = data_root(folder) / JSON
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{printable(path)} is not in JSON: {error}") from error
    if not is_valid_about(about):
        raise ValueError(f"{printable(path)} is not as `fastgan data glyphs` writes it")
    return about


def is_valid_about(about: object) -> bool:
    """Whether the content of a glyphs.json is of the form that `fastgan data glyphs` writes."""
    if not isinstance(about, dict):
        return False
    source, categories = about.get("source", {}), about.get("categories", [])
    return (
        isinstance(source, dict)
        and isinstance(source.get("path", ""), str)
        and isinstance(categories, list)
        and all(isinstance(font, dict) and isinstance(font.get("name"), str) for font in categories)
        and all(type(about.get(name, 0)) is int for name in ("size", "pixels", "baseline"))
    )


def split_characters(pairs: Sequence[Pair], share: float, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs by character, so that held-out characters appear in training in no font.

    Args:
        share: of the characters to hold out; at least one is held out, and at least one is not.
        seed: of the random choice.

    Raises:
        ValueError: there is only one character.
    """
    characters = sorted({pair.character for pair in pairs})
    if len(characters) < 2:
        raise ValueError(f"at least two characters are needed to hold one out, got {len(characters)}")
    count = min(max(1, round(share * len(characters))), len(characters) - 1)
    chosen = np.random.default_rng(seed).choice(len(characters), count, replace=False)
    held_out = {characters[index] for index in chosen}
    return (
        [pair for pair in pairs if pair.character not in held_out],
        [pair for pair in pairs if pair.character in held_out],
    )


class PairImages(ImageFolder):
    """Samples (image, category): the source glyph on the left, the target on the right, size x 2 size.

    Args:
        pairs: see :func:`find_pairs`.
        image_size: height and width of each glyph.
        source_side: the side of the source in the files: "left", or "right" as in those of zi2zi's scripts.
        augment: pairs are enlarged by up to this share and cropped, with the same draws for both glyphs.
        seed: of order and augmentation.
        reading: how files are read.

    Unreadable files, and images that are not twice as wide as high, are skipped with a warning.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        image_size: int,
        source_side: str = "left",
        augment: float = 0.0,
        seed: int = 0,
        reading: Reading = READING,
    ) -> None:
        size = (image_size, 2 * image_size)
        super().__init__([pair.path for pair in pairs], size, seed=seed, reading=reading)
        self.source_side, self.augment = source_side, augment
        self._categories = {pair.path: pair.category for pair in pairs}

    def sample(self, k: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """Pair k of the endless stream: (size, 2 size, 3) uint8, and its category, int64."""
        image, path = self.sample_and_file(k)
        return image, np.asarray(self._categories[path])

    def _check_size(self, image: Image.Image) -> None:
        if image.width != 2 * image.height:
            raise UnusableImage(f"{image.width}x{image.height} is no pair of square glyphs side by side")

    def _cut(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        size, side = self.image_size[0], image.height
        part = side / (1 + random.uniform(0, self.augment))
        left, top = random.uniform(0, side - part, 2)
        pair = Image.new("RGB", (2 * size, size))
        for place, start in enumerate((0, side) if self.source_side == "left" else (side, 0)):
            # Cropped first, so that resampling does not mix the two glyphs.
            glyph = image.crop((start, 0, start + side, side))
            box = (left, top, left + part, top + part)
            glyph = glyph.resize((size, size), Image.Resampling.BICUBIC, box=box)
            pair.paste(glyph, (place * size, 0))
        return pair
