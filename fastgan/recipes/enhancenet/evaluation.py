"""Held-out figures: how close upscaled photographs come to the originals, compared with bicubic ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.metrics import psnr_y, ssim_y
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator, bicubic_upscale, low_resolution
from fastgan.recipes.enhancenet.tiles import upscale
from fastgan.training.image_files import READING, Reading, UnusableImage, read_image, to_tensor
from fastgan.training.shards.paths import File


def read_held_out(
    files: Sequence[File], count: int, scale: int, largest: int, reading: Reading = READING
) -> list[Tensor]:
    """The first `count` usable photographs, 3 H W in [0, 1], with sides cropped to multiples of the scale.

    Args:
        largest: they are cropped to at most this height and width, at the centre; 0: no limit.
        reading: how files are read.

    Raises:
        ValueError: none can be used. Unusable ones are skipped with a warning.
    """
    # SSIM needs 11 pixels inside the excluded border.
    smallest = 11 + 2 * scale
    images: list[Tensor] = []
    reason = ""
    for path in files:
        if len(images) == count:
            break
        try:
            image = to_tensor(read_image(path, reading))
            height, width = image.shape[1:]
            if min(height, width) < smallest + scale - 1:
                raise UnusableImage(f"its size, {height}x{width}, is too small for figures at scale {scale}")
        except UnusableImage as error:
            reason = f"{printable(path)} ({printable(error)})"
            warn(f"skipped unusable held-out image: {reason}", UserWarning)
            continue
        height, width = (min(side, largest or side) // scale * scale for side in (height, width))
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        images.append(image[:, top : top + height, left : left + width].contiguous())
    if not images:
        raise ValueError(f"none of the {len(files)} held-out images can be used, e.g. {reason}")
    return images


def fixed_cuts(images: list[Tensor], count: int, size: int, scale: int) -> Tensor:
    """`count` fixed crops of photographs: N 3 s s, where s is at most `size`.

    Args:
        scale: s is a multiple of it.
    """
    size = min(size, *(min(image.shape[1:]) for image in images)) // scale * scale
    random = np.random.default_rng(0)
    cuts = []
    for number in range(count):
        image = images[number % len(images)]
        top, left = (int(random.integers(side - size + 1)) for side in image.shape[1:])
        cuts.append(image[:, top : top + size, left : left + size])
    return torch.stack(cuts)


def to_8_bits(image: Tensor) -> Tensor:
    """Rounds to 8 bits, as saving to a file does."""
    return (image.clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def evaluate_upscaling(
    generator: EnhanceNetGenerator, images: list[Tensor], lpips: nn.Module | None = None
) -> dict[str, float]:
    """Mean PSNR and SSIM on luma, and mean LPIPS, of the photographs, and the same for bicubic upscaling.

    The photographs are downscaled by antialiased bicubic filtering; these and the upscaled ones are rounded
    to 8 bits. PSNR and SSIM exclude `scale` pixels on each side.

    Args:
        images: 3 H W in [0, 1], sides multiples of the scale, on the generator's device.
    """
    figures: dict[str, float] = {}
    for image in images:
        original = image[None]
        low = low_resolution(original, generator.scale)
        for name, upscaled in (
            ("", upscale(generator, low)), ("_bicubic", bicubic_upscale(low, generator.scale))
        ):  # fmt: skip
            upscaled = to_8_bits(upscaled)
            scores = {
                f"psnr_y{name}": psnr_y(upscaled, original, generator.scale),
                f"ssim_y{name}": ssim_y(upscaled, original, generator.scale),
            }
            if lpips is not None:
                scores[f"lpips{name}"] = lpips(upscaled, original)
            for key, value in scores.items():
                figures[key] = figures.get(key, 0.0) + value.item() / len(images)
    return dict(sorted(figures.items(), key=lambda item: ("psnr", "ssim", "lpip").index(item[0][:4])))
