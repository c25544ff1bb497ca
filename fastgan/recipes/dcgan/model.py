"""A trained DCGAN: images from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from PIL import Image
from torch import Tensor, nn

from fastgan.ops._checks import as_flag, as_seed, as_whole_number, check_floating
from fastgan.recipes.dcgan.config import DCGANConfig
from fastgan.recipes.dcgan.networks import DCGANGenerator
from fastgan.training.model import Exported, Model, to_pil

SPLIT = 64  # images at a time


class DCGANModel(Model):
    """A trained generator, see :func:`fastgan.load`."""

    recipe = "dcgan"
    config_class = DCGANConfig
    names = ("generator",)
    config: DCGANConfig
    generator: DCGANGenerator

    @classmethod
    def make_networks(cls, config: DCGANConfig, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        return {"generator": make_generator(config)}

    def latents(self, num: int, seed: int = 0) -> Tensor:
        """Noise (num, z_dim) as in the training, on the model's device; for a seed the same on each."""
        num, seed = as_whole_number("num", num), as_seed("seed", seed)
        z = draw_latents(self.config, num, torch.Generator().manual_seed(seed))
        return z.to(self.device, self.dtype)

    @overload
    def generate(
        self, num: int = 1, seed: int = 0, *, z: Tensor | None = None, pil: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def generate(
        self, num: int = 1, seed: int = 0, *, z: Tensor | None = None, pil: Literal[True]
    ) -> list[Image.Image]: ...

    @torch.no_grad()
    def generate(
        self, num: int = 1, seed: int = 0, *, z: Tensor | None = None, pil: bool = False
    ) -> Tensor | list[Image.Image]:
        """Images from noise.

        Args:
            num: how many.
            seed: of the noise, see :meth:`latents`.
            z: noise (N, z_dim) in its place, of any floating-point type, on the model's device, such as
                interpolated; `num` and `seed` then do not count.
            pil: whether to give images of PIL.

        Returns:
            N C H W in [0, 1], in the dtype of `z` if it is given, else of the model; or a list of images.

        Raises:
            TypeError, ValueError: a number or seed out of range, or noise of another shape or device.
        """
        pil = as_flag("pil", pil)
        if z is None:
            z = self.latents(num, seed)
        else:
            check_floating("z", z)
            if z.dim() != 2 or z.shape[1] != self.config.z_dim or len(z) == 0:
                raise ValueError(f"z must have shape (N, {self.config.z_dim}), got {tuple(z.shape)}")
            if z.device != self.device:
                raise ValueError(f"z must be on the model's device, {self.device}, got {z.device}")
        images = torch.cat([self.generator(part) for part in z.to(self.dtype).split(SPLIT)])
        images = (images.to(self._exact) / 2 + 0.5).clamp(0, 1)
        return [to_pil(image) for image in images] if pil else images.to(z.dtype)

    def exported(self) -> dict[str, Exported]:
        return {"generator": Exported(self.generator, lambda num: {"z": self.latents(num)}, "image")}


def draw_latents(config: DCGANConfig, count: int, generator: torch.Generator) -> Tensor:
    """Latents (count, z_dim) on the device of the random generator."""
    shape = (count, config.z_dim)
    options: dict[str, Any] = {"device": generator.device, "dtype": torch.float32, "generator": generator}
    if config.latent == "uniform":
        return torch.rand(shape, **options) * 2 - 1
    return torch.randn(shape, **options)


def make_generator(config: DCGANConfig) -> DCGANGenerator:
    """Makes G as the configuration describes it."""
    return DCGANGenerator(config.image_size, config.channels, config.z_dim, config.g_width)
