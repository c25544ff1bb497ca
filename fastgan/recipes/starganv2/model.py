"""A trained StarGAN v2: images or latents of one domain in the style of another."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from fastgan.ops._checks import as_seed, as_whole_number, check_floating, check_one_of, described
from fastgan.recipes.starganv2.config import StarGANv2Config
from fastgan.recipes.starganv2.latents import Pictures, encode
from fastgan.recipes.starganv2.networks import MappingNetwork, StarGANv2Generator, StyleEncoder
from fastgan.recipes.starganv2.translator import Translator, make_networks
from fastgan.training.model import Exported, GiveBack, Given, Images, Model, check_images, like, to_pil


class StarGANv2Model(Model):
    """A trained generator with mapping network and style encoder, see :func:`fastgan.load`."""

    recipe = "starganv2"
    config_class = StarGANv2Config
    names = ("generator", "mapping_network", "style_encoder")
    config: StarGANv2Config
    generator: StarGANv2Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    vae: str
    """Folder of the VAE that encodes and decodes PIL's images, for a run on latents: at first the run's; it
    is loaded when it is needed. "": none."""

    def __init__(
        self,
        config: StarGANv2Config,
        networks: Mapping[str, nn.Module],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, networks, about)
        self.vae = config.vae
        self._pictures: tuple[object, Pictures] | None = None

    @classmethod
    def make_networks(cls, config: StarGANv2Config, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        return dict(zip(cls.names, make_networks(config), strict=True))

    @property
    def domains(self) -> tuple[str, ...]:
        """Their names."""
        return self.config.domains

    @property
    def translator(self) -> Translator:
        """The networks; takes and gives images as these do, in [-1, 1], or scaled latents."""
        return Translator(self.generator, self.mapping_network, self.style_encoder)

    @property
    def pictures(self) -> Pictures:
        """Converts input and output of the networks to pictures in [0, 1].

        Raises:
            FileNotFoundError, ValueError, ModuleNotFoundError: there is a VAE to load, but it cannot be.
        """
        wanted = (self.vae, self.device)
        if self._pictures is None or self._pictures[0] != wanted:
            config = self.config
            self._pictures = wanted, Pictures(config.data, config.latent_scale, self.vae, self.device)
        return self._pictures[1]

    @torch.no_grad()
    def translate(
        self,
        images: Given,
        domain: str | int,
        *,
        reference: Images | None = None,
        style: Tensor | None = None,
        seed: int = 0,
    ) -> Given:
        """Images in the style of another domain: a reference's, or one from noise.

        Args:
            images: N 3 H W or 3 H W in [0, 1] of the run's size, or images of PIL, which are scaled and cut
                to it. For a run on latents: N C H W or C H W, not scaled, as `fastgan data encode-latents`
                writes them; or images of PIL, which the VAE encodes.
            domain: the target's name, or its number in `domains`.
            reference: an image of that domain, or one for each of `images`.
            style: style codes (style_dim,) or (N, style_dim), see :meth:`style_of`, :meth:`random_styles`.
            seed: of the noise, if neither is given: each image gets a style of its own.

        Returns:
            The kind that was given.

        Raises:
            FileNotFoundError, TypeError, ValueError: no such images, an unknown domain, both `reference` and
                `style`, styles of another number or length; no VAE for images of PIL.
        """
        number = self._domain(domain)
        x, give_back = self._inputs("images", images)
        if reference is not None and style is not None:
            raise ValueError("give either reference or style, not both")
        if reference is not None:
            styles = self.style_of(reference, domain)
        elif style is not None:
            styles = self._styles(style)
        else:
            styles = self.random_styles(len(x), number, seed)
        if len(styles) not in (1, len(x)):
            name = "reference" if style is None else "style"
            raise ValueError(f"{name} must be one, or one for each of {len(x)} images, got {len(styles)}")
        return give_back(self.translator.in_style(x, styles.expand(len(x), -1)))

    @torch.no_grad()
    def style_of(self, images: Images, domain: str | int) -> Tensor:
        """Style codes (N, style_dim) of images of a domain; arguments as for :meth:`translate`."""
        number = self._domain(domain)
        return self.translator.style_of(self._inputs("reference", images)[0], number)

    @torch.no_grad()
    def random_styles(self, num: int, domain: str | int, seed: int = 0) -> Tensor:
        """Style codes (num, style_dim) of a domain, from noise that is the same for a seed on each device."""
        number, random = self._domain(domain), torch.Generator().manual_seed(as_seed("seed", seed))
        shape = (as_whole_number("num", num), self.config.z_dim)
        z = torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
        return self.translator.random_styles(z.to(self.device, self.dtype), number)

    def _domain(self, domain: str | int) -> int:
        if isinstance(domain, numbers.Integral) and not isinstance(domain, bool):
            if not 0 <= domain < len(self.domains):
                raise ValueError(f"domain must lie in [0, {len(self.domains) - 1}], got {domain}")
            return int(domain)
        check_one_of("domain", domain, self.domains)
        return self.domains.index(domain)

    def _styles(self, style: Tensor) -> Tensor:
        check_floating("style", style)
        length = self.config.style_dim
        if style.dim() not in (1, 2) or style.shape[-1] != length:
            raise ValueError(f"style must have shape (N, {length}) or ({length},), got {tuple(style.shape)}")
        return style.reshape(-1, length).to(self.device, self.dtype)

    def _inputs(self, name: str, images: Images) -> tuple[Tensor, GiveBack]:
        """Images as the networks take them, and the function that gives results back in their kind."""
        if self.config.data == "images":
            x, give_back = self.taken(name, images, size=self.config.image_size, prepare=self.fitted)
            return (x * 2 - 1).to(self.dtype), lambda y: give_back(y.to(x.dtype) / 2 + 0.5)
        if isinstance(images, Tensor):
            return self._latents(name, images)
        vae = self.pictures.vae
        if vae is None:
            raise ValueError(
                f"{name} must be latents, got {described(images)}: this run is on latents, and images of PIL "
                "need a VAE, whose folder is the attribute vae"
            )
        pixels, _ = self.taken(name, images, prepare=self.fitted)
        several = isinstance(images, (list, tuple))

        def decoded(y: Tensor) -> list[Image.Image] | Image.Image:
            made = [to_pil(picture) for picture in self.pictures(y)]
            return made if several else made[0]

        return (encode(vae, pixels.float()) * self.config.latent_scale).to(self.dtype), decoded

    def _latents(self, name: str, latents: Tensor) -> tuple[Tensor, GiveBack]:
        channels, size, _ = self.config.shape
        check_images(name, latents, channels, self.device)
        if latents.shape[-2:] != (size, size):
            shape = tuple(latents.shape[-2:])
            raise ValueError(f"{name} must be latents of {size}x{size}, got {shape[0]}x{shape[1]}")
        batch = (latents if latents.dim() == 4 else latents[None]).to(self._exact)
        scale = self.config.latent_scale
        return (batch * scale).to(self.dtype), lambda y: like(y.to(batch.dtype) / scale, latents)

    def fitted(self, image: Image.Image) -> Image.Image:
        """An image of PIL scaled and cut to the run's size, or to that which the VAE encodes to it."""
        size = self.config.image_size
        if self.config.data == "latents" and self.pictures.vae is not None:
            size *= 2 ** (len(self.pictures.vae.config.block_out_channels) - 1)
        return ImageOps.fit(image, (size, size))

    def exported(self) -> dict[str, Exported]:
        config, count = self.config, len(self.domains)

        def random(num: int, *shape: int) -> Tensor:
            return torch.randn(num, *shape, generator=torch.Generator().manual_seed(num))

        def image(num: int) -> Tensor:
            return random(num, *config.shape).clamp(-1, 1)

        def domain(num: int) -> Tensor:
            return torch.arange(num) % count

        return {
            "generator": Exported(
                self.generator,
                lambda num: {"image": image(num), "style": random(num, config.style_dim)},
                "translated",
            ),
            "mapping_network": Exported(
                self.mapping_network,
                lambda num: {"z": random(num, config.z_dim), "domain": domain(num)},
                "style",
            ),
            "style_encoder": Exported(
                self.style_encoder, lambda num: {"image": image(num), "domain": domain(num)}, "style"
            ),
        }
