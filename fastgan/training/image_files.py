"""Image files: formats, what their pixels mean, and tensors. docs/files.md has a table of all kinds."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageColor, ImageFile
from torch import Tensor

from fastgan._names import printable
from fastgan.training.shards.paths import File, opened

# By Pillow's names of the formats. A format that the installed Pillow lacks is reported for each file.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "Netpbm": (".pbm", ".pgm", ".ppm", ".pnm"),
    "TGA": (".tga",),
}
EXTENSIONS = tuple(extension for extensions in FORMATS.values() for extension in extensions)
# Pillow's own limit for decompression bombs, small files that decode to gigabytes: 256 MiB as RGB.
MAX_PIXELS = 2**30 // 12
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
# EXIF orientations, with the transposition that makes the image upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
PLACES_OF_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # in an image's info
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF's tags
# Exceptions whose message alone explains why a file cannot be read; others are shown with their type.
TELLING = (
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class UnusableImage(ValueError):
    """A file that is not an image, is damaged, or cannot be used as requested; the message says why."""


@contextlib.contextmanager
def naming_image(path: File) -> Iterator[None]:
    """Turns an UnusableImage within the block into a ValueError that names this file, for commands."""
    try:
        yield
    except UnusableImage as error:
        raise ValueError(f"{printable(path)} cannot be read as an image: {printable(error)}") from error


@dataclass(frozen=True)
class Reading:
    """How image files are read."""

    max_pixels: int = MAX_PIXELS
    """Images with more pixels are refused before they are decoded."""
    background: str = "white"
    """The colour behind transparent pixels: a CSS name, or `#rrggbb`."""
    max_unusable: float = 0.5
    """Share of a dataset's files that may be unusable; more than that is an error."""


READING = Reading()


@dataclass(frozen=True)
class Decoded:
    """An image in its file's own mode, upright."""

    image: Image.Image
    bits: int
    """Per channel, in the file; `image` may have fewer."""
    inverted: bool = False
    """Whether 0 is white, in an image that Pillow does not invert itself."""


def read_image(path: File, reading: Reading = READING) -> Image.Image:
    """The first image of a file as RGB, 8 bits per channel, upright, over `reading.background`.

    Raises:
        UnusableImage: a damaged file, one with too many pixels, or one whose values have no known range.
    """
    decoded = decode(path, reading.max_pixels)
    try:
        return as_rgb(decoded, reading.background)
    except UnusableImage:
        raise
    except Exception as error:
        raise UnusableImage(_reason(error)) from error


def decode(path: File, max_pixels: int = MAX_PIXELS, only_one: bool = False) -> Decoded:
    """The first image of a file, in its own mode, upright.

    Args:
        max_pixels: more are an error. If it is above the default, Pillow's own limit is raised to it.
        only_one: whether several frames or pages are an error.

    Raises:
        UnusableImage: a damaged file, whatever Pillow raises for it, or one with too many pixels.
        ShardError: its shard cannot be read.
    """
    if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    source = opened(path)
    try:
        with Image.open(source) as image:
            if image.width * image.height > max_pixels:
                raise UnusableImage(
                    f"it has {image.width}x{image.height} pixels, more than --max_pixels {max_pixels} allows"
                )
            # The extra pictures in MPO, which many phones write, are previews, not frames.
            frames = getattr(image, "n_frames", 1) if only_one and image.format != "MPO" else 1
            if frames > 1:
                raise UnusableImage(f"it has {frames} frames: give them one by one")
            bits, inverted = _bits(image), _is_inverted(image)
            image.load()
            return Decoded(upright(image), bits, inverted)
    except UnusableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"it has more pixels than --max_pixels {max_pixels} allows: {error}") from error
    except Exception as error:  # a decoder may raise anything for damaged bytes
        raise UnusableImage(_reason(error)) from error


def upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored by its orientation tag; unreadable EXIF is ignored."""
    try:
        orientation = image.getexif().get(ORIENTATION)
        turn = TURNS.get(orientation)  # type: ignore[arg-type]
    except Exception:
        return image.copy()
    if turn is None:
        return image.copy()
    turned = image.transpose(turn)
    for place in PLACES_OF_EXIF:  # otherwise it would be turned again by whoever looks at the tag next
        turned.info.pop(place, None)
    return turned


def as_rgb(decoded: Decoded, background: str = "white") -> Image.Image:
    """RGB of 8 bits per channel, with transparent pixels over a background colour.

    Of 16 bits the upper 8 are used, for grey as well, as Pillow does for RGB.

    Raises:
        UnusableImage: integers of 32 bits or floating-point numbers, which have no fixed range.
    """
    image = decoded.image
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if decoded.bits > 16:
            raise UnusableImage(_unknown_range(image.mode, "integers of 32 bits or with a sign"))
        grey = (values >> (decoded.bits - 8)).astype(np.uint8)
        image = Image.fromarray(255 - grey if decoded.inverted else grey)
        if isinstance(transparent, int):
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    elif image.mode == "F":
        raise UnusableImage(_unknown_range("F", "floating-point numbers"))
    elif image.mode == "La":
        image = image.convert("LA")
    if image.mode not in WITH_ALPHA and (transparent is None or "transparency" not in image.info):
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def check_background(name: str, value: str) -> None:
    """Raises a ValueError that names the option unless the value is an opaque colour."""
    try:
        opaque = len(ImageColor.getrgb(value)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise ValueError(f"{name} must be the name of a colour or #rrggbb, got {value!r}")


def add_pixel_limit(parser: argparse.ArgumentParser) -> None:
    """Adds the option --max_pixels of commands that read images."""
    parser.add_argument(
        "--max_pixels", type=int, default=MAX_PIXELS,
        help=f"images of more are refused before they are decoded (default: {MAX_PIXELS})",
    )  # fmt: skip


def add_reading(parser: argparse.ArgumentParser, default: str = "that of the run") -> None:
    """Adds the options --max_pixels and --background, which :func:`reading_of` evaluates."""
    add_pixel_limit(parser)
    parser.add_argument(
        "--background",
        help=f"colour behind transparent pixels, a name or #rrggbb (default: {default})",
    )


def reading_of(options: argparse.Namespace, background: str = READING.background) -> Reading:
    """The reading that the options of :func:`add_reading` describe.

    Args:
        background: the default where the options have none.

    Raises:
        ValueError: not a colour.
    """
    if options.background is not None:
        check_background("--background", options.background)
        background = options.background
    return Reading(options.max_pixels, background)


def to_tensor(image: Image.Image) -> Tensor:
    """3 H W float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def to_image(image: Tensor) -> Image.Image:
    """3 H W in [0, 1] as an 8-bit image; values outside are clamped."""
    values = (image.detach().float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy())


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits per channel in the file of an image not yet decoded; 32 also stands for signed values."""
    if image.format == "TIFF" and image.mode not in ("I", "F"):
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 16  # 16-bit PNGs had mode I until Pillow 11
    if image.mode in ("I", "F"):
        return 32
    # All other modes have 8 bits; the decoder's arguments tell how many the file has.
    arguments = image.tile[0][3] if image.tile else ""
    if image.format == "PNG" and "16" in str(arguments):
        return 16
    if image.format == "PPM" and isinstance(arguments, tuple):
        return 16 if int(arguments[1]) > 255 else 8
    return 8


def _is_inverted(image: ImageFile.ImageFile) -> bool:
    """Whether it is a grey TIFF of more than 8 bits in which 0 is white."""
    return (
        image.format == "TIFF" and image.mode.startswith("I") and image.tag_v2.get(PHOTOMETRIC) == 0  # type: ignore[attr-defined]
    )


def _unknown_range(mode: str, what: str) -> str:
    return (
        f"its values are {what} (mode {mode}), of which nobody knows what is white: "
        "convert it to 8 or 16 bits first"
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TELLING) else f"{type(error).__name__}: {error}"
