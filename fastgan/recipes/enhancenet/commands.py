"""`fastgan upscale IN OUT`: photographs of any size made larger by a trained EnhanceNet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fastgan._arguments import Parser
from fastgan._names import LAYOUT, printable
from fastgan.recipes.enhancenet.model import EnhanceNetModel, check_depth
from fastgan.recipes.enhancenet.tiles import check_tiles
from fastgan.training.built_in import data_folder
from fastgan.training.data import find_local_images
from fastgan.training.image_files import MAX_PIXELS, add_pixel_limit, decode, naming_image
from fastgan.training.outputs import add_overwrite, check_apart, check_outputs
from fastgan.training.processes.device import device_of

WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
OUTPUTS = (*WITH_ALPHA, ".jpg", ".jpeg", ".bmp")
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}


def upscale(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(prog="fastgan upscale", description="Makes photographs larger with a trained EnhanceNet.")
    parser.add_argument("source", metavar="IN", help="a photograph, or a folder that is searched recursively")
    parser.add_argument("target", metavar="OUT", type=Path, help="a file, or for a folder a folder of PNGs")
    parser.add_argument("--checkpoint", required=True, help="run's folder, checkpoint or model.safetensors")
    parser.add_argument(
        "--tile", type=int, default=256,
        help="largest height and width that is upscaled at once, in pixels of IN; smaller tiles take less "
        "memory (default: 256)",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", type=int,
        help="pixels by which tiles overlap; at least twice the network's reach makes them exact "
        "(default: that and 8 more, 54 for ten blocks, or half the tile if that is less)",
    )  # fmt: skip
    parser.add_argument("--device", default="", help="cpu, cuda, ... (default: a GPU where there is one)")
    add_pixel_limit(parser)
    add_overwrite(parser)
    options = parser.parse_args(arguments)
    check_tiles(options.tile, options.overlap)
    device = device_of(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    jobs = _jobs(data_folder(options.source), options.target, options.overwrite)
    model = EnhanceNetModel.load(options.checkpoint, device=device)
    failed = 0
    for source, target in jobs:
        try:
            enlarge_file(model, source, target, options.tile, options.overlap, options.max_pixels)
        except ValueError as error:
            if len(jobs) == 1:
                raise
            print(f"fastgan: error: {printable(error, keep=LAYOUT)}", file=sys.stderr)
            failed += 1
            continue
        print(printable(target))
    if failed:
        print(f"fastgan: {failed} of {len(jobs)} images could not be upscaled", file=sys.stderr)
    return 1 if failed else 0


def _jobs(source: Path, target: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """(source, target) of each image; refuses to overwrite anything without --overwrite."""
    if not source.exists():
        raise FileNotFoundError(f"no such image or folder: {printable(source)}")
    if source.is_dir():
        if target.is_file():
            raise ValueError(
                f"{printable(source)} is a folder, so OUT must be one, too: {printable(target)} is a file"
            )
        check_apart(target, source, "OUT")
        jobs = [(f, target / f.relative_to(source).with_suffix(".png")) for f in find_local_images(source)]
    else:
        into_folder = target.is_dir() or not target.suffix
        jobs = [(source, target / f"{source.stem}.png" if into_folder else target)]
        if jobs[0][1].suffix.lower() not in OUTPUTS:
            raise ValueError(f"OUT must end in one of {', '.join(OUTPUTS)}, got {printable(target)}")
    check_outputs(jobs, "upscale", "OUT", overwrite)
    return jobs


def enlarge_file(
    model: EnhanceNetModel,
    source: Path,
    target: Path,
    tile: int,
    overlap: int | None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Reads, upscales and writes one image; creates the target's folder.

    Raises:
        ValueError: a file that is not an image, has more than `max_pixels`, or would lose bit depth or
            transparency.
    """
    shown = printable(source)
    with naming_image(source):
        decoded = decode(source, max_pixels, only_one=True)
    image = decoded.image
    try:
        check_depth(decoded.bits, image.mode)
        large = model.upscale(image, tile, overlap)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from error
    if large.mode in ("LA", "RGBA") and target.suffix.lower() not in WITH_ALPHA:
        raise ValueError(
            f"{shown} has transparency, which {target.suffix} cannot hold: "
            f"name OUT {printable(target.stem)}.png"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    profile = image.info.get("icc_profile") if image.mode in ("L", "LA", "RGB", "RGBA") else None
    large.save(target, icc_profile=profile, **SAVE_OPTIONS.get(target.suffix.lower(), {}))
