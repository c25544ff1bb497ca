"""`fastgan sample starganv2`: images translated by a trained run, in styles from references or from noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.ops._checks import check_one_of
from fastgan.recipes.starganv2.data import LATENT_EXTENSIONS, find_local_latents, read_latent
from fastgan.recipes.starganv2.latents import encode
from fastgan.recipes.starganv2.model import StarGANv2Model
from fastgan.training.built_in import PREFIX, data_folder
from fastgan.training.data import find_local_images
from fastgan.training.image_files import (
    Reading,
    add_reading,
    naming_image,
    read_image,
    reading_of,
    to_tensor,
)  # fmt: skip
from fastgan.training.outputs import add_overwrite, check_apart, check_not_read, check_picture
from fastgan.training.values import check_seed


@dataclass
class Inputs:
    """Reads files as the networks of a trained run take them."""

    model: StarGANv2Model
    reading: Reading
    """How image files are read."""

    def read(self, source: str, at_most: int) -> Tensor:
        """Reads a file, or the first readable files of a folder, to N C H W as the networks take them.

        Unreadable files of a folder are skipped; each is counted and named in a UserWarning.

        Raises:
            FileNotFoundError, ValueError: no such file, an unreadable one, or a folder without a readable
                one.
        """
        files = self.files(source)
        if Path(source).is_file():
            return self._read(files[0])[None]
        if len(files) > at_most:
            print(f"{printable(source)} has {len(files)} files: the first {at_most} are taken")
        read: list[Tensor] = []
        skipped: list[ValueError] = []
        for path in files:
            if len(read) == at_most:
                break
            try:
                read.append(self._read(path))
            except ValueError as error:
                skipped.append(error)
                warn(f"skipped unusable file {len(skipped)}: {printable(error)}", UserWarning)
        if not read:
            raise ValueError(
                f"none of the {len(files)} files of {printable(source)} can be used, e.g. {skipped[0]}"
            )
        return torch.stack(read)

    def files(self, source: str) -> list[Path]:
        """The file itself, or the files of a folder, see :meth:`read`."""
        path = Path(source)
        if path.is_file():
            return [path]
        if not path.is_dir() and not source.startswith(PREFIX):
            raise FileNotFoundError(f"no such file or folder: {printable(source)}")
        folder = data_folder(source)
        if self.model.config.data == "images":
            return find_local_images(folder)
        try:
            return find_local_latents(folder)
        except ValueError:
            if self.model.pictures.vae is None:
                raise
            return find_local_images(folder)

    def _read(self, path: Path) -> Tensor:
        config = self.model.config
        if config.data == "latents" and path.suffix.lower() in LATENT_EXTENSIONS:
            return read_latent(path, config.shape) * config.latent_scale
        vae = self.model.pictures.vae if config.data == "latents" else None
        if config.data == "latents" and vae is None:
            raise ValueError(
                f"{printable(path)} is no latent ({', '.join(LATENT_EXTENSIONS)}): images need --vae"
            )
        with naming_image(path):
            image = to_tensor(self.model.fitted(read_image(path, self.reading)))
        if config.data == "images":
            return image * 2 - 1
        return encode(vae, image[None])[0] * config.latent_scale


@torch.no_grad()
def translation_grid(model: StarGANv2Model, sources: Tensor, styles: Tensor, heads: Tensor | None) -> Tensor:
    """A picture 3 H W: sources in the first row, then each row in one style.

    Args:
        sources: N C H W.
        styles: (M, style_dim), one for each row.
        heads: M C H W, the references, shown in the first column; None: no such column.
    """
    rows = [model.pictures(sources)]
    rows += [
        model.pictures(model.translator.in_style(sources, style.expand(len(sources), -1))) for style in styles
    ]
    if heads is not None:
        pictures = model.pictures(heads)
        first = torch.cat([torch.ones_like(pictures[:1]), pictures])
        rows = [torch.cat([head[None], row]) for head, row in zip(first, rows, strict=True)]
    return make_grid(torch.cat(rows), nrow=len(rows[0]), pad_value=1.0)


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample starganv2",
        description="Translates images into a domain. The grid's first row has the sources; with references, "
        "its first column has those.",
    )
    parser.add_argument("--checkpoint", required=True, help="run's folder, checkpoint or model.safetensors")
    parser.add_argument("--source", required=True, help="image or latent, or a folder of them")
    parser.add_argument("--target_domain", required=True, help="name of its folder in training")
    parser.add_argument("--reference", help="images of the target domain: each row has the style of one")
    parser.add_argument("--num", type=int, help="or so many rows in styles from noise (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of that noise (default: 0)")
    parser.add_argument("--max_images", type=int, default=8, help="of a folder, at most (default: 8)")
    add_reading(parser)
    parser.add_argument("--vae", default="", help="VAE's folder, for runs on latents")
    parser.add_argument("--output", required=True, type=Path, help="PNG or JPEG to write")
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    check_picture(options.output, options.overwrite)
    if options.reference is not None and options.num is not None:
        parser.error("give either --reference or --num")
    number = 4 if options.num is None else options.num
    for name, value in (("num", number), ("max_images", options.max_images)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    check_seed("--seed", options.seed)
    model = StarGANv2Model.load(options.checkpoint)
    config = model.config
    if options.vae and config.data != "latents":
        raise ValueError(
            f"--vae is for runs on latents; {printable(options.checkpoint)} was trained on images"
        )
    model.vae = options.vae or model.vae
    inputs = Inputs(model, reading_of(options, config.background))
    check_one_of("--target_domain", options.target_domain, config.domains)
    for path in filter(None, (options.source, options.reference)):
        check_not_read([options.output], inputs.files(path), "translate", "--output")
        if Path(path).is_dir():
            check_apart(options.output, Path(path), "--output")
    sources, heads = inputs.read(options.source, options.max_images), None
    if options.reference is not None:
        heads = inputs.read(options.reference, options.max_images)
        with torch.no_grad():
            styles = model.translator.style_of(heads, config.domains.index(options.target_domain))
    else:
        styles = model.random_styles(number, options.target_domain, options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_image(translation_grid(model, sources, styles, heads), options.output)
    print(printable(options.output))
    return 0
