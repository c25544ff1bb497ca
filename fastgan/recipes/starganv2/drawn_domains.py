"""`builtin:domains`: two rendered domains that show the same things in different styles.

Each 32x32 picture shows a disc, a square or a triangle at a random position, size and rotation. In the domain
`drawn` it is an outline of some colour and thickness on light paper; in `neon` it is filled with horizontal
or vertical stripes of a bright colour on a dark ground. A translation must keep shape and position; colours,
thickness and stripes are the style.
"""

from __future__ import annotations

import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, ENLARGED = 32, 4  # drawn four times as large, for smooth edges
DOMAINS = ("drawn", "neon")
COUNTS = {"train": 1000, "val": 100}
SEED = 2020
KINDS = (40, 4, 3)  # corners of a disc, a square and a triangle


def write_domains(folder: Path) -> None:
    """Writes train/DOMAIN/ (1000 PNGs each) and val/DOMAIN/ (100 each). No two show the same shape."""
    for part_number, (part, count) in enumerate(COUNTS.items()):
        for domain_number, domain in enumerate(DOMAINS):
            target = folder / part / domain
            target.mkdir(parents=True)
            for index in range(count):
                random = np.random.default_rng((SEED, part_number, domain_number, index))
                render(domain, random).save(target / f"{index:04d}.png")


def render(domain: str, random: np.random.Generator) -> Image.Image:
    """One picture of a domain, 32x32 RGB."""
    size = SIZE * ENLARGED
    shape = _shape(random)
    if domain == "drawn":
        picture = Image.new("RGB", (size, size), _color(random.random(), 0.12, 0.97))
        thickness = ENLARGED * random.uniform(1.5, 4.0)
        inner = Image.new("L", (size, size))
        ImageDraw.Draw(inner).polygon(shape, fill=255)
        # The line lies inside the shape, so that both domains show it at the same size.
        line = _outline(np.array(inner) > 0, round(thickness))
        picture.paste(_color(random.random(), 1.0, 0.55), mask=Image.fromarray(line.astype(np.uint8) * 255))
    else:
        ground = _color(random.random(), 0.6, 0.18)
        picture = Image.new("RGB", (size, size), ground)
        hue = random.random()
        bright, dim = (np.array(_color(hue, s, v), np.uint8) for s, v in ((0.75, 1.0), (1.0, 0.6)))
        period = 8 * ENLARGED
        bands = (np.arange(size) % period < period / 2)[:, None].repeat(size, 1)
        if random.random() < 0.5:
            bands = bands.T
        stripes = Image.fromarray(np.where(bands[..., None], bright, dim))
        mask = Image.new("L", (size, size))
        ImageDraw.Draw(mask).polygon(shape, fill=255)
        picture.paste(stripes, mask=mask)
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def _shape(random: np.random.Generator) -> list[tuple[float, float]]:
    """A polygon's corners in the enlarged picture, completely inside it."""
    corners = KINDS[random.integers(len(KINDS))]
    radius = random.uniform(8, 12)
    x, y = random.uniform(radius + 1, SIZE - radius - 1, 2)
    turn = random.uniform(0, 2 * math.pi)
    angles = [turn + 2 * math.pi * index / corners for index in range(corners)]
    return [
        (ENLARGED * (x + radius * math.cos(angle)), ENLARGED * (y + radius * math.sin(angle)))
        for angle in angles
    ]


def _outline(shape: np.ndarray, thickness: int) -> np.ndarray:
    """The part of a shape that lies within `thickness` pixels of its border."""
    inner = shape
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return shape & ~inner


def _color(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
