"""Held-out figures: bit accuracy, clean and after a real JPEG, and visibility of the stamp."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastgan.metrics import psnr, ssim
from fastgan.training.image_files import to_image, to_tensor


def real_jpeg(image: Tensor, quality: int) -> Tensor:
    """Encodes and decodes 3 H W in [0, 1] with libjpeg (4:2:0)."""
    buffer = io.BytesIO()
    to_image(image).save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    return to_tensor(Image.open(buffer).convert("RGB")).to(image.device)


@torch.no_grad()
def evaluate_stamps(
    encoder: nn.Module,
    decoder: nn.Module,
    images: Tensor,
    secret_size: int,
    lpips: nn.Module | None = None,
    jpeg_quality: int = 50,
) -> dict[str, float]:
    """Bit accuracy, clean and under real JPEG, PSNR, SSIM, and LPIPS if its weights are installed.

    Args:
        images: N 3 H W in [0, 1]. Each gets its own secret, the same in every evaluation. Stamped images are
            rounded to 8 bits, as when they are saved.
    """
    random = np.random.default_rng(0)
    secret = torch.from_numpy(random.integers(0, 2, (len(images), secret_size))).to(images)
    stamped = torch.cat(
        [part + encoder(bits, part) for part, bits in zip(images.split(16), secret.split(16), strict=True)]
    )
    stamped = (stamped.clamp(0, 1) * 255).round() / 255
    coded = torch.stack([real_jpeg(image, jpeg_quality) for image in stamped])
    figures = {}
    for name, received in (("clean", stamped), (f"jpeg_{jpeg_quality}", coded)):
        logits = torch.cat([decoder(part) for part in received.split(16)])
        correct = (logits > 0) == (secret > 0.5)
        figures[f"bit_acc_{name}"] = correct.float().mean().item()
        figures[f"str_acc_{name}"] = correct.all(dim=1).float().mean().item()
    figures["psnr"] = psnr(stamped, images).item()
    figures["ssim"] = ssim(stamped, images).item()
    if lpips is not None:
        parts = zip(stamped.split(16), images.split(16), strict=True)
        figures["lpips"] = sum(lpips(a, b).item() * len(a) for a, b in parts) / len(images)
    return figures
