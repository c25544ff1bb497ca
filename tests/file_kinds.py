"""Image files of every kind, and the result of reading them.

`tests/training/test_image_files.py` writes and reads them all; `python -m tests.file_kinds` prints the table
of docs/files.md, which must agree with the test.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastgan.recipes.enhancenet.commands import enlarge_file
from fastgan.recipes.enhancenet.config import EnhanceNetConfig
from fastgan.recipes.enhancenet.model import EnhanceNetModel
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator
from fastgan.training.image_files import Reading, UnusableImage, read_image

SIZE = 16, 12  # width, height
COLOUR, BACKGROUND, BEHIND = (200, 100, 40), "#0050ff", (0, 0x50, 0xFF)
GREY = 64
OVER = tuple(round(128 / 255 * c + 127 / 255 * b) for c, b in zip(COLOUR, BEHIND, strict=True))
GREY_OVER = tuple(round(128 / 255 * GREY + 127 / 255 * b) for b in BEHIND)
PAGE = Path(__file__).parent.parent / "docs" / "files.md"
BEGIN = "<!-- written by python -m tests.file_kinds -->\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to write one, and the expected colour."""

    file: str
    pixels: str
    write: Callable[[Path], object]
    colour: tuple[int, ...] | None = COLOUR
    """None: the file is refused."""
    tolerance: int = 1


def rgb() -> Image.Image:
    return Image.new("RGB", SIZE, COLOUR)


def rgba(alpha: int = 128) -> Image.Image:
    return Image.new("RGBA", SIZE, (*COLOUR, alpha))


def palette_alpha() -> Image.Image:
    image = rgb().quantize(4).convert("PA")
    image.putalpha(128)
    return image


def grey() -> Image.Image:
    return Image.new("L", SIZE, GREY)


def grey_alpha() -> Image.Image:
    return Image.new("LA", SIZE, (GREY, 128))


def grey16(value: int = 0x4000) -> Image.Image:
    return Image.fromarray(np.full(SIZE[::-1], value, np.uint16))


def grey16_big() -> Image.Image:
    return Image.frombytes("I;16B", SIZE, raw((0x4000,), ">u2"))


def saved(image: Callable[[], Image.Image], **options: object) -> Callable[[Path], object]:
    return lambda path: image().save(path, **options)


def tiff(bits: tuple[int, ...], data: bytes, photometric: int, more: tuple[tuple[int, int], ...] = ()):
    """A writer of an uncompressed TIFF, little endian, that Pillow itself does not write."""

    def write(path: Path) -> None:
        width, height = SIZE
        entries = {
            256: (3, 1, width), 257: (3, 1, height), 259: (3, 1, 1), 262: (3, 1, photometric),
            277: (3, 1, len(bits)), 278: (3, 1, height), 279: (4, 1, len(data)),
            **{tag: (3, 1, value) for tag, value in more},
        }  # fmt: skip
        count = len(entries) + 2
        after = 8 + 2 + 12 * count + 4
        packed_bits = struct.pack(f"<{len(bits)}H", *bits)
        entries[258] = (3, len(bits), bits[0]) if len(bits) == 1 else (3, len(bits), after)
        entries[273] = (4, 1, after + len(packed_bits))
        directory = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
        head = b"II*\0" + struct.pack("<IH", 8, count) + directory + bytes(4)
        path.write_bytes(head + packed_bits + data)

    return write


def raw(values: tuple[int, ...], dtype: str) -> bytes:
    return np.tile(np.array(values, dtype), SIZE[0] * SIZE[1]).tobytes()


def netpbm(magic: str, largest: int, values: tuple[int, ...]) -> Callable[[Path], object]:
    head = f"{magic} {SIZE[0]} {SIZE[1]} {largest}\n".encode()
    return lambda path: path.write_bytes(head + raw(values, ">u2" if largest > 255 else "u1"))


def png16(values: tuple[int, ...], kind: int) -> Callable[[Path], object]:
    """A writer of a PNG with 16 bits per channel, of which Pillow writes only grey."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + np.tile(np.array(values, ">u2"), SIZE[0]).tobytes()
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 16, kind, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(row * SIZE[1])),
        chunk(b"IEND", b""),
    )
    return lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def turned(image: Image.Image) -> Callable[[Path], object]:
    """An image rotated by its orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return lambda path: image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def frames(path: Path) -> None:
    rgb().save(path, save_all=True, append_images=[Image.new("RGB", SIZE, "black")])


def with_preview(path: Path) -> None:
    """As phones write them: JPEG with a second, smaller picture."""
    rgb().save(path, format="MPO", save_all=True, append_images=[rgb().resize((8, 6))])


GREYS = (GREY,) * 3
MULTIPLIED = 100, 50, 20, 128
WIDE = tuple(257 * c for c in COLOUR)
KINDS = (
    Kind("JPEG", "RGB", saved(rgb, quality=95), tolerance=3),
    Kind("JPEG", "grey", saved(grey, quality=95), GREYS),
    Kind("JPEG", "CMYK", saved(lambda: rgb().convert("CMYK"), quality=95), tolerance=3),
    Kind("JPEG", "turned by EXIF", turned(rgb()), tolerance=5),
    Kind("JPEG", "with a preview (MPO)", with_preview, tolerance=5),
    Kind("PNG", "1 bit", saved(lambda: Image.new("1", SIZE, 1)), (255,) * 3, 0),
    Kind("PNG", "grey", saved(grey), GREYS, 0),
    Kind("PNG", "grey with alpha", saved(grey_alpha), GREY_OVER),
    Kind("PNG", "16-bit grey", saved(grey16), GREYS, 0),
    Kind("PNG", "16-bit grey with alpha", png16((257 * GREY, 257 * 128), 4), GREY_OVER),
    Kind("PNG", "palette", saved(lambda: rgb().quantize(4)), tolerance=0),
    Kind("PNG", "palette, transparent", saved(lambda: Image.new("P", SIZE, 0), transparency=0), BEHIND, 0),
    Kind("PNG", "RGB", saved(rgb), tolerance=0),
    Kind("PNG", "RGB, one colour transparent", saved(rgb, transparency=COLOUR), BEHIND, 0),
    Kind("PNG", "RGB with alpha", saved(rgba), OVER),
    Kind("PNG", "16-bit RGB", png16(WIDE, 2), tolerance=0),
    Kind("PNG", "16-bit RGB with alpha", png16((*WIDE, 257 * 128), 6), OVER),
    Kind("PNG", "animated", frames, tolerance=0),
    Kind("BMP", "RGB", saved(rgb), tolerance=0),
    Kind("WebP", "RGB", saved(rgb, lossless=True), tolerance=0),
    Kind("WebP", "RGB with alpha", saved(rgba, lossless=True), OVER),
    Kind("WebP", "animated", frames, tolerance=6),
    Kind("TIFF", "1 bit, 0 is white", tiff((1,), bytes(2 * SIZE[1]), 0), (255,) * 3, 0),
    Kind("TIFF", "grey", saved(grey), GREYS, 0),
    Kind("TIFF", "grey, 0 is white", tiff((8,), raw((255 - GREY,), "u1"), 0), GREYS, 0),
    Kind("TIFF", "grey with alpha", saved(grey_alpha), GREY_OVER),
    Kind("TIFF", "12-bit grey", tiff((12,), b"\x40\x04\0" * (SIZE[0] * SIZE[1] // 2), 1), GREYS, 0),
    Kind("TIFF", "16-bit grey", saved(grey16), GREYS, 0),
    Kind("TIFF", "16-bit grey, 0 is white", tiff((16,), raw((65535 - 257 * GREY,), "<u2"), 0), GREYS, 0),
    Kind("TIFF", "16-bit grey, big endian", saved(grey16_big), GREYS, 0),
    Kind("TIFF", "16-bit integers with a sign", tiff((16,), raw((0x4000,), "<i2"), 1, ((339, 2),)), None),
    Kind("TIFF", "32-bit integers", saved(lambda: Image.new("I", SIZE, 64)), None),
    Kind("TIFF", "floating point", saved(lambda: Image.new("F", SIZE, 0.25)), None),
    Kind("TIFF", "palette with alpha", saved(palette_alpha), OVER),
    Kind("TIFF", "RGB", saved(rgb), tolerance=0),
    Kind("TIFF", "RGB with alpha", saved(rgba), OVER),
    Kind("TIFF", "RGB, alpha multiplied", tiff((8,) * 4, raw(MULTIPLIED, "u1"), 2, ((338, 1),)), OVER, 3),
    Kind("TIFF", "16-bit RGB", tiff((16,) * 3, raw(WIDE, "<u2"), 2), tolerance=0),
    Kind("TIFF", "CMYK", saved(lambda: rgb().convert("CMYK"))),
    Kind("TIFF", "CIELAB", saved(lambda: Image.new("LAB", SIZE, (100, 128, 128))), (92, 92, 92)),
    Kind("GIF", "palette", saved(rgb), tolerance=0),
    Kind("GIF", "animated", frames, tolerance=0),
    Kind("AVIF", "RGB", saved(rgb, quality=95), tolerance=6),
    Kind("AVIF", "RGB with alpha", saved(rgba, quality=95), OVER, 6),
    Kind("JPEG 2000", "RGB", saved(rgb), tolerance=1),
    Kind("JPEG 2000", "16-bit grey", saved(grey16), GREYS),
    Kind("Netpbm", "PGM, largest value 255", netpbm("P5", 255, (GREY,)), GREYS, 0),
    Kind("Netpbm", "PGM, largest value 1023", netpbm("P5", 1023, (257,)), GREYS, 1),
    Kind("Netpbm", "PGM, largest value 65535", netpbm("P5", 65535, (0x4000,)), GREYS, 0),
    Kind("Netpbm", "PPM, largest value 255", netpbm("P6", 255, COLOUR), tolerance=0),
    Kind("Netpbm", "PPM, largest value 65535", netpbm("P6", 65535, WIDE), tolerance=0),
    Kind("Netpbm", "PFM, floating point", saved(lambda: Image.new("F", SIZE, 0.25), format="PPM"), None),
    Kind("TGA", "RGB", saved(rgb), tolerance=0),
    Kind("TGA", "RGB with alpha", saved(rgba), OVER),
)  # fmt: skip
ENDINGS = {
    "JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WebP": ".webp", "TIFF": ".tif", "GIF": ".gif",
    "AVIF": ".avif", "JPEG 2000": ".jp2", "Netpbm": ".pnm", "TGA": ".tga",
}  # fmt: skip


def written(kind: Kind, folder: Path) -> Path:
    path = folder / f"{KINDS.index(kind)}{ENDINGS[kind.file]}"
    kind.write(path)
    return path


def as_read(kind: Kind, folder: Path) -> tuple[str, np.ndarray | None]:
    """The result of training and of all commands but upscale for a file, and its pixels (None: refused)."""
    try:
        image = read_image(written(kind, folder), Reading(background=BACKGROUND))
    except UnusableImage as error:
        return f"refused: {str(error).partition(',')[0].partition(':')[0]}", None
    assert image.mode == "RGB" and image.size == SIZE
    return "read", np.asarray(image)


def as_upscaled(kind: Kind, folder: Path) -> str:
    """The result of `fastgan upscale` for a file."""
    torch.manual_seed(0)
    target = folder / "large.png"
    try:
        generator = EnhanceNetGenerator(2, 4, 1)
        upscaler = EnhanceNetModel(EnhanceNetConfig(scale=2, width=4, blocks=1), {"generator": generator})
        enlarge_file(upscaler, written(kind, folder), target, 64, None)
    except ValueError as error:
        return f"refused: {str(error).split(': ')[1]}"
    with Image.open(target) as large:
        assert large.size == (2 * SIZE[0], 2 * SIZE[1])
        return {"L": "grey", "LA": "grey with alpha", "RGB": "RGB", "RGBA": "RGB with alpha"}[large.mode]


def table() -> str:
    lines = [
        "| file | pixels | training, encode, decode, latents, references | upscale |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            read, upscaled = as_read(kind, Path(folder))[0], as_upscaled(kind, Path(folder))
            lines.append(f"| {kind.file} | {kind.pixels} | {read} | {upscaled} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/files.md with the current table."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[0] + BEGIN + "\n" + table()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
