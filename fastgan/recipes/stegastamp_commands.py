"""`fastgan stegastamp encode` and `decode`: a message into a photograph, and out of it again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from fastgan.models.stegastamp import StegaStampDecoder, StegaStampEncoder
from fastgan.recipes.stegastamp_config import StegaStampConfig
from fastgan.recipes.stegastamp_message import bits_to_message, message_to_bits, raw_bits
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.config import from_plain
from fastgan.training.data import UNREADABLE, find_images, read_image, to_tensor
from fastgan.training.images import to_image


@dataclass
class Stamper:
    """A trained encoder and decoder."""

    encoder: StegaStampEncoder
    decoder: StegaStampDecoder
    config: StegaStampConfig

    @classmethod
    def load(cls, path: str | Path) -> Stamper:
        """From a checkpoint or a run's folder; averaged weights where the run kept them.

        Raises:
            FileNotFoundError, ValueError: no checkpoint, or one of another recipe.
        """
        checkpoint = load_checkpoint(path, "stegastamp")
        config = from_plain(StegaStampConfig, checkpoint.config)
        encoder = StegaStampEncoder(config.secret_size, config.image_size)
        decoder = StegaStampDecoder(config.secret_size, config.image_size)
        encoder.load_state_dict(checkpoint.trained("encoder"))
        decoder.load_state_dict(checkpoint.trained("decoder"))
        return cls(encoder.eval(), decoder.eval(), config)

    @torch.no_grad()
    def stamp(self, image: Image.Image, secret: Tensor, full_size: bool) -> tuple[Tensor, Tensor]:
        """(stamped, residual), each 3 H W; stamped in [0, 1].

        Args:
            secret: (secret_size,) of 0. and 1.
            full_size: keep the photograph's size and scale the residual to it; otherwise the photograph
                is scaled and cut to the network's size, as the original does.
        """
        size = self.config.image_size
        if full_size:
            cover = to_tensor(image)[None]
            small = F.interpolate(cover, size=(size, size), mode="bilinear", antialias=True)
            residual = self.encoder(secret[None], small)
            residual = F.interpolate(residual, size=cover.shape[-2:], mode="bicubic")
        else:
            cover = to_tensor(ImageOps.fit(image, (size, size)))[None]
            residual = self.encoder(secret[None], cover)
        return (cover + residual).clamp(0, 1)[0], residual[0]

    @torch.no_grad()
    def read(self, image: Image.Image) -> Tensor:
        """The secret in a photograph of any size, (secret_size,) of 0. and 1."""
        size = self.config.image_size
        received = to_tensor(image)[None]
        if received.shape[-2:] != (size, size):
            received = F.interpolate(received, size=(size, size), mode="bilinear", antialias=True)
        return (self.decoder(received)[0] > 0).float()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fastgan stegastamp", description="Hides messages in photographs and finds them again."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser("encode", help="hide a message")
    decode = commands.add_parser("decode", help="find it again")
    for command in (encode, decode):
        command.add_argument("--checkpoint", required=True, help="checkpoint file, or a run's folder")
        command.add_argument("--image", type=Path, help="one photograph")
        command.add_argument("--images_dir", type=Path, help="or all photographs of a folder")
        command.add_argument("--raw", action="store_true", help="the secret is a string of 0s and 1s")
    encode.add_argument("--secret", required=True, help="the message (100 bits: up to 7 characters)")
    encode.add_argument("--save_dir", required=True, type=Path, help="folder for the PNGs")
    encode.add_argument(
        "--full_size", action="store_true",
        help="keep the photograph's size (default: scale and cut to the network's)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if (options.image is None) == (options.images_dir is None):
        parser.error("give either --image or --images_dir")
    try:
        stamper = Stamper.load(options.checkpoint)
        files = [options.image] if options.image else find_images(options.images_dir)
        run = _encode if options.command == "encode" else _decode
        return run(stamper, files, options)
    except (ValueError, OSError) as error:
        print(f"fastgan: error: {error}", file=sys.stderr)
        return 1


def _open(path: Path) -> Image.Image:
    if not path.exists():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        return read_image(path)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _encode(stamper: Stamper, files: list[Path], options: argparse.Namespace) -> int:
    size = stamper.config.secret_size
    secret = (raw_bits if options.raw else message_to_bits)(options.secret, size)
    options.save_dir.mkdir(parents=True, exist_ok=True)
    for path in files:
        stamped, residual = stamper.stamp(_open(path), secret, options.full_size)
        for name, image in (("hidden", stamped), ("residual", residual + 0.5)):
            target = options.save_dir / f"{path.stem}_{name}.png"
            to_image(image).save(target)
            print(target)
    return 0


def _decode(stamper: Stamper, files: list[Path], options: argparse.Namespace) -> int:
    missing = 0
    for path in files:
        bits = stamper.read(_open(path))
        if options.raw:
            message: str | None = "".join(str(int(bit)) for bit in bits)
        else:
            message = bits_to_message(bits)
        missing += message is None
        print(f"{path}: {'no message found' if message is None else message}")
    return 1 if missing else 0
