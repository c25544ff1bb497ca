"""Held-out figures: how near the upscaled photographs come to the originals, beside bicubic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastgan._warnings import warn
from fastgan.metrics import psnr_y, ssim_y
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator, bicubic_upscale, low_resolution
from fastgan.recipes.enhancenet.tiles import upscale
from fastgan.training.image_files import READING, Reading, UnusableImage, read_image, to_tensor
from fastgan.training.names import printable


def read_held_out(
    files: list[Path], count: int, scale: int, largest: int, reading: Reading = READING
) -> list[Tensor]:
    """The first `count` photographs that can be used, 3 H W in [0, 1], sides cut to multiples of the scale.

    Args:
        largest: they are cut to this height and width, at the centre; 0: not.
        reading: how files are read.

    Raises:
        ValueError: none can be used. Others are skipped with a warning.
    """
    # SSIM needs 11 pixels within the border that is left out.
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
    """`count` parts of photographs, always the same: N 3 s s, where s is at most `size`.

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
    """As saving it as a file does."""
    return (image.clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def evaluate_upscaling(
    generator: EnhanceNetGenerator, images: list[Tensor], lpips: nn.Module | None = None
) -> dict[str, float]:
    """Means over the photographs of PSNR and SSIM on luma, and of LPIPS, each with that of bicubic upscaling.

    The photographs are made smaller by antialiased bicubic filtering and rounded to 8 bits, and so are the
    upscaled ones rounded. `scale` pixels on each side do not count for PSNR and SSIM.

    Args:
        images: 3 H W in [0, 1], sides multiples of the scale, on the generator's device.
    """
    figures: dict[str, float] = {}
    for image in images:
        original = image[None]
        low = low_resolution(original, generator.scale)
        for name, made in (
            ("", upscale(generator, low)), ("_bicubic", bicubic_upscale(low, generator.scale))
        ):  # fmt: skip
            made = to_8_bits(made)
            found = {
                f"psnr_y{name}": psnr_y(made, original, generator.scale),
                f"ssim_y{name}": ssim_y(made, original, generator.scale),
            }
            if lpips is not None:
                found[f"lpips{name}"] = lpips(made, original)
            for key, value in found.items():
                figures[key] = figures.get(key, 0.0) + value.item() / len(images)
    return dict(sorted(figures.items(), key=lambda item: ("psnr", "ssim", "lpip").index(item[0][:4])))
