"""`fastgan sample starganv2`: images translated by a trained run, in styles from references or from noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ImageOps
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.ops._checks import check_one_of
from fastgan.recipes.starganv2.config import StarGANv2Config
from fastgan.recipes.starganv2.data import LATENT_EXTENSIONS, find_latents, read_latent
from fastgan.recipes.starganv2.latents import Pictures, encode
from fastgan.recipes.starganv2.translator import Translator, make_networks
from fastgan.training.built_in import PREFIX
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.data import find_images
from fastgan.training.image_files import (
    Reading,
    add_reading,
    naming_image,
    read_image,
    reading_of,
    to_tensor,
)  # fmt: skip
from fastgan.training.networks import load_network
from fastgan.training.outputs import add_overwrite, check_apart, check_not_read, check_picture
from fastgan.training.values import check_seed

NETWORKS = ("generator", "mapping_network", "style_encoder")


@dataclass
class Sampler:
    """A trained run, ready to translate."""

    translator: Translator
    config: StarGANv2Config
    pictures: Pictures
    reading: Reading
    """How image files are read."""

    @classmethod
    def load(cls, path: str | Path, vae: str = "", reading: Reading | None = None) -> Sampler:
        """Loads a checkpoint or a run's folder; averaged weights if the run kept them.

        Args:
            vae: folder of the VAE that encodes images and decodes latents; empty: that of the run, if it had
                one.
            reading: how image files are read; None: as in the run.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, one of another recipe, or no VAE.
        """
        checkpoint = load_checkpoint(path, "starganv2")
        config = checkpoint.options(StarGANv2Config)
        if vae and config.data != "latents":
            raise ValueError(
                f"--vae is for runs on latents; {printable(checkpoint.path)} was trained on images"
            )
        networks = load_network(
            lambda: nn.ModuleDict(dict(zip(NETWORKS, make_networks(config), strict=True))),
            {f"{name}.{key}": w for name in NETWORKS for key, w in checkpoint.trained(name).items()},
            checkpoint.path,
        ).requires_grad_(False)
        pictures = Pictures(config.data, config.latent_scale, vae or config.vae)
        return cls(Translator(**networks), config, pictures, reading or config.reading)

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
        if self.config.data == "images":
            return find_images(source)
        try:
            return find_latents(source)
        except ValueError:
            if self.pictures.vae is None:
                raise
            return find_images(source)

    def _read(self, path: Path) -> Tensor:
        config, size = self.config, self.config.image_size
        if config.data == "latents" and path.suffix.lower() in LATENT_EXTENSIONS:
            return read_latent(path, config.shape) * config.latent_scale
        vae = self.pictures.vae
        if config.data == "latents":
            if vae is None:
                raise ValueError(
                    f"{printable(path)} is no latent ({', '.join(LATENT_EXTENSIONS)}): images need --vae"
                )
            size *= 2 ** (len(vae.config.block_out_channels) - 1)
        with naming_image(path):
            image = to_tensor(ImageOps.fit(read_image(path, self.reading), (size, size)))
        if config.data == "images":
            return image * 2 - 1
        return encode(vae, image[None])[0] * config.latent_scale


@torch.no_grad()
def translation_grid(sampler: Sampler, sources: Tensor, styles: Tensor, heads: Tensor | None) -> Tensor:
    """A picture 3 H W: sources in the first row, then each row in one style.

    Args:
        sources: N C H W.
        styles: (M, style_dim), one for each row.
        heads: M C H W, the references, shown in the first column; None: no such column.
    """
    rows = [sampler.pictures(sources)]
    rows += [
        sampler.pictures(sampler.translator.in_style(sources, style.expand(len(sources), -1)))
        for style in styles
    ]
    if heads is not None:
        pictures = sampler.pictures(heads)
        first = torch.cat([torch.ones_like(pictures[:1]), pictures])
        rows = [torch.cat([head[None], row]) for head, row in zip(first, rows, strict=True)]
    return make_grid(torch.cat(rows), nrow=len(rows[0]), pad_value=1.0)


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample starganv2",
        description="Translates images into a domain. The grid's first row has the sources; with references, "
        "its first column has those.",
    )
    parser.add_argument("--checkpoint", required=True, help="run's folder, or checkpoint")
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
    sampler = Sampler.load(options.checkpoint, options.vae)
    sampler.reading = reading_of(options, sampler.config.background)
    config, translator = sampler.config, sampler.translator
    check_one_of("--target_domain", options.target_domain, config.domains)
    target = config.domains.index(options.target_domain)
    for path in filter(None, (options.source, options.reference)):
        check_not_read([options.output], sampler.files(path), "translate", "--output")
        if Path(path).is_dir():
            check_apart(options.output, Path(path), "--output")
    sources = sampler.read(options.source, options.max_images)
    with torch.no_grad():
        if options.reference is not None:
            heads: Tensor | None = sampler.read(options.reference, options.max_images)
            styles = translator.style_of(heads, target)  # type: ignore[arg-type]
        else:
            random = torch.Generator().manual_seed(options.seed)
            heads, z = None, torch.randn(number, config.z_dim, generator=random)
            styles = translator.random_styles(z, target)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_image(translation_grid(sampler, sources, styles, heads), options.output)
    print(printable(options.output))
    return 0
