"""Names and signatures of kornia (`kornia.enhance`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops._checks import (
    as_flag,
    check_floating,
    check_real,
    check_same_device,
    described,
    may_look_at,
)
from fastgan.ops._jpeg_tables import CHROMINANCE_TABLE, LUMINANCE_TABLE, as_quality, check_qualities
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.jpeg import jpeg_round_trip

__all__ = ["jpeg_codec_differentiable"]

_range_check = GrossRangeCheck("jpeg_codec_differentiable", ("image_rgb",))


def jpeg_codec_differentiable(
    image_rgb: Tensor,
    jpeg_quality: Tensor | float,
    quantization_table_y: Tensor | None = None,
    quantization_table_c: Tensor | None = None,
    *,
    rounding: str = "polynomial",
    check_range: bool = True,
) -> Tensor:
    """JPEG with the signature of `kornia.enhance.jpeg_codec_differentiable`.

    Values differ from kornia's, which resamples chroma bilinearly.

    Args:
        image_rgb: (*, 3, H, W) in [0, 1].
        jpeg_quality: in [1, 100]; a number, (1,) or (B,).
        quantization_table_y, quantization_table_c: (8, 8) or (B, 8, 8), replacing the standard ones; the
            quality scales them.
        rounding: kornia's is "polynomial"; see :func:`fastgan.ops.jpeg_round_trip`.
        check_range: see :func:`fastgan.ops.jpeg_round_trip`.

    Returns:
        The decoded images, in the input's shape.

    Raises:
        TypeError, ValueError: images or tables that are not tensors or of other shapes; as
            :func:`fastgan.ops.jpeg_round_trip`.
    """
    check_colour("image_rgb", image_rgb)
    if as_flag("check_range", check_range):
        _range_check.look((0, 1), image_rgb)
    images = image_rgb.reshape(-1, *image_rgb.shape[-3:])
    if isinstance(jpeg_quality, Tensor):
        check_qualities("jpeg_quality", jpeg_quality, images)
    else:
        jpeg_quality = as_quality("jpeg_quality", jpeg_quality, "a number or a tensor")
    tables = None
    if quantization_table_y is not None or quantization_table_c is not None:
        luma = _table("quantization_table_y", quantization_table_y, LUMINANCE_TABLE, images)
        chroma = _table("quantization_table_c", quantization_table_c, CHROMINANCE_TABLE, images)
        batch = max(luma.shape[0], chroma.shape[0])
        tables = torch.stack([luma.expand(batch, 8, 8), chroma.expand(batch, 8, 8)], dim=1)
    decoded = jpeg_round_trip(
        images, jpeg_quality, rounding=rounding, quantization_tables=tables, check_range=False
    )
    return decoded.view_as(image_rgb)


def check_colour(name: str, images: Tensor) -> None:
    """Checks for RGB images with any number of batch dimensions."""
    check_floating(name, images)
    if images.dim() < 3 or images.shape[-3] != 3:
        raise ValueError(f"{name} must have shape (*, 3, H, W), got {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(images.shape)}")


def _table(name: str, given: Tensor | None, standard: tuple, images: Tensor) -> Tensor:
    if given is None:
        return images.new_tensor(standard, dtype=torch.float32)[None]
    batch = images.shape[0]
    check_real(name, given)
    check_same_device(**{"image_rgb": images, name: given})
    if given.shape not in ((8, 8), (1, 8, 8), (batch, 8, 8)):
        raise ValueError(f"{name} must have shape (8, 8) or ({batch}, 8, 8), got {tuple(given.shape)}")
    if may_look_at(given) and not ((given > 0) & (given < torch.inf)).all():
        raise ValueError(f"{name} must have positive steps, got {described(given)} from {float(given.min())}")
    return given[None] if given.dim() == 2 else given
