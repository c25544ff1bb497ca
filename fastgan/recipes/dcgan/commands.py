"""`fastgan sample dcgan`: pictures from a trained generator."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.dcgan.config import DCGANConfig
from fastgan.recipes.dcgan.networks import DCGANGenerator
from fastgan.recipes.dcgan.recipe import draw_latents, make_generator
from fastgan.training.checkpoint import load_checkpoint, read_weights
from fastgan.training.checkpoint_content import options_of, read_json
from fastgan.training.finite import first_non_finite
from fastgan.training.networks import load_network
from fastgan.training.outputs import add_overwrite, check_picture
from fastgan.training.values import check_seed


def load_generator(path: str | Path) -> tuple[DCGANGenerator, DCGANConfig]:
    """Loads a generator from a run's folder, a checkpoint, or a run's generator.safetensors.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not the weights of a DCGAN; the message names those that do not fit.
    """
    path = Path(path)
    plain = _plain_weights(path) if path.is_file() else None
    if plain is None:
        checkpoint = load_checkpoint(path, "dcgan")
        path = checkpoint.path
        config, weights = checkpoint.options(DCGANConfig), checkpoint.trained("generator")
    else:
        config, weights = plain
    return load_network(lambda: make_generator(config), weights, path), config


def _plain_weights(path: Path) -> tuple[DCGANConfig, dict[str, Tensor]] | None:
    """Configuration and weights of a generator.safetensors; None: the file is a checkpoint."""
    metadata, weights = read_weights(path)
    if "format" in metadata:
        return None
    if metadata.get("recipe") != "dcgan":
        raise ValueError(f"{printable(path)} holds no generator that `fastgan train dcgan` has saved")
    if name := first_non_finite(weights):
        raise ValueError(f"{printable(path)} is of no use: {printable(name)} is NaN or infinite")
    try:
        values = read_json(metadata, "config")
    except ValueError as error:
        raise ValueError(f"{printable(path)} is not complete: {error}") from error
    return options_of(path, DCGANConfig, values), weights


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample dcgan", description="Pictures from a trained generator, in one grid."
    )
    parser.add_argument(
        "--checkpoint", required=True, help="run's folder, checkpoint or generator.safetensors"
    )
    parser.add_argument("--num", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the latents (default: 0)")
    parser.add_argument("--output", required=True, type=Path, help="PNG or JPEG to write")
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    check_picture(options.output, options.overwrite)
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    check_seed("--seed", options.seed)
    generator, config = load_generator(options.checkpoint)
    z = draw_latents(config, options.num, torch.Generator().manual_seed(options.seed))
    with torch.no_grad():
        images = torch.cat([generator(part) for part in z.split(64)]) / 2 + 0.5
    options.output.parent.mkdir(parents=True, exist_ok=True)
    columns = math.ceil(options.num**0.5)
    save_image(make_grid(images.clamp(0, 1), nrow=columns, pad_value=1.0), options.output)
    print(printable(options.output))
    return 0
