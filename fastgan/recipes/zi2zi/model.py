"""A trained zi2zi: glyphs of one font in the style of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgan._names import printable
from fastgan.ops._checks import check_floating, check_instance
from fastgan.recipes.zi2zi.config import Zi2ZiConfig
from fastgan.recipes.zi2zi.data import is_valid_about, read_about
from fastgan.recipes.zi2zi.fonts import Font, Geometry, common_geometry, split_choice
from fastgan.recipes.zi2zi.networks import Zi2ZiGenerator
from fastgan.training.model import Exported, Given, Model

SPLIT = 64  # glyphs at a time


class Zi2ZiModel(Model):
    """A trained generator, and the run's information on its fonts, see :func:`fastgan.load`.

    `about` is the run's glyphs.json; empty if there is none.
    """

    recipe = "zi2zi"
    config_class = Zi2ZiConfig
    names = ("generator",)
    config: Zi2ZiConfig
    generator: Zi2ZiGenerator

    def __init__(
        self,
        config: Zi2ZiConfig,
        networks: Mapping[str, nn.Module],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, networks, about)
        if not is_valid_about(self.about):
            raise ValueError("what it says of its fonts is not as `fastgan data glyphs` writes it")

    @classmethod
    def make_networks(cls, config: Zi2ZiConfig, weights: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        embedding = weights.get("generator.embedding.weight", torch.empty(0))
        return {"generator": make_generator(config, embedding.shape[0] if embedding.dim() else 0)}

    @classmethod
    def read_about(cls, run_folder: Path) -> dict[str, Any]:
        return read_about(run_folder) or {}

    def about_elsewhere(self) -> dict[str, Any]:
        fonts = {**self.about, "categories": [dict(each) for each in self.about.get("categories", [])]}
        if "source" in fonts:
            fonts["source"] = dict(fonts["source"])
        for font in (fonts.get("source", {}), *fonts["categories"]):
            font.pop("path", None)
        return fonts

    @property
    def categories(self) -> list[str]:
        """Their fonts' names, or else their numbers."""
        names = [str(category["name"]) for category in self.about.get("categories", [])]
        count = self.generator.embedding.num_embeddings
        return names[:count] + [str(number) for number in range(len(names), count)]

    @torch.no_grad()
    def translate(self, images: Given, category: str | int | Tensor) -> Given:
        """Glyphs in the style of a category; empty ones stay empty.

        Args:
            images: glyphs of the source font on white, N C H W or C H W in [0, 1] of the run's size and
                channels, or images of PIL of that size; see :meth:`render`.
            category: the font's name in `categories`, or its number; or a style (embedding_dim,), or (N,
                embedding_dim) for each glyph its own, such as between those of :meth:`style_of`.

        Returns:
            The kind that was given.

        Raises:
            TypeError, ValueError: no such images, no such category, or styles of another shape.
        """
        style = self._style(category)
        config = self.config
        glyphs, give_back = self.taken("images", images, config.channels, config.image_size)
        if len(style) not in (1, len(glyphs)):
            raise ValueError(
                f"category must be one, or one for each of {len(glyphs)} images, got {len(style)}"
            )
        source = (glyphs * 2 - 1).to(self.dtype)
        parts = zip(source.split(SPLIT), style.expand(len(source), -1).split(SPLIT), strict=True)
        drawn = torch.cat([self.generator(part, part_style) for part, part_style in parts])
        empty = (glyphs == 1).flatten(1).all(1)[:, None, None, None]
        return give_back(torch.where(empty, 1.0, drawn.to(glyphs.dtype) / 2 + 0.5))

    def style_of(self, category: str | int) -> Tensor:
        """The style of a category, (embedding_dim,), a copy; see :meth:`translate`.

        Raises:
            ValueError: there is no such category; the existing ones are listed.
        """
        return self.generator.embedding.weight.detach()[self._number(category)].clone()

    def _number(self, category: str | int) -> int:
        names, text = [str(each["name"]) for each in self.about.get("categories", [])], str(category)
        count = self.generator.embedding.num_embeddings
        if isinstance(category, str) and category in names[:count]:
            return names.index(category)
        if not isinstance(category, bool) and text.isascii() and text.isdecimal() and int(text) < count:
            return int(text)
        listed = "".join(
            f", {number} {printable(known)}" for number, known in enumerate(names) if known != str(number)
        )
        raise ValueError(f"there is no category {text!r}: they are 0 to {count - 1}{listed}")

    def _style(self, category: str | int | Tensor) -> Tensor:
        if not isinstance(category, Tensor):
            return self.style_of(category)[None]
        check_floating("category", category)
        length = self.config.embedding_dim
        if category.dim() not in (1, 2) or category.shape[-1] != length:
            raise ValueError(
                f"category must be a name, a number, or of shape (N, {length}) or ({length},), got "
                f"{tuple(category.shape)}"
            )
        return category.reshape(-1, length).to(self.device, self.dtype)

    def render(self, text: str, font: str | Path | None = None) -> Tensor:
        """Renders the text's characters as in the run's data: N C H W in [0, 1], with empty spaces.

        Args:
            font: the source font, FILE or FILE#FACE; None: that of the run's data, if its file still exists.

        Raises:
            FileNotFoundError: no such file.
            TypeError: a text or a font of another kind.
            ValueError: no known source font; no visible character, or characters missing from the font.
        """
        check_instance("text", text, str, "a str")
        source = self._font(font)
        visible = [c for c in dict.fromkeys(text) if not c.isspace()]
        if not visible:
            raise ValueError(f"the text has no character to draw, got {text!r}")
        missing = "".join(c for c in visible if not source.has(c))
        if missing:
            raise ValueError(f"{printable(source.path)} has no glyphs for {missing!r}")
        size, geometry = self.config.image_size, self._geometry(source, visible)
        drawn = {c: np.array(source.draw(c, geometry).resize((size, size))) for c in visible}
        empty = np.full((size, size), 255, dtype=np.uint8)
        glyphs = torch.from_numpy(np.stack([drawn.get(c, empty) for c in text]))[:, None].float() / 255
        return glyphs.expand(-1, self.config.channels, -1, -1).to(self.device)

    def _font(self, chosen: str | Path | None) -> Font:
        if chosen is not None:
            check_instance("font", chosen, (str, Path), "a str or a Path")
        path = self.about.get("source", {}).get("path") if chosen is None else chosen
        if not path:
            raise ValueError("the run's data does not tell its source font: give font (--source-font)")
        if chosen is None and not split_choice(path)[0].is_file():
            raise FileNotFoundError(
                f"the run's source font is not at {printable(path)} any more: give font (--source-font)"
            )
        return Font(path)

    def _geometry(self, font: Font, characters: list[str]) -> Geometry:
        names = ("size", "pixels", "baseline")
        if all(name in self.about for name in names):
            return Geometry(*(self.about[name] for name in names))
        return common_geometry([font], characters, self.config.image_size)

    def exported(self) -> dict[str, Exported]:
        config, count = self.config, self.generator.embedding.num_embeddings

        def inputs(num: int) -> dict[str, Tensor]:
            shape = (num, config.channels, config.image_size, config.image_size)
            image = torch.rand(shape, generator=torch.Generator().manual_seed(num)) * 2 - 1
            return {"image": image, "category": torch.arange(num) % count}

        return {"generator": Exported(self.generator, inputs, "drawn")}


def make_generator(config: Zi2ZiConfig, category_num: int) -> Zi2ZiGenerator:
    """Makes G as the configuration describes it."""
    return Zi2ZiGenerator(
        config.image_size, config.channels, category_num, config.width, config.embedding_dim,
        config.downs, config.norm, config.dropout, config.self_attention,
    )  # fmt: skip
