"""JPEG as a layer, under the names and signatures that people have in their code.

All go through :func:`fastgan.ops.jpeg_round_trip`, so unlike their namesakes they are the real codec with
`rounding="straight_through"`, and near it with the surrogates.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.losses._draws import draw
from fastgan.ops._checks import (
    as_flag,
    as_number,
    as_whole_number,
    check_floating,
    check_generator,
    check_one_of,
    check_real,
    check_same_device,
    described,
    may_look_at,
)
from fastgan.ops._dispatch import requested
from fastgan.ops._jpeg_tables import (
    CHROMINANCE_TABLE,
    LUMINANCE_TABLE,
    as_quality,
    check_qualities,
    check_steps,
)
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.jpeg import LEVELS, ROUNDINGS, check_levels, check_options, jpeg_round_trip

_range_check = GrossRangeCheck("jpeg_codec_differentiable", ("image_rgb",))
_range_check_of_8_bits = GrossRangeCheck(
    "diff_jpeg_coding",
    ("image_rgb",),
    {
        (0, 1): "images in [0, 1] must be multiplied by 255 first",
        (-1, 1): "images in [-1, 1] must be brought to [0, 255] first, as 127.5 * (image + 1)",
    },
)


class DiffJPEG(nn.Module):
    """JPEG of one quality, with the signature of mlomnitz/DiffJPEG.

    Args:
        height, width: of the images; others are refused.
        differentiable: round coefficients by the cubic surrogate of Shin and Song (2017); False is the
            codec itself, without a gradient.
        quality: libjpeg's, in [1, 100].
        rounding: in place of the cubic; see :func:`fastgan.ops.jpeg_round_trip`.
        levels: "round" or "truncate" values between grey levels, where the codec itself or
            `rounding="straight_through"` makes whole ones; likewise.
        check_range: as that of :func:`fastgan.ops.jpeg_round_trip`, for this module's first images.

    Input and output: N 3 H W, or 3 H W, in [0, 1].

    Raises:
        TypeError, ValueError: no images, or of another size; quality no number or out of range.
    """

    def __init__(
        self,
        height: int,
        width: int,
        differentiable: bool = True,
        quality: float = 80,
        *,
        rounding: str = "cubic",
        levels: str = "round",
        check_range: bool = True,
    ) -> None:
        super().__init__()
        check_one_of("rounding", rounding, ROUNDINGS)
        check_one_of("levels", levels, LEVELS)
        self.height = as_whole_number("height", height)
        self.width = as_whole_number("width", width)
        self.differentiable = as_flag("differentiable", differentiable)
        if self.differentiable:
            check_levels(levels, rounding)
        self.quality = as_quality("quality", quality)
        self.rounding = rounding
        self.levels = levels
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("DiffJPEG", ("x",))

    def forward(self, x: Tensor) -> Tensor:
        check_images("x", x)
        if x.shape[-2:] != (self.height, self.width):
            raise ValueError(
                f"x must be images of height x width {self.height}x{self.width}, got {tuple(x.shape)}"
            )
        if self.check_range:
            self._range_check.look((0, 1), x)
        if not self.differentiable:
            return jpeg_round_trip(x.detach(), self.quality, levels=self.levels, check_range=False)
        return jpeg_round_trip(x, self.quality, rounding=self.rounding, levels=self.levels, check_range=False)

    def extra_repr(self) -> str:
        rounding = self.rounding if self.differentiable else "not differentiable"
        return f"{self.height}, {self.width}, quality={self.quality}, {rounding}"


class RandomJPEG(nn.Module):
    """JPEG of a random quality, each image its own, drawn uniformly from [min_quality, max_quality].

    Args:
        min_quality, max_quality: libjpeg's, in [1, 100].
        options: further arguments of :func:`fastgan.ops.jpeg_round_trip`.

    Input and output: N 3 H W, or 3 H W, in [0, 1]. `generator` (on the images' device) makes the draw
    reproducible.

    Raises:
        TypeError, ValueError: qualities that are no numbers, or not 1 <= min_quality <= max_quality <= 100;
            options that :func:`fastgan.ops.jpeg_round_trip` does not have, or refuses for whatever image.
    """

    def __init__(self, min_quality: float, max_quality: float = 100, **options: Any) -> None:
        super().__init__()
        low, high = as_number("min_quality", min_quality), as_number("max_quality", max_quality)
        if not 1 <= low <= high <= 100:
            raise ValueError(
                "qualities must satisfy 1 <= min_quality <= max_quality <= 100, "
                f"got {min_quality} and {max_quality}"
            )
        _check_options(**options)
        self.min_quality, self.max_quality = low, high
        self.options = options
        self._range_check = GrossRangeCheck("RandomJPEG", ("x",))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_images("x", x)
        check_generator("generator", generator)
        images = x.shape[:1] if x.dim() == 4 else (1,)
        drawn = draw(torch.rand, images, generator, device=x.device)
        quality = self.min_quality + (self.max_quality - self.min_quality) * drawn
        if self.options.get("check_range", True):
            self._range_check.look((0, 1), x)
        return jpeg_round_trip(x, quality, **self.options | {"check_range": False})

    def extra_repr(self) -> str:
        return f"{self.min_quality}, {self.max_quality}"


def _check_options(
    *, quantization_tables: Tensor | None = None, backend: str | None = None, **options: Any
) -> None:
    unknown = options.keys() - inspect.signature(check_options).parameters.keys()
    if unknown:
        known = ", ".join([*inspect.signature(check_options).parameters, "quantization_tables", "backend"])
        name = min(unknown)
        raise TypeError(
            f"RandomJPEG has no option {name!r}, got {described(options[name])}; options: {known}"
        )
    check_options(**options)
    requested(backend)
    if quantization_tables is not None:
        check_real("quantization_tables", quantization_tables)
        shape = tuple(quantization_tables.shape)
        if shape[1:] != (2, 8, 8):
            raise ValueError(f"quantization_tables must have shape (N or 1, 2, 8, 8), got {shape}")
        check_steps(quantization_tables, exact=False)


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

    Args:
        image_rgb: (*, 3, H, W) in [0, 1].
        jpeg_quality: in [1, 100]; a number, (1,) or (B,).
        quantization_table_y, quantization_table_c: (8, 8) or (B, 8, 8), in place of the standard ones; the
            quality scales them.
        rounding: kornia's is "polynomial"; see :func:`fastgan.ops.jpeg_round_trip`.
        check_range: likewise.

    Returns:
        The decoded images, of the shape given.

    Raises:
        TypeError, ValueError: images or tables that are no tensors or of other shapes; those of
            :func:`fastgan.ops.jpeg_round_trip`.
    """
    _check_colour("image_rgb", image_rgb)
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


def diff_jpeg_coding(
    image_rgb: Tensor,
    jpeg_quality: Tensor | float,
    quantization_table_y: Tensor | None = None,
    quantization_table_c: Tensor | None = None,
    ste: bool = False,
    *,
    check_range: bool = True,
) -> Tensor:
    """JPEG with the signature of Diff-JPEG (Reich et al., WACV 2024).

    Args:
        image_rgb: B 3 H W, or 3 H W, in [0, 255].
        jpeg_quality: in [1, 100]; a number, (1,) or (B,).
        quantization_table_y, quantization_table_c: as in :func:`jpeg_codec_differentiable`.
        ste: round straight through instead of by polynomials.
        check_range: whether a process's first images are looked at, and a RuntimeWarning says once if they
            are in [0, 1] or [-1, 1].

    Returns:
        The decoded images in [0, 255], of the shape given.

    Raises:
        TypeError, ValueError: as :func:`jpeg_codec_differentiable`.
    """
    _check_colour("image_rgb", image_rgb)
    rounding = "straight_through" if as_flag("ste", ste) else "polynomial"
    if as_flag("check_range", check_range):
        _range_check_of_8_bits.look((0, 255), image_rgb)
    return 255 * jpeg_codec_differentiable(
        image_rgb / 255, jpeg_quality, quantization_table_y, quantization_table_c, rounding=rounding,
        check_range=False,
    )  # fmt: skip


def check_images(name: str, images: Tensor) -> None:
    """N 3 H W, or 3 H W: what :func:`fastgan.ops.jpeg_round_trip` takes."""
    check_floating(name, images)
    if images.dim() not in (3, 4) or images.shape[-3] != 3:
        raise ValueError(f"{name} must have shape (N, 3, H, W) or (3, H, W), got {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(images.shape)}")


def _check_colour(name: str, images: Tensor) -> None:
    """Any number of batch dimensions."""
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
