"""Crops: the part of an image that a network sees."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps

from fastgan.ops._checks import check_one_of

CROPS = ("fit", "random", "slight", "native")

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""


def cut(image: Image.Image, size: tuple[int, int], crop: str, random: np.random.Generator) -> Image.Image:
    """Crops a part of an image and scales it to a size.

    Args:
        image: for "native", at least as large as `size`.
        size: (height, width).
        crop: "fit": the centre of the image, scaled to cover the size, as StegaStamp does.
            "random": a random part, up to four times the size.
            "slight": the whole image, squeezed into the size, or, as often, a random part of 0.8 to 1 of its
            area whose width is 0.9 to 1.1 times its height, as StarGAN v2 does.
            "native": a random part, not scaled.
            All but the first mirror half of the images.
        random: the generator of all draws.

    Raises:
        ValueError: an unknown crop.
    """
    check_one_of("crop", crop, CROPS)
    height, width = size
    if crop == "fit":
        return ImageOps.fit(image, (width, height))
    if crop == "native":
        x, y = (int(random.integers(room + 1)) for room in (image.width - width, image.height - height))
        part = image.crop((x, y, x + width, y + height))
    else:
        box = _random_box(image, size, random) if crop == "random" else _slight_box(image, random)
        part = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(part) if random.random() < 0.5 else part


def _random_box(image: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Box:
    height, width = size
    largest = min(image.width / width, image.height / height)
    scale = random.uniform(min(1.0, largest), min(4.0, largest))
    return _anywhere(image, scale * width, scale * height, random)


def _slight_box(image: Image.Image, random: np.random.Generator) -> Box:
    """The whole image or a part of it; after ten draws that do not fit, the largest central part."""
    if random.random() < 0.5:
        return 0, 0, image.width, image.height
    narrowest, widest = 0.9, 1.1
    for _ in range(10):
        area = random.uniform(0.8, 1.0) * image.width * image.height
        shape = math.exp(random.uniform(math.log(narrowest), math.log(widest)))
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)
        if width <= image.width and height <= image.height:
            return _anywhere(image, width, height, random)
    width, height = min(image.width, image.height * widest), min(image.height, image.width / narrowest)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return left, top, left + width, top + height


def _anywhere(image: Image.Image, width: float, height: float, random: np.random.Generator) -> Box:
    # Clamp, because rounding could exceed the image on either side.
    width, height = min(width, image.width), min(height, image.height)
    left = random.uniform(0, image.width - width)
    top = random.uniform(0, image.height - height)
    return left, top, min(left + width, image.width), min(top + height, image.height)
