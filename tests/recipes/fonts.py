"""Fonts for tests: those of matplotlib's wheel, and small ones made here."""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen


def font_file(name: str) -> Path:
    """Of matplotlib's: DejaVuSans, cmmi10, ..."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def make_font(path: Path, box: str = "", empty: str = "", drawn: str = "") -> Path:
    """A font with characters that show the box of missing glyphs, with empty ones, and with triangles."""
    names = {c: f"u{ord(c):04X}" for c in box + empty + drawn}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(c): name for c, name in names.items()})
    square, triangle = [(100, 0), (100, 700), (600, 700), (600, 0)], [(100, 0), (350, 700), (600, 0)]
    glyphs = {".notdef": _glyph(square)}
    for c, name in names.items():
        glyphs[name] = _glyph(square if c in box else triangle if c in drawn else [])
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(
        {name: (700, 0 if not g.numberOfContours else 100) for name, g in glyphs.items()}
    )
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def _glyph(points: list[tuple[int, int]]):
    pen = TTGlyphPen(None)
    if points:
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()
