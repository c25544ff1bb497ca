"""`fastgan sample zi2zi`: text in a trained run's styles, or in interpolated ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.zi2zi.config import Zi2ZiConfig
from fastgan.recipes.zi2zi.data import read_about
from fastgan.recipes.zi2zi.fonts import Font, Geometry, common_geometry, split_choice
from fastgan.recipes.zi2zi.networks import Zi2ZiGenerator
from fastgan.recipes.zi2zi.recipe import make_generator
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.networks import load_network
from fastgan.training.outputs import add_overwrite, check_picture

COLUMNS = 16  # at most, of the picture of a text


@dataclass
class Writer:
    """A trained generator, and the run's information on its fonts."""

    generator: Zi2ZiGenerator
    config: Zi2ZiConfig
    about: dict
    """The run's glyphs.json; empty if there is none."""

    @classmethod
    def load(cls, path: str | Path) -> Writer:
        """Loads a checkpoint or a run's folder; averaged weights if the run kept them.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, or one of another recipe.
        """
        checkpoint = load_checkpoint(path, "zi2zi")
        config, weights = checkpoint.options(Zi2ZiConfig), checkpoint.trained("generator")
        embedding = weights.get("embedding.weight", torch.empty(0))
        generator = load_network(
            lambda: make_generator(config, embedding.shape[0] if embedding.dim() else 0),
            weights,
            checkpoint.path,
        )
        return cls(generator, config, read_about(checkpoint.path.parent.parent) or {})

    def category(self, name: str) -> int:
        """The number of a category, given by number or by its font's name.

        Raises:
            ValueError: there is no such category; lists the existing ones.
        """
        names = [category["name"] for category in self.about.get("categories", [])]
        if name in names:
            return names.index(name)
        count = self.generator.embedding.num_embeddings
        if name.isdecimal() and int(name) < count:
            return int(name)
        listed = "".join(
            f", {number} {printable(known)}" for number, known in enumerate(names) if known != str(number)
        )
        raise ValueError(f"there is no category {name!r}: they are 0 to {count - 1}{listed}")

    def font(self, chosen: str | None) -> Font:
        """The source font: the given one, or that of the run's data if its file still exists.

        Raises:
            FileNotFoundError, ValueError: no such file, or no known source font.
        """
        path = chosen or self.about.get("source", {}).get("path")
        if not path:
            raise ValueError("the run's data does not tell its source font: give --source-font")
        if chosen is None and not split_choice(path)[0].is_file():
            raise FileNotFoundError(
                f"the run's source font is not at {printable(path)} any more: give --source-font"
            )
        return Font(path)

    def render(self, text: str, font: Font) -> Tensor:
        """Renders the text's characters as in the run's data: N C H W in [-1, 1], with empty spaces.

        Raises:
            ValueError: no visible character, or characters missing from the font; names them.
        """
        visible = [c for c in dict.fromkeys(text) if not c.isspace()]
        if not visible:
            raise ValueError(f"the text has no character to draw, got {text!r}")
        missing = "".join(c for c in visible if not font.has(c))
        if missing:
            raise ValueError(f"{printable(font.path)} has no glyphs for {missing!r}")
        size = self.config.image_size
        glyphs = {c: font.draw(c, self._geometry(font, visible)).resize((size, size)) for c in visible}
        shape = (self.config.channels, size, size)
        empty = torch.ones(shape)
        drawn = {c: (pil_to_tensor(glyph) / 127.5 - 1).expand(shape) for c, glyph in glyphs.items()}
        return torch.stack([drawn.get(c, empty) for c in text])

    def _geometry(self, font: Font, characters: list[str]) -> Geometry:
        names = ("size", "pixels", "baseline")
        if all(name in self.about for name in names):
            return Geometry(*(self.about[name] for name in names))
        return common_geometry([font], characters, self.config.image_size)

    @torch.no_grad()
    def write(self, source: Tensor, style: Tensor) -> Tensor:
        """Glyphs in one style, N C H W in [0, 1]; empty sources stay empty.

        Args:
            source: see :meth:`render`.
            style: an embedding, (embedding_dim,).
        """
        parts = [self.generator(part, style.expand(len(part), -1)) for part in source.split(64)]
        empty = (source == 1).flatten(1).all(1)
        return torch.where(empty[:, None, None, None], 1.0, torch.cat(parts) / 2 + 0.5)


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample zi2zi", description="Text in the style of a category, or between two."
    )
    parser.add_argument("--checkpoint", required=True, help="run's folder, or checkpoint")
    parser.add_argument("--text", required=True, help="what to write")
    parser.add_argument("--category", help="number of the style, or its font's name")
    parser.add_argument(
        "--interpolate",
        nargs=2,
        metavar=("K1", "K2"),
        help="or from one to another, a row each step",
    )
    parser.add_argument("--steps", type=int, default=8, help="rows of --interpolate (default: 8)")
    parser.add_argument("--source-font", help="FILE or FILE#FACE (default: that of the run's data)")
    parser.add_argument("--output", required=True, type=Path, help="PNG or JPEG to write")
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    check_picture(options.output, options.overwrite)
    if (options.category is None) == (options.interpolate is None):
        raise ValueError("give either --category or --interpolate")
    if options.steps < 2:
        raise ValueError(f"--steps must be at least 2, got {options.steps}")
    writer = Writer.load(options.checkpoint)
    source = writer.render(options.text, writer.font(options.source_font))
    embedding = writer.generator.embedding.weight.detach()
    if options.interpolate:
        first, last = (embedding[writer.category(name)] for name in options.interpolate)
        parts = torch.linspace(0, 1, options.steps).tolist()
        images = torch.cat([writer.write(source, torch.lerp(first, last, part)) for part in parts])
        columns = len(source)
    else:
        images = writer.write(source, embedding[writer.category(options.category)])
        columns = min(len(source), COLUMNS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid(images, nrow=columns, padding=0), options.output)
    print(printable(options.output))
    return 0
