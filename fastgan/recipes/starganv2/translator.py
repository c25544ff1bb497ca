"""Translation by a trained StarGAN v2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgan.recipes.starganv2.config import StarGANv2Config
from fastgan.recipes.starganv2.networks import MappingNetwork, StarGANv2Generator, StyleEncoder

SPLIT = 32  # images at a time


@dataclass
class Translator:
    """The networks that translate."""

    generator: nn.Module | StarGANv2Generator
    mapping_network: nn.Module | MappingNetwork
    style_encoder: nn.Module | StyleEncoder

    def in_style(self, images: Tensor, styles: Tensor) -> Tensor:
        """Translates images N C H W into the styles (N, style_dim)."""
        parts = zip(images.split(SPLIT), styles.split(SPLIT), strict=True)
        return torch.cat([self.generator(part, part_styles) for part, part_styles in parts])

    def style_of(self, images: Tensor, domain: int) -> Tensor:
        """The styles of images of a domain, (N, style_dim)."""
        return torch.cat(
            [self.style_encoder(part, self._labels(part, domain)) for part in images.split(SPLIT)]
        )

    def random_styles(self, z: Tensor, domain: int) -> Tensor:
        """Styles of a domain from noise (N, z_dim): (N, style_dim)."""
        return self.mapping_network(z, self._labels(z, domain))

    @staticmethod
    def _labels(samples: Tensor, domain: int) -> Tensor:
        return torch.full((len(samples),), domain, device=samples.device)


def make_networks(config: StarGANv2Config) -> tuple[StarGANv2Generator, MappingNetwork, StyleEncoder]:
    """Makes the networks that translate; the configuration's `domains` must be set."""
    channels, size, _ = config.shape
    widths, count = (config.base_width, config.max_width), len(config.domains)
    return (
        StarGANv2Generator(size, channels, config.style_dim, *widths, config.downs),
        MappingNetwork(count, config.z_dim, config.style_dim, config.mapping_width),
        StyleEncoder(count, size, channels, config.style_dim, *widths),
    )
