"""Fonts for zi2zi: the characters of a font, and pictures of them on a common baseline."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from fastgan._names import printable

if TYPE_CHECKING:
    from fontTools.ttLib import TTFont

PROBE = 64  # pixels per em for measuring glyphs
MARGIN = 1 / 16  # of the picture, on each side


@dataclass(frozen=True)
class Geometry:
    """Scale and position of glyphs, common to all characters and fonts."""

    size: int
    """Height and width of the picture."""
    pixels: int
    """Per em."""
    baseline: int
    """Row of the picture that is the baseline."""


def split_choice(name: str | Path) -> tuple[Path, str]:
    """FILE and CHOICE of `FILE#CHOICE`; the name of an existing file is FILE as a whole."""
    path = Path(name)
    file, mark, choice = str(name).rpartition("#")
    return (path, "") if path.is_file() or not mark else (Path(file), choice)


class Font:
    """A TrueType or OpenType font.

    Args:
        path: of the file; `FILE#FACE` selects a face of a collection, by number (from 0) or name, or a named
            instance of a variable font. By default, it is a collection's first face and a variable font's
            default instance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a font, one without a map from Unicode, or without the face; lists the existing faces.
    """

    choice: str = ""
    """The selected face or instance and the alternatives, in words; "" if there are none."""

    def __init__(self, path: str | Path) -> None:
        from fontTools.ttLib import TTFont, TTLibError

        self.path, self._chosen = split_choice(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no such font: {printable(path)}")
        try:
            index = self._face_of_collection()
            tables = TTFont(self.path, fontNumber=index)
            coordinates = self._instance(tables)
            characters = tables.getBestCmap()
            self._glyphs = tables.getGlyphSet(location=coordinates or None)
            self._missing = tables.getGlyphOrder()[0]
            self._face = functools.partial(_face, self.path, index, tuple(coordinates.values()))
            self._face(PROBE)
        except (TTLibError, OSError, AssertionError) as error:
            raise ValueError(f"{printable(path)} cannot be read as a font: {printable(error)}") from error
        if not characters:
            raise ValueError(f"{printable(path)} has no map from Unicode characters to its glyphs")
        self.characters = {chr(code): glyph for code, glyph in characters.items()}
        self._box = self._outline(self._missing)

    @property
    def name(self) -> str:
        """The file's name without its extension, with the face if one was selected."""
        return f"{self.path.stem}#{self._chosen}" if self._chosen else self.path.stem

    @property
    def location(self) -> str:
        """Its absolute path, with the face if one was selected."""
        return f"{self.path.resolve()}#{self._chosen}" if self._chosen else str(self.path.resolve())

    def _face_of_collection(self) -> int:
        """The number of the face; 0 for a file with a single one."""
        from fontTools.ttLib import TTCollection

        with self.path.open("rb") as file:
            if file.read(4) != b"ttcf":
                return 0
        names = [font["name"].getBestFullName() or "?" for font in TTCollection(self.path, lazy=True).fonts]
        index = int(self._chosen) if self._chosen.isdecimal() else -1
        if self._chosen in names:
            index = names.index(self._chosen)
        if not self._chosen:
            index = 0
        if not 0 <= index < len(names):
            raise ValueError(
                f"{printable(self.path)} has no face {self._chosen!r}; it has: {printable(_numbered(names))}"
            )
        self.choice = f"face {index}, {names[index]}, of: {_numbered(names)}"
        return index

    def _instance(self, tables: TTFont) -> dict[str, float]:
        """The coordinates of a variable font's instance on its axes; {} for a font that is not variable."""
        if "fvar" not in tables:
            if self._chosen and not self.choice:
                raise ValueError(
                    f"{printable(self.path)} has nothing to choose: it is neither a collection nor variable"
                )
            return {}
        axes = {axis.axisTag: axis.defaultValue for axis in tables["fvar"].axes}
        if self.choice:  # the default instance of a collection's face
            return axes
        names = tables["name"]
        named = {
            names.getDebugName(instance.subfamilyNameID) or "?": instance.coordinates
            for instance in tables["fvar"].instances
        }
        if self._chosen and self._chosen not in named:
            available = printable(", ".join(named))
            raise ValueError(f"{printable(self.path)} has no instance {self._chosen!r}; it has: {available}")
        chosen = f"instance {self._chosen}" if self._chosen else "the default instance"
        self.choice = f"{chosen}, of: {', '.join(named) or 'none that has a name'}"
        return axes | (named[self._chosen] if self._chosen else {})

    def has(self, character: str) -> bool:
        """Whether there is a visible glyph: neither an empty one nor the box for missing glyphs."""
        glyph = self.characters.get(character)
        if glyph is None or glyph == self._missing or self._ink(character, PROBE) is None:
            return False
        # Compare outlines, not pictures: hinting may render the same box differently.
        return not self._box or self._outline(glyph) != self._box

    def _outline(self, glyph: str) -> list:
        from fontTools.pens.recordingPen import DecomposingRecordingPen

        pen = DecomposingRecordingPen(self._glyphs)
        self._glyphs[glyph].draw(pen)
        return pen.value

    def bounds(self, character: str) -> tuple[float, float, float]:
        """(width, top, bottom) of the ink in em; top and bottom are relative to the baseline, downwards."""
        drawn = self._ink(character, PROBE)
        assert drawn is not None, "of characters that the font has"
        mask, top = drawn
        return mask.width / PROBE, top / PROBE, (top + mask.height) / PROBE

    def draw(self, character: str, geometry: Geometry) -> Image.Image:
        """The character, black on white: 8-bit grey, size x size.

        Its ink is centred horizontally. Glyphs that would not fit are drawn smaller.

        Raises:
            ValueError: the font has no such character.
        """
        size, pixels = geometry.size, geometry.pixels
        drawn = self._ink(character, pixels) if self.has(character) else None
        if drawn is None:
            shown = printable(self.path)
            raise ValueError(f"{shown} has no glyph for {character!r} (U+{ord(character):04X})")
        if max(drawn[0].size) > size:
            drawn = self._ink(character, math.floor(pixels * (size - 2) / max(drawn[0].size)))
            assert drawn is not None
        mask, top = drawn
        row = min(max(geometry.baseline + top, 0), size - mask.height)
        picture = Image.new("L", (size, size), 255)
        picture.paste(0, ((size - mask.width) // 2, row), mask)
        return picture

    def _ink(self, character: str, pixels: int) -> tuple[Image.Image, int] | None:
        """A mask of exactly the ink, and its first row relative to the baseline; None if there is no ink."""
        face = self._face(pixels)
        left, top, right, bottom = face.getbbox(character, anchor="ls")
        # A margin of 2, because ink may exceed the font's bounding box.
        x, y = 2 - math.floor(left), 2 - math.floor(top)
        mask = Image.new("L", (math.ceil(right) + x + 2, math.ceil(bottom) + y + 2))
        ImageDraw.Draw(mask).text((x, y), character, fill=255, font=face, anchor="ls")
        box = mask.getbbox()
        return None if box is None else (mask.crop(box), box[1] - y)


@functools.cache
def _face(path: Path, index: int, axes: tuple[float, ...], pixels: int) -> ImageFont.FreeTypeFont:
    face = ImageFont.truetype(path, max(pixels, 1), index, layout_engine=ImageFont.Layout.BASIC)
    if axes:
        face.set_variation_by_axes(list(axes))
    return face


def _numbered(names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(names))


def common_geometry(fonts: Iterable[Font], characters: Sequence[str], size: int) -> Geometry:
    """The geometry with the largest scale at which all existing characters of all fonts fit.

    Args:
        size: height and width of the pictures.

    Raises:
        ValueError: no font has any of the characters.
    """
    bounds = [font.bounds(c) for font in fonts for c in characters if font.has(c)]
    if not bounds:
        raise ValueError(f"no font has any of the {len(characters)} characters")
    widths, tops, bottoms = zip(*bounds, strict=True)
    top, bottom = min(tops), max(bottoms)
    room = size * (1 - 2 * MARGIN)
    pixels = max(1, math.floor(room / max(bottom - top, max(widths))))
    return Geometry(size, pixels, round(size / 2 - pixels * (top + bottom) / 2))
