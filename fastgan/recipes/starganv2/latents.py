"""`fastgan data encode-latents`: encodes images to latents of a VAE. Also turns latents into pictures.

The VAE is a diffusers AutoencoderKL on the disk (extra `vae`), loaded only if one is requested.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from PIL import ImageOps
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastgan._arguments import Parser
from fastgan._names import printable
from fastgan.recipes.starganv2.data import LATENT_KEY
from fastgan.training.built_in import data_folder
from fastgan.training.checkpoint import write_weights
from fastgan.training.data import find_local_images
from fastgan.training.image_files import (
    READING,
    UnusableImage,
    add_reading,
    read_image,
    reading_of,
    to_tensor,
)  # fmt: skip
from fastgan.training.processes.device import device_of
from fastgan.training.values import check_seed

# RGB of the channels in a preview: the four corners of a cube that are farthest apart.
PREVIEW = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))
PREVIEW_GAIN = 0.15  # keeps channels of standard deviation 1 mostly within [0, 1]


def load_vae(folder: str | Path, device: torch.device | str = "cpu") -> Any:
    """Loads the AutoencoderKL in a folder, or in its subfolder `vae`, frozen.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
        FileNotFoundError: no such folder, or no config.json in it.
        ValueError: it does not hold an AutoencoderKL.
    """
    from diffusers import AutoencoderKL

    folders = [path for path in (Path(folder), Path(folder) / "vae") if (path / "config.json").is_file()]
    if not folders:
        raise FileNotFoundError(
            f"no VAE at {printable(folder)}: there must be a config.json of diffusers' AutoencoderKL"
        )
    try:
        config = json.loads((folders[0] / "config.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{printable(folders[0] / 'config.json')} is not in JSON: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else type(config).__name__
    if name != "AutoencoderKL":
        raise ValueError(f"{printable(folders[0])} holds a {name}, not an AutoencoderKL")
    try:
        vae = AutoencoderKL.from_pretrained(str(folders[0]), local_files_only=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{printable(folders[0])} is no complete AutoencoderKL: {error}") from error
    return vae.eval().requires_grad_(False).to(device)


@torch.no_grad()
def encode(vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images N 3 H W in [0, 1] to unscaled latents N C h w: the posterior's mode, or a draw from it."""
    posterior = vae.encode(images * 2 - 1).latent_dist
    return posterior.mode() if generator is None else posterior.sample(generator)


class Pictures:
    """Converts input or output of the networks, N C H W, to pictures N 3 H W in [0, 1].

    Args:
        data: "images", in [-1, 1], or "latents", multiplied by `latent_scale`.
        latent_scale: the factor.
        vae: folder of the VAE that decodes latents; empty: a fixed linear projection of their channels to
            colours, which shows shapes only.

    Raises:
        As :func:`load_vae`.
    """

    def __init__(self, data: str, latent_scale: float, vae: str, device: torch.device | str = "cpu") -> None:
        self.data, self.latent_scale = data, latent_scale
        self.vae = load_vae(vae, device) if vae else None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if self.data == "images":
            return (x / 2 + 0.5).clamp(0, 1)
        if self.vae is not None:
            decoded = [self.vae.decode(part / self.latent_scale).sample for part in x.float().split(8)]
            return (torch.cat(decoded) / 2 + 0.5).clamp(0, 1)
        colors = [PREVIEW[channel % len(PREVIEW)] for channel in range(x.shape[1])]
        mixed = torch.einsum("nchw,cr->nrhw", x.float(), torch.tensor(colors, device=x.device))
        return (0.5 + PREVIEW_GAIN * mixed).clamp(0, 1)


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan data encode-latents",
        description="Encodes a tree of images, such as one folder per domain, into the same tree of latents, "
        "for `fastgan train starganv2 --data latents`. Latents that are there already stay.",
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder, searched recursively")
    parser.add_argument("latents", type=Path, metavar="LATENTS", help="folder to write NAME.safetensors to")
    parser.add_argument("--vae", required=True, type=Path, help="folder of a diffusers AutoencoderKL")
    parser.add_argument(
        "--image_size", type=int, default=256,
        help="images are scaled and cut to this height and width (default: 256)",
    )  # fmt: skip
    parser.add_argument("--sample_seed", type=int, help="draw from the posterior; default: take its mode")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add_reading(parser, default=READING.background)
    options = parser.parse_args(arguments)
    if options.sample_seed is not None:
        check_seed("--sample_seed", options.sample_seed)
    if options.image_size < 1:
        raise ValueError(f"--image_size must be at least 1, got {options.image_size}")
    reading = reading_of(options)
    root = data_folder(options.images)
    files = find_local_images(root)
    device_of(options.device)
    vae = load_vae(options.vae, options.device)
    # Stored with each latent, so that a folder never mixes latents of different settings.
    settings = {"image_size": str(options.image_size), "posterior": "mode", "vae": _fingerprint(vae)}
    if options.sample_seed is not None:
        settings["posterior"] = f"sample {options.sample_seed}"
    encoded, existing, unreadable = 0, 0, 0
    for path in files:
        name = path.relative_to(root)
        target = options.latents / name.with_name(f"{name.name}.safetensors")
        if _exists(target, settings):
            existing += 1
            continue
        try:
            image = ImageOps.fit(read_image(path, reading), (options.image_size, options.image_size))
        except UnusableImage as error:
            unreadable += 1
            print(f"left out {printable(path)}: {printable(error)}")
            continue
        random = None
        if options.sample_seed is not None:  # an image's draw does not depend on other images
            seed = zlib.crc32(os.fsencode(name.as_posix())) + options.sample_seed
            random = torch.Generator(options.device).manual_seed(seed)
        latent = encode(vae, to_tensor(image)[None].to(options.device), random)[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_weights(target, {LATENT_KEY: latent.float()}, settings)
        encoded += 1
    print(
        f"{encoded} images encoded, {existing} were there already, {unreadable} could not be read; "
        f"train with --latent_scale {vae.config.scaling_factor}"
    )
    return 1 if unreadable else 0


def _fingerprint(vae: Any) -> str:
    """A hash of the VAE's weights, independent of their path."""
    digest = hashlib.sha256()
    for tensor in vae.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _exists(target: Path, settings: dict[str, str]) -> bool:
    """Whether an image's latent exists. Raises a ValueError for one made with other settings."""
    if not target.exists():
        return False
    try:
        with safe_open(target, framework="pt") as file:
            stored = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{printable(target)} is not a readable safetensors file: {error}") from error
    for name, value in settings.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{printable(target)} was made with {name} {printable(stored.get(name))}, not {value}: "
                "take another folder"
            )
    return True
