"""`fastgan data glyphs`: training data for zi2zi, rendered from fonts.

Writes a PNG per character and target font, named `K_NNNNN.png` as in zi2zi (category K, character N), with
the source font's glyph on the left and the target font's on the right. `glyphs.csv` lists the content of each
file, `glyphs.json` how it was drawn.
"""

from __future__ import annotations

import codecs
import csv
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.zi2zi.fonts import Font, common_geometry, split_choice

CSV, JSON = "glyphs.csv", "glyphs.json"
COLUMNS = ("file", "character", "category", "font", "looks_like")
CHARSETS = ("latin", "gb2312-common")

# From matplotlib's wheel: upright and regular, to be drawn bold with serifs, and bold and oblique.
DEMO_SOURCE, DEMO_TARGETS = "DejaVuSans.ttf", ("DejaVuSerif-Bold.ttf", "DejaVuSans-BoldOblique.ttf")
DEMO_SIZE = 64
DEMO_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "DIGIT")


def read_charset(charset: str) -> list[str]:
    """The characters of "latin", of "gb2312-common", or of a file in UTF-8, each once.

    A JSON file has a list of characters, or named lists as in zi2zi's own charset files, of which `FILE#NAME`
    selects one. Any other file is text, all visible characters of which are used.

    "latin" has the visible characters of Basic Latin and Latin-1: letters, digits, punctuation and signs.
    "gb2312-common" is level 1 of GB 2312: the 3755 most common simplified Chinese characters.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not UTF-8 (the message tells where, and how to convert it), or has no visible
            character; its JSON is damaged, has no characters, or several lists of which none is selected.
    """
    if charset == "latin":
        return _visible(map(chr, range(0x100)))
    if charset == "gb2312-common":
        rows = [bytes((0xA0 + row, 0xA0 + cell)) for row in range(16, 56) for cell in range(1, 95)]
        return _visible("".join(code.decode("gb2312", errors="ignore") for code in rows))
    path, chosen = split_choice(charset)
    if not path.is_file():
        raise FileNotFoundError(
            f"no such charset: {printable(charset)} (neither one of {', '.join(CHARSETS)} nor a file)"
        )
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        position = text.find("\0")
        if position >= 0:
            raise UnicodeDecodeError("utf-8", data, data.index(b"\0"), 1, "a zero byte")
    except UnicodeDecodeError as error:
        shown = printable(path)
        two_bytes = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data
        guess = "UTF-16" if two_bytes else "GB18030"
        raise ValueError(
            f"{shown} is not in UTF-8: byte 0x{data[error.start]:02X} at offset {error.start}. Convert it, "
            f"for example: iconv -f {guess} -t UTF-8 {shown} > utf8.txt"
        ) from error
    listed = _characters_in_json(path, text, chosen)
    if listed is None and chosen:
        raise ValueError(f"{printable(path)} is not in JSON and has no list {chosen!r} to choose")
    characters = _visible(text if listed is None else listed)
    if not characters:
        raise ValueError(f"{printable(path)} holds no character that could be drawn")
    return characters


def _characters_in_json(path: Path, text: str, chosen: str) -> str | None:
    """The characters of a list in JSON; None for text that is not JSON, unless the file is named .json."""
    shown, is_json = printable(path), path.suffix.lower() == ".json"
    if not is_json and text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if is_json:
            raise ValueError(f"{shown} cannot be read as JSON: {error}") from error
        return None
    if isinstance(content, dict):
        names = printable(", ".join(content))
        if chosen and chosen not in content:
            raise ValueError(f"{shown} has no list {chosen!r}; it has: {names}")
        if not chosen and len(content) != 1:
            raise ValueError(f"{shown} has several lists: choose one as {shown}#NAME, of: {names}")
        content = content[chosen] if chosen else next(iter(content.values()))
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        content = "".join(content)
    if not isinstance(content, str):
        raise ValueError(f"{shown} must hold a list of characters, or such lists by name")
    return content


def _visible(text) -> list[str]:
    """Each character once, without spaces, control and format characters."""
    visible = (c for c in text if unicodedata.category(c)[0] not in "ZC" or unicodedata.category(c) == "Co")
    return list(dict.fromkeys(visible))


def write_glyphs(
    folder: Path,
    source_font: str | Path,
    target_fonts: Sequence[str | Path],
    characters: Sequence[str],
    size: int,
) -> dict:
    """Renders the pairs into a folder, see above, and returns the content of glyphs.json.

    Characters missing from the source font or a target font are left out for it, and counted; neither the box
    for missing glyphs nor empty pictures are ever drawn.

    Args:
        folder: is created; an existing one must be empty.
        source_font, target_fonts: see :class:`fastgan.recipes.zi2zi.fonts.Font`; the target fonts are the
            categories, in this order.
        characters: each once, see :func:`read_charset`.
        size: height and width of a glyph's picture, at least 16.

    Raises:
        FileNotFoundError: no such font.
        ValueError: not a font, or one without any of the characters; fonts of the same name; a folder that is
            not empty.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    source, targets = Font(source_font), [Font(path) for path in target_fonts]
    names = [font.name for font in targets]
    if len(set(names)) < len(names):
        raise ValueError(f"target fonts are told apart by their names, got {printable(', '.join(names))}")
    in_source = [c for c in characters if source.has(c)]
    in_targets = [[c for c in in_source if font.has(c)] for font in targets]
    for font, available in ((source, in_source), *zip(targets, in_targets, strict=True)):
        if not available:
            requested = characters if font is source else in_source
            raise ValueError(
                f"{printable(font.path)} has none of the {len(requested)} characters, "
                f"such as {''.join(requested[:5])!r}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{printable(folder)} is not empty: give a new folder")

    geometry = common_geometry((source, *targets), in_source, size)
    numbers = {c: number for number, c in enumerate(characters)}
    glyphs = {c: source.draw(c, geometry) for c in in_source}
    looks: dict[bytes, str] = {}
    rows = []
    for category, (font, available) in enumerate(zip(targets, in_targets, strict=True)):
        for character in available:
            glyph = glyphs[character]
            pair = Image.new("L", (2 * size, size), 255)
            pair.paste(glyph, (0, 0))
            pair.paste(font.draw(character, geometry), (size, 0))
            file = f"{category}_{numbers[character]:05d}.png"
            pair.save(folder / file)
            # Cyrillic, Greek and Latin A look alike, and must be held out together.
            alike = looks.setdefault(glyph.tobytes(), character)
            rows.append((file, character, category, font.name, alike))
    with (folder / CSV).open("w", newline="", encoding="utf-8") as file_out:
        csv.writer(file_out).writerows([COLUMNS, *rows])
    about = {
        **asdict(geometry),
        "layout": "source left, target right",
        "requested": len(characters),
        "source": _about(source, characters, in_source),
        "categories": [
            _about(f, in_source, available) for f, available in zip(targets, in_targets, strict=True)
        ],
    }
    (folder / JSON).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return about


def _about(font: Font, requested: Sequence[str], available: list[str]) -> dict:
    missing = "".join(c for c in requested if c not in set(available))
    chosen = {"choice": font.choice} if font.choice else {}
    return {"name": font.name, "path": font.location, **chosen, "glyphs": len(available), "missing": missing}


def write_demo_glyphs(folder: Path) -> None:
    """`builtin:glyphs`: letters and digits of five scripts in three fonts of matplotlib's wheel, 64x64.

    Latin, Greek, Cyrillic, Armenian and Georgian, without accented letters, which would repeat others.
    """
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    source, *targets = (Font(fonts / name) for name in (DEMO_SOURCE, *DEMO_TARGETS))
    letters = [c for c in sorted(source.characters) if _for_demo(c)]
    for font in (source, *targets):
        letters = [c for c in letters if not font.has(c) or _is_compact(*font.bounds(c))]
    write_glyphs(folder, source.path, [font.path for font in targets], letters, DEMO_SIZE)


def _for_demo(character: str) -> bool:
    plain = unicodedata.normalize("NFKD", character) == character
    kinds = unicodedata.category(character) in ("Lu", "Ll", "Nd")
    return plain and kinds and unicodedata.name(character).split()[0] in DEMO_SCRIPTS


def _is_compact(width: float, top: float, bottom: float) -> bool:
    """Whether a glyph's bounds, in em, are small enough not to shrink the common scale."""
    return width <= 1.05 and top >= -0.8 and bottom <= 0.25


def main(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan data glyphs", description="Training data for zi2zi, rendered from fonts.")
    parser.add_argument(
        "--source-font",
        required=True,
        help="TrueType or OpenType file; FILE#FACE for a face of a collection, by number or name, or for a "
        "named instance of a variable font",
    )
    parser.add_argument(
        "--target-fonts", required=True, nargs="+", help="one or more such: the categories 0, 1, ..."
    )
    parser.add_argument(
        "--charset",
        default="latin",
        help="latin, gb2312-common, or a UTF-8 file with the characters: text, or JSON (FILE.json#NAME for "
        "one of its lists)",
    )
    parser.add_argument("--size", type=int, default=256, help="of each glyph's picture (default: 256)")
    parser.add_argument("--output", type=Path, default=Path("glyphs"), help="new folder (default: glyphs)")
    options = parser.parse_args(arguments)
    about = write_glyphs(
        options.output, options.source_font, options.target_fonts, read_charset(options.charset), options.size
    )
    source = about["source"]
    print(f"{about['requested']} characters; source {printable(source['name'])}: {_summary(source)}")
    for category, font in enumerate(about["categories"]):
        print(f"category {category}, {printable(font['name'])}: {_summary(font)}")
    print(f"pairs, {CSV} and {JSON} in {printable(options.output)}")
    return 0


def _summary(font: dict) -> str:
    missing = font["missing"]
    choice = f"; {printable(font['choice'])}" if "choice" in font else ""
    shown = f" ({missing[:20]}{'...' if len(missing) > 20 else ''})" if missing else ""
    return f"{font['glyphs']} glyphs, {len(missing)} missing{shown}{choice}"
