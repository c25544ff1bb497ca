"""Image files of every mode, depth and container; odd EXIF; and arbitrary errors of decoders."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from fastgan.training.data import ImageFolder
from fastgan.training.image_files import (
    EXTENSIONS,
    Reading,
    UnusableImage,
    check_background,
    read_image,
)  # fmt: skip
from tests.file_kinds import KINDS, PAGE, Kind, as_read, grey16, page, rgba


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.file} {kind.pixels}")
def test_colours_are_right_or_the_file_is_refused_by_name(kind: Kind, tmp_path):
    message, pixels = as_read(kind, tmp_path)
    if kind.colour is None:
        assert pixels is None and "mode" in message
    else:
        off = np.abs(pixels.astype(int) - np.array(kind.colour)).max()
        assert off <= kind.tolerance, (pixels[0, 0], kind.colour)


def test_the_page_is_what_is_found():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.file_kinds"


def test_the_page_has_all_endings():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"{ending} " in text.replace("`", " ").replace(",", " ") for ending in EXTENSIONS)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (0x4000, 64), (0x40FF, 64), (0xFFFF, 255)])
def test_16_bit_grey_is_as_bright_as_it_was(value, expected, tmp_path):
    grey16(value).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).max() == expected


def test_a_transparent_value_of_16_bit_grey(tmp_path):
    image = grey16(0x4000)
    image.putpixel((0, 0), 0x8000)
    image.save(tmp_path / "x.png", transparency=0x8000)
    read = read_image(tmp_path / "x.png", Reading(background="red"))
    assert read.getpixel((0, 0)) == (255, 0, 0) and read.getpixel((1, 0)) == (64, 64, 64)


@pytest.mark.parametrize(("background", "expected"), [("white", 255), ("black", 0), ("#404040", 64)])
def test_what_shows_through(background, expected, tmp_path):
    rgba(0).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", Reading(background=background)).getpixel((3, 3)) == (expected,) * 3


@pytest.mark.parametrize("value", ["", "no colour", "#12", "#11223344", "rgba(1,2,3,4)"])
def test_a_background_is_a_colour(value):
    with pytest.raises(ValueError, match="background must be the name of a colour or #rrggbb, got "):
        check_background("background", value)


# --- EXIF -------------------------------------------------------------------------------------------------


def exif(orientation: int, *entries: bytes) -> bytes:
    """EXIF with these entries of 12 bytes after the orientation's."""
    all_entries = (struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0), *entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(all_entries)) + b"".join(all_entries) + bytes(4)


ODD = {
    # Entries that Pillow reads but cannot write, such as text in place of a number.
    "text as number": struct.pack("<HHI4s", 0x0103, 2, 4, b"abc\0"),
    "number too large": struct.pack("<HHIi", 0x0213, 9, 1, -5),
    "rational by zero": struct.pack("<HHII", 0x011A, 5, 1, 0),
    "offset beyond the end": struct.pack("<HHII", 0x010F, 2, 100, 60000),
    "unknown type": struct.pack("<HHII", 0x010E, 77, 1, 1),
    "many": struct.pack("<HHII", 0x010E, 2, 2**31, 8),
    "folder of itself": struct.pack("<HHII", 0x8769, 4, 1, 8),
    "GPS of nothing": struct.pack("<HHII", 0x8825, 4, 1, 60000),
}


def lies(path, data: bytes, size=(16, 8)):
    Image.radial_gradient("L").resize(size).save(path, quality=90)
    upright = np.asarray(Image.open(path).convert("RGB"))
    intact = path.read_bytes()
    path.write_bytes(intact[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + intact[2:])
    return upright


@pytest.mark.parametrize("odd", ODD)
def test_odd_exif_neither_fails_nor_hides_the_orientation(odd, tmp_path):
    stored = lies(tmp_path / "x.jpg", exif(6, ODD[odd]))
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.jpg")), np.rot90(stored, -1))


@pytest.mark.parametrize(
    "data", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0XXXXXXXXXX", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_exif_that_nobody_can_read_says_nothing(data, tmp_path):
    stored = lies(tmp_path / "x.jpg", data)
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.jpg")), stored)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_as_pillow_turns_them(orientation, ending, tmp_path):
    from PIL import ImageOps

    tags = Image.Exif()
    tags[0x0112] = orientation
    path = tmp_path / f"x.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=tags)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(expected))


# --- whatever a file raises -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [struct.error("ill"), TypeError("ill"), KeyError("ill"), MemoryError(), RecursionError("ill")]
)
def test_whatever_a_file_raises_it_is_skipped_counted_and_named(error, tmp_path, monkeypatch):
    for name in ("a.jpg", "b.png", "c.png"):
        rgba().convert("RGB").save(tmp_path / name)

    def fails(self):
        raise error

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_prepare", fails)
    dataset = ImageFolder(sorted(tmp_path.iterdir()), (8, 8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert {dataset.sample_and_file(k)[1].name for k in range(6)} == {"b.png", "c.png"}
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1
    assert texts[0].startswith(f"skipped unusable image 1: {tmp_path / 'a.jpg'} ({type(error).__name__}: ")


def test_too_many_unusable_files_end_with_an_error(tmp_path):
    for number in range(8):
        rgba().convert("RGB").save(tmp_path / f"{number}.png")
    files = sorted(tmp_path.iterdir())
    for path in files[:5]:
        path.write_bytes(b"no image")

    def read(share):
        dataset = ImageFolder(files, (8, 8), reading=Reading(max_unusable=share))
        return {dataset.sample_and_file(k)[1] for k in range(8)}

    with pytest.warns(UserWarning, match="unusable image"):
        assert read(0.7) == {*files[5:]}
        message = (
            r"5 of 8 images cannot be used, and --max_unusable 0\.5 allows no more, e\.g\. .*[0-4]\.png: "
        )
        with pytest.raises(ValueError, match=message):
            read(0.5)
        with pytest.raises(ValueError, match="1 of 8 images"):
            read(0)


def test_a_file_that_is_no_image_is_one_error(tmp_path):
    (tmp_path / "x.png").write_bytes(b"GIF89a")
    with pytest.raises(UnusableImage):
        read_image(tmp_path / "x.png")
