"""Pictures in the page, within a bound for its size."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from fastgan._names import printable
from fastgan.training.image_files import UnusableImage, read_image
from fastgan.training.markup import Html, element, image

MOST_GRIDS = 6
GRID_BYTES = 120_000
"""Of one sample grid. Six, with their base64, take at most a megabyte of the report's 3."""
SECTION_BYTES = 1_000_000
"""Of one picture of a recipe's own section."""
# Of pictures of too many bytes; what is still too large at the last quality loses pixels.
WIDEST, QUALITIES = 1500, (88, 75, 60)


@dataclass
class Section:
    """A recipe's section of the report: text, pictures with captions, preformatted lines."""

    title: str
    text: str = ""
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    lines: str = ""


def figures_of(pictures: Iterable[tuple[Path, str]], problems: list[str]) -> list[Html]:
    """The readable pictures, with their captions."""
    figures = (_figure(path, caption, SECTION_BYTES, problems) for path, caption in pictures)
    return [figure for figure in figures if figure]


def sample_figures(folder: Path, problems: list[str]) -> list[Html]:
    """Sample grids, oldest first: the first and the newest that can be read, and a few between them."""
    grids = sorted((folder / "samples").glob("step-*.png"))
    rows = _rows_of(folder, problems) if grids else []
    caption = f"; from the top: {', '.join(rows)}"

    def first_readable(paths: Iterable[Path]) -> tuple[Path, Html] | None:
        figures = ((path, _figure(path, path.stem + caption, GRID_BYTES, problems)) for path in paths)
        return next(((path, figure) for path, figure in figures if figure), None)

    newest = first_readable(reversed(grids))
    if newest is None:
        return []
    older = grids[: grids.index(newest[0])]
    oldest = first_readable(older)
    if oldest is None:
        return [newest[1]]
    between = older[older.index(oldest[0]) + 1 :]
    few = _spread(between, MOST_GRIDS - 2)
    middle = (_figure(path, path.stem + caption, GRID_BYTES, problems) for path in few)
    return [oldest[1], *filter(None, middle), newest[1]]


def _spread(paths: list[Path], most: int) -> list[Path]:
    """At most so many of them, evenly spread."""
    if len(paths) <= most:
        return paths
    return [paths[(2 * place + 1) * len(paths) // (2 * most)] for place in range(most)]


def _rows_of(folder: Path, problems: list[str]) -> list[str]:
    try:
        return (folder / "samples" / "rows.txt").read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(printable(error))
        return []


def _figure(path: Path, caption: str, most_bytes: int, problems: list[str]) -> Html | None:
    try:
        content, kind = path.read_bytes(), "png"
        if len(content) > most_bytes:
            content, kind = _smaller(path, most_bytes), "jpeg"
            caption += f"; made smaller, {path.name} has all pixels"
    except (OSError, UnusableImage) as error:
        shown = printable(error)
        problems.append(shown if isinstance(error, OSError) else f"{printable(path)} is left out: {shown}")
        return None
    picture = image(kind, content, caption)
    return element("figure", picture, element("figcaption", caption))


def _smaller(path: Path, most_bytes: int) -> bytes:
    """The picture as JPEG of at most so many bytes.

    Raises:
        UnusableImage: it is none that can be read.
    """
    picture = read_image(path)
    picture.thumbnail((WIDEST, 4 * WIDEST), Image.Resampling.BOX)
    qualities = list(QUALITIES)
    while True:
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=qualities[0])
        if buffer.tell() <= most_bytes or max(picture.size) == 1:
            return buffer.getvalue()
        if len(qualities) > 1:
            qualities.pop(0)
        else:
            shrink = 0.95 * (most_bytes / buffer.tell()) ** 0.5
            width, height = (max(1, int(side * shrink)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BOX)
