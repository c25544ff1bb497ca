"""Differentiable JPEG in plain PyTorch: colour, chroma subsampling, DCT, quantization, and back.

With `rounding="straight_through"` every rounding of the codec is done (samples to integers, quantized
coefficients, decoded samples, RGB), and gradients pass through it as through the identity; clamping keeps
its true gradient. With float DCTs this follows libjpeg-turbo's defaults to a fraction of a grey level, not
to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, annex K.
LUMINANCE_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
# JFIF: full-range BT.601.
RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
YCBCR_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
SUBSAMPLINGS = ("4:2:0", "4:4:4")


def jpeg_round_trip(
    image: Tensor,
    quality: float | Tensor,
    *,
    subsampling: str = "4:2:0",
    rounding: str = "straight_through",
) -> Tensor:
    """Encodes and decodes images as JPEG, differentiably.

    Args:
        image: N 3 H W, RGB in [0, 1]; any H and W.
        quality: in [1, 100], libjpeg's scale; a number, a 0-d tensor or one per image (N,). Never
            modified, and not differentiable.
        subsampling: "4:2:0" (the default of most encoders) or "4:4:4".
        rounding: "straight_through", "cubic" (round(x) + (x - round(x))^3; Shin and Song, "JPEG-resistant
            adversarial images", 2017), "at_zero" (x^3 below one half, else x; StegaStamp's
            `round_only_at_0`), or "none".

    Returns:
        The decoded images, N 3 H W in [0, 1], in the image's dtype.

    Raises:
        ValueError: unknown subsampling or rounding; a quality number outside [1, 100].
    """
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling must be one of {SUBSAMPLINGS}, got {subsampling!r}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {tuple(ROUNDINGS)}, got {rounding!r}")
    if not isinstance(quality, Tensor) and not 1 <= quality <= 100:
        raise ValueError(f"quality must lie in [1, 100], got {quality}")
    # Autocast would do the matrix products in half precision.
    with torch.autocast(image.device.type, enabled=False):
        return _round_trip(image, quality, subsampling == "4:2:0", rounding)


def _round_trip(image: Tensor, quality: float | Tensor, halved: bool, rounding: str) -> Tensor:
    round_coefficient = ROUNDINGS[rounding]
    # Smooth surrogates are differentiated as a whole: their samples are not rounded either.
    round_sample = _straight_through if rounding == "straight_through" else _identity
    height, width = image.shape[2:]
    unit = 16 if halved else 8

    padding = (0, -width % unit, 0, -height % unit)
    padded = F.pad(image.float(), padding, mode="replicate") if any(padding) else image.float()
    luma, chroma = _to_ycbcr(padded * 255, round_sample)
    if halved:
        chroma = round_sample(F.avg_pool2d(chroma, 2))
    tables = quantization_tables(quality, image.shape[0], image.device)
    luma = _code_blocks(luma, tables[:, 0:1], round_coefficient, round_sample)
    chroma = _code_blocks(chroma, tables[:, 1:2], round_coefficient, round_sample)
    if halved:
        # The decoder knows the image's size and smooths within it, not within the padding.
        known = chroma[..., : -(-height // 2), : -(-width // 2)]
        chroma = round_sample(_upsample_triangle(known))
    luma, chroma = luma[..., :height, :width], chroma[..., :height, :width]
    decoded = round_sample(_to_rgb(luma, chroma)).clamp(0, 255) / 255
    return decoded.to(image.dtype)


def quantization_tables(quality: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """Libjpeg's tables, (N or 1, 2, 8, 8) integers in 1..255: luminance and chrominance."""
    standard = _constant((LUMINANCE_TABLE, CHROMINANCE_TABLE), device)
    quality = torch.as_tensor(quality, dtype=torch.float32, device=device).detach()
    scale = torch.where(quality < 50, (5000 / quality).floor(), (200 - 2 * quality).floor())
    scaled = (standard * scale.reshape(-1, 1, 1, 1) + 50) / 100
    return scaled.floor().clamp(1, 255)


def _identity(x: Tensor) -> Tensor:
    return x


def _straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def _cubic(x: Tensor) -> Tensor:
    rounded = x.round().detach()
    return rounded + (x - rounded) ** 3


def _at_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 0.5, x**3, x)


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "straight_through": _straight_through,
    "cubic": _cubic,
    "at_zero": _at_zero,
    "none": _identity,
}


@functools.lru_cache(maxsize=32)
def _constant(values: tuple, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=8)
def _dct(device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II: rows are frequencies."""
    rows = tuple(
        tuple(
            math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)
        )
        for u in range(8)
    )
    return _constant(rows, device)


def _to_ycbcr(image: Tensor, round_sample: Callable) -> tuple[Tensor, Tensor]:
    """Centred samples, in -128..127: Y (N, 1, H, W) and Cb, Cr (N, 2, H, W)."""
    samples = torch.einsum("cr,nrhw->nchw", _constant(RGB_TO_YCBCR, image.device), image)
    samples = round_sample(samples)
    return samples[:, 0:1] - 128, samples[:, 1:3]


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    samples = torch.cat([luma + 128, chroma], dim=1)
    return torch.einsum("rc,nchw->nrhw", _constant(YCBCR_TO_RGB, luma.device), samples)


def _code_blocks(plane: Tensor, table: Tensor, round_coefficient: Callable, round_sample: Callable) -> Tensor:
    """DCT, quantization and back of each 8x8 block; table (N or 1, 1, 8, 8)."""
    dct = _dct(plane.device)
    table = table[:, :, None, :, None, :]
    blocks = plane.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # n c by y bx x
    coefficients = torch.einsum("uy,ncaybx,vx->ncaubv", dct, blocks, dct)
    coefficients = round_coefficient(coefficients / table) * table
    samples = torch.einsum("uy,ncaubv,vx->ncaybx", dct, coefficients, dct)
    return round_sample(samples).clamp(-128, 127).flatten(4, 5).flatten(2, 3)


def _upsample_triangle(plane: Tensor) -> Tensor:
    """Libjpeg's "fancy" upsampling: each new sample is 3/4 of the nearer and 1/4 of the farther one."""
    return F.interpolate(plane, scale_factor=2, mode="bilinear", align_corners=False)
