"""`fastgan sample dcgan`: pictures from a trained generator."""

from __future__ import annotations

import math
from pathlib import Path

from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.dcgan.model import DCGANModel
from fastgan.training.outputs import add_overwrite, check_picture
from fastgan.training.values import check_seed


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample dcgan", description="Pictures from a trained generator, in one grid."
    )
    parser.add_argument("--checkpoint", required=True, help="run's folder, checkpoint or model.safetensors")
    parser.add_argument("--num", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the latents (default: 0)")
    parser.add_argument("--output", required=True, type=Path, help="PNG or JPEG to write")
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    check_picture(options.output, options.overwrite)
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    check_seed("--seed", options.seed)
    images = DCGANModel.load(options.checkpoint).generate(options.num, options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    columns = math.ceil(options.num**0.5)
    save_image(make_grid(images, nrow=columns, pad_value=1.0), options.output)
    print(printable(options.output))
    return 0
