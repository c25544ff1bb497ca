"""Tiny domains on the disk, and configurations for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fastgan.recipes.starganv2.config import StarGANv2Config

SMALL = dict(
    image_size=16, base_width=2, max_width=4, downs=1, mapping_width=8, style_dim=5, z_dim=6, batch_size=4,
    num_steps=4, log_interval=2, sample_interval=4, eval_interval=4, checkpoint_interval=4, accelerator="cpu",
    eval_images=4, eval_draws=2, classifier_steps=3, ema_decay=0.9, r1_interval=2,
)  # fmt: skip


def write_images(folder: Path, names=("day", "night"), count=12) -> Path:
    """Noisy pictures, of a brightness for each domain."""
    for domain, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            random = np.random.default_rng((domain, index))
            pixels = random.integers(0, 128, (16, 16, 3)) + 60 * domain
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


def write_latents(folder: Path, names=("a", "b"), count=12) -> Path:
    """4x16x16: half of them .pt, of those half a dict."""
    for domain, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            generator = torch.Generator().manual_seed(100 * domain + index)
            latent = 5 * torch.randn(4, 16, 16, generator=generator) + domain
            path = folder / name / f"{index:02d}"
            if index % 2:
                save_file({"latent": latent}, path.with_suffix(".safetensors"))
            else:
                torch.save({"latent": latent} if index % 4 else latent, path.with_suffix(".pt"))
    return folder


def image_config(folder: Path, runs: Path, **changes) -> StarGANv2Config:
    return StarGANv2Config(**(SMALL | {"train_path": str(folder), "runs_path": str(runs)} | changes))


def latent_config(folder: Path, runs: Path, **changes) -> StarGANv2Config:
    return image_config(folder, runs, data="latents", **changes)
