"""Fonts for tests: those of matplotlib's wheel, and small ones made here; a zi2zi small enough for tests."""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont
from fontTools.ttLib.tables.TupleVariation import TupleVariation

from fastgan.recipes.zi2zi.config import Zi2ZiConfig
from fastgan.recipes.zi2zi.glyphs import write_glyphs

CHARACTERS = "ABCDEFGHKLMNPRSTabdefgk1234"
SOURCE, TARGETS = "DejaVuSans", ("DejaVuSerif-Bold", "cmr10")


def small_glyphs(folder: Path) -> Path:
    """Pairs of 27 characters in two fonts, 32x32."""
    write_glyphs(folder, font_file(SOURCE), [font_file(name) for name in TARGETS], CHARACTERS, 32)
    return folder


def small_config(glyphs: Path, runs: Path) -> Zi2ZiConfig:
    """32x32 and narrow, without VGG and dropout; both ramps are over."""
    return Zi2ZiConfig(
        train_path=str(glyphs), runs_path=str(runs), image_size=32, width=4, d_width=2,
        embedding_dim=6, batch_size=4, num_steps=4, log_interval=2, sample_interval=4, eval_interval=4,
        checkpoint_interval=4, accelerator="cpu", perceptual_weight=0.0, dropout=0.0, ema_decay=0.9,
        l1_ramp_epochs=0.0, const_ramp_epochs=0.0,
    )  # fmt: skip


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


def make_collection(path: Path, *fonts: Path) -> Path:
    """A collection of the fonts."""
    collection = TTCollection()
    collection.fonts = [TTFont(font) for font in fonts]
    collection.save(path)
    return path


def make_variable_font(path: Path) -> Path:
    """With the character "A", a square of 200 units that is 600 wide at "Wide", and a default, "Narrow"."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "A"])
    builder.setupCharacterMap({ord("A"): "A"})
    builder.setupGlyf({".notdef": _glyph([]), "A": _glyph([(100, 0), (100, 200), (300, 200), (300, 0)])})
    builder.setupHorizontalMetrics({".notdef": (700, 0), "A": (800, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    instances = [
        {"location": {"wdth": place}, "stylename": name} for place, name in ((100, "Narrow"), (300, "Wide"))
    ]
    builder.setupFvar([("wdth", 100, 100, 300, "Width")], instances)
    wider = [(0, 0), (0, 0), (400, 0), (400, 0), (0, 0), (400, 0), (0, 0), (0, 0)]  # and four phantom points
    builder.setupGvar({"A": [TupleVariation({"wdth": (0, 1, 1)}, wider)]})
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
