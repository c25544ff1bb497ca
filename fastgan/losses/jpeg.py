"""JPEG as a layer, under names and signatures of published code.

All call :func:`fastgan.ops.jpeg_round_trip`, so unlike their namesakes they equal the real codec with
`rounding="straight_through"`, and are close to it with the surrogates.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.losses._borrowed import borrowed
from fastgan.losses._draws import draw
from fastgan.ops._checks import (
    as_flag,
    as_number,
    as_whole_number,
    check_floating,
    check_generator,
    check_one_of,
    check_real,
    described,
)
from fastgan.ops._dispatch import requested
from fastgan.ops._jpeg_tables import (
    as_quality,
    check_steps,
)
from fastgan.ops._value_range import GrossRangeCheck
from fastgan.ops.jpeg import LEVELS, ROUNDINGS, check_levels, check_options, jpeg_round_trip


class DiffJPEG(nn.Module):
    """JPEG of one quality, with the signature of mlomnitz/DiffJPEG.

    Args:
        height, width: of the images; other sizes are refused.
        differentiable: round coefficients by the cubic surrogate of Shin and Song (2017); False is the
            codec itself, without a gradient.
        quality: libjpeg's, in [1, 100].
        rounding: replaces the cubic surrogate; see :func:`fastgan.ops.jpeg_round_trip`.
        levels: "round" or "truncate" values between grey levels, for the codec itself or
            `rounding="straight_through"`; see :func:`fastgan.ops.jpeg_round_trip`.
        check_range: as in :func:`fastgan.ops.jpeg_round_trip`, for this module's first images.

    Input and output: N 3 H W, or 3 H W, in [0, 1].

    Raises:
        TypeError, ValueError: arguments that are not images, images of another size, or a quality that is not
            a number or out of range.
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
    """JPEG of a random quality, drawn for each image uniformly from [min_quality, max_quality].

    Args:
        min_quality, max_quality: libjpeg's, in [1, 100].
        options: further arguments of :func:`fastgan.ops.jpeg_round_trip`.

    Input and output: N 3 H W, or 3 H W, in [0, 1]. `generator` (on the images' device) makes the draw
    reproducible.

    Raises:
        TypeError, ValueError: qualities that are not numbers, or not 1 <= min_quality <= max_quality <= 100;
            options that :func:`fastgan.ops.jpeg_round_trip` does not have, or refuses for any image.
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


def check_images(name: str, images: Tensor) -> None:
    """Checks for N 3 H W or 3 H W, the shapes of :func:`fastgan.ops.jpeg_round_trip`."""
    check_floating(name, images)
    if images.dim() not in (3, 4) or images.shape[-3] != 3:
        raise ValueError(f"{name} must have shape (N, 3, H, W) or (3, H, W), got {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(images.shape)}")


__getattr__ = borrowed(__name__)
