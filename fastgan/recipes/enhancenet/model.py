"""A trained EnhanceNet: photographs made larger."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastgan.recipes.enhancenet.config import EnhanceNetConfig
from fastgan.recipes.enhancenet.networks import EnhanceNetGenerator, bicubic_upscale
from fastgan.recipes.enhancenet.tiles import upscale as upscale_tiles
from fastgan.training.image_files import to_image, to_tensor, upright
from fastgan.training.model import Exported, Given, Model, check_picture


class EnhanceNetModel(Model):
    """A trained generator, see :func:`fastgan.load`."""

    recipe = "enhancenet"
    config_class = EnhanceNetConfig
    names = ("generator",)
    config: EnhanceNetConfig
    generator: EnhanceNetGenerator

    @classmethod
    def make_networks(cls, config: EnhanceNetConfig, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        return {"generator": EnhanceNetGenerator(config.scale, config.width, config.blocks)}

    @property
    def scale(self) -> int:
        """Times by which height and width grow: 2 or 4."""
        return self.config.scale

    @torch.no_grad()
    def upscale(self, images: Given, tile: int = 256, overlap: int | None = None) -> Given:
        """The images `scale` times as high and wide.

        Args:
            images: N 3 H W or 3 H W in [0, 1]; or images of PIL with 1 or 8 bits per channel, of any size,
                see :func:`enlarge`.
            tile, overlap: see :func:`fastgan.recipes.enhancenet.tiles.upscale`.

        Returns:
            The kind that was given, in [0, 1].

        Raises:
            TypeError, ValueError: no such images, or a tile or an overlap out of range.
        """
        if isinstance(images, (list, tuple)) and images:  # which may be of several sizes
            return [self.upscale(image, tile, overlap) for image in images]  # type: ignore[return-value]
        if isinstance(images, Image.Image):
            check_picture("images", images)
            return enlarge(self.generator, upright(images), tile, overlap)  # type: ignore[return-value]
        low, give_back = self.taken("images", images)
        return give_back(upscale_tiles(self.generator, low.to(self.dtype), tile, overlap))

    def exported(self) -> dict[str, Exported]:
        def low(num: int) -> Tensor:
            random = torch.Generator().manual_seed(num)
            return torch.rand(num, 3, 12 + 2 * num, 14 + 3 * num, generator=random)

        return {"generator": Exported(self.generator, lambda num: {"low": low(num)}, "image")}


def check_depth(bits: int, mode: str) -> None:
    """Raises a ValueError for more than 8 bits per channel."""
    if bits > 8:
        raise ValueError(
            f"more than 8 bits per channel (mode {mode}) are not supported: convert it to 8 bits first"
        )


def enlarge(
    generator: EnhanceNetGenerator, image: Image.Image, tile: int = 256, overlap: int | None = None
) -> Image.Image:
    """The image `scale` times as high and wide, 8 bits per channel.

    Grey images stay grey (they are upscaled as RGB and reduced to luma), transparency is upscaled
    bicubically, palettes and CMYK become RGB.

    Args:
        image: of any size, with 1 or 8 bits per channel.
        tile, overlap: see :func:`fastgan.recipes.enhancenet.tiles.upscale`.

    Raises:
        ValueError: 16 or more bits per channel, all but 8 of which would be lost.
    """
    check_depth(16 if image.mode.startswith(("I", "F")) else 8, image.mode)
    if image.mode in ("La", "RGBa"):  # whose colours are multiplied by alpha
        image = image.convert(image.mode.upper())
    grey = image.mode in ("1", "L", "LA")
    weights = next(generator.parameters())

    def upscale_colour(colour: Image.Image) -> Tensor:
        return upscale_tiles(generator, to_tensor(colour)[None].to(weights), tile, overlap)[0]

    colour = to_image(upscale_colour(image.convert("RGB")))
    large = colour.convert("L") if grey else colour
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        values = torch.from_numpy(alpha.copy())[None, None].float() / 255
        large.putalpha(to_image(bicubic_upscale(values, generator.scale)[0].expand(3, -1, -1)).getchannel(0))
    return large
