"""`fastgan sample zi2zi`: text in a trained run's styles, or in interpolated ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.utils import make_grid, save_image

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.zi2zi.model import Zi2ZiModel
from fastgan.training.outputs import add_overwrite, check_picture

COLUMNS = 16  # at most, of the picture of a text


def sample(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan sample zi2zi", description="Text in the style of a category, or between two."
    )
    parser.add_argument("--checkpoint", required=True, help="run's folder, checkpoint or model.safetensors")
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
    model = Zi2ZiModel.load(options.checkpoint)
    source = model.render(options.text, options.source_font)
    if options.interpolate:
        first, last = (model.style_of(name) for name in options.interpolate)
        parts = torch.linspace(0, 1, options.steps).tolist()
        images = torch.cat([model.translate(source, torch.lerp(first, last, part)) for part in parts])
        columns = len(source)
    else:
        images = model.translate(source, options.category)
        columns = min(len(source), COLUMNS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_image(make_grid(images, nrow=columns, padding=0), options.output)
    print(printable(options.output))
    return 0
