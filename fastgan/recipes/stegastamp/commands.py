"""`fastgan stegastamp encode` and `decode`: hide a message in a photograph, and read it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fastgan._arguments import Parser
from fastgan._names import LAYOUT, printable
from fastgan.recipes.stegastamp.message import bits_to_message, message_to_bits, raw_bits
from fastgan.recipes.stegastamp.model import StegaStampModel
from fastgan.training.built_in import data_folder
from fastgan.training.data import find_local_images
from fastgan.training.image_files import Reading, add_reading, naming_image, read_image, reading_of
from fastgan.training.outputs import add_overwrite, check_apart, check_outputs


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan stegastamp", description="Hides messages in photographs and finds them again."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser("encode", help="hide a message")
    decode = commands.add_parser("decode", help="find it again")
    for command in (encode, decode):
        command.add_argument(
            "--checkpoint", required=True, help="run's folder, checkpoint or model.safetensors"
        )
        command.add_argument("--image", type=Path, help="one photograph")
        command.add_argument("--images_dir", type=Path, help="or all photographs of a folder")
        add_reading(command)
        command.add_argument("--raw", action="store_true", help="the secret is a string of 0s and 1s")
    encode.add_argument("--secret", required=True, help="the message (100 bits: up to 7 characters)")
    encode.add_argument(
        "--save_dir",
        required=True,
        type=Path,
        help="folder for the PNGs, in folders as --images_dir has them",
    )
    encode.add_argument(
        "--full_size", action="store_true",
        help="keep the photograph's size (default: scale and cut to the network's)",
    )  # fmt: skip
    add_overwrite(encode)
    options = parser.parse_args(arguments)
    if (options.image is None) == (options.images_dir is None):
        parser.error("give either --image or --images_dir")
    try:
        if options.image is None:
            folder = data_folder(options.images_dir)
            files = find_local_images(folder)
        else:
            folder, files = options.image.parent, [options.image]
        if options.command == "encode":
            return _encode(files, folder, options)
        return _decode(files, options)
    except (ValueError, OSError) as error:
        print(f"fastgan: error: {printable(error, keep=LAYOUT)}", file=sys.stderr)
        return 1


def _open(path: Path, reading: Reading) -> Image.Image:
    if not path.exists():
        raise FileNotFoundError(f"no such image: {printable(path)}")
    if path.is_dir():
        raise ValueError(f"{printable(path)} is a folder: give it as --images_dir")
    with naming_image(path):
        return read_image(path, reading)


def _encode(files: list[Path], folder: Path, options: argparse.Namespace) -> int:
    def target(file: Path, name: str) -> Path:
        path = options.save_dir / file.relative_to(folder)
        return path.with_name(f"{file.stem}_{name}.png")

    check_outputs(
        [(file, target(file, name)) for file in files for name in ("hidden", "residual")],
        "encode",
        "--save_dir",
        options.overwrite,
    )
    if options.image is None:
        check_apart(options.save_dir, folder, "--save_dir")
    model = StegaStampModel.load(options.checkpoint)
    reading = reading_of(options, model.config.background)
    size = model.config.secret_size
    secret = (raw_bits if options.raw else message_to_bits)(options.secret, size)

    def encode(file: Path) -> None:
        image = _open(file, reading)
        made = model.encode(image, secret, full_size=options.full_size, residual=True)
        for name, picture in zip(("hidden", "residual"), made, strict=True):
            output = target(file, name)
            output.parent.mkdir(parents=True, exist_ok=True)
            picture.save(output)
            print(printable(output))

    return 1 if _for_each(files, encode) else 0


def _decode(files: list[Path], options: argparse.Namespace) -> int:
    model = StegaStampModel.load(options.checkpoint)
    reading = reading_of(options, model.config.background)
    without_message = 0

    def decode(file: Path) -> None:
        nonlocal without_message
        bits = model.decode(_open(file, reading), bits=True)
        if options.raw:
            message: str | None = "".join(str(int(bit)) for bit in bits)
        else:
            message = bits_to_message(bits)
        without_message += message is None
        print(f"{printable(file)}: {'no message found' if message is None else message}")

    failed = _for_each(files, decode)
    return 1 if without_message or failed else 0


def _for_each(files: list[Path], act: Callable[[Path], None]) -> int:
    """Calls `act` on each file; names unreadable ones of several, and returns their number."""
    failed = 0
    for file in files:
        try:
            act(file)
        except ValueError as error:
            if len(files) == 1:
                raise
            print(f"fastgan: error: {printable(error, keep=LAYOUT)}", file=sys.stderr)
            failed += 1
    if failed:
        print(f"fastgan: {failed} of {len(files)} images could not be read", file=sys.stderr)
    return failed
