"""Filters of `upfirdn2d`, and its three common calls: filtering, upsampling and downsampling of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.ops._checks import as_device, as_finite, as_flag, check_floating, described, shown
from fastgan.ops._filters import as_factors, as_margins, size_of
from fastgan.ops.upfirdn2d import upfirdn2d


def setup_filter(
    f: Any,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """Taps for :func:`upfirdn2d`, in float32.

    Args:
        f: (taps,), (height, width) or a single number, as a tensor, array or list; None: 1.
        device: of the result; None: the CPU.
        normalize: whether to divide by the sum, so that a constant image stays as it is.
        flip_filter: whether to turn the filter.
        gain: factor of what the filter gives (of a separable one, each axis has its root).
        separable: whether to return (taps,) and not its outer product; None: from 8 taps on.

    Returns:
        (taps,) or (height, width), a tensor of its own.

    Raises:
        TypeError, ValueError: no numbers, other shapes, a filter of two axes that shall be separable, a
            sum of 0 that shall be normalized, or a negative gain of a separable filter.

    Works inside `torch.compile(fullgraph=True)`, where values cannot be looked at: a sum of 0 gives
    infinities and NaN there. A filter made once outside, and kept as a buffer, is not computed on each call.
    """
    place = torch.device("cpu") if device is None else as_device("device", device)
    taps = _as_taps(1.0 if f is None else f)
    if taps.dim() == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.dim() == 1 and taps.numel() >= 8
    elif as_flag("separable", separable) and taps.dim() == 2:
        raise ValueError(f"a separable f must have shape (taps,), got {tuple(taps.shape)}")
    if taps.dim() == 1 and not separable:
        taps = taps[:, None] * taps[None, :]
    if as_flag("normalize", normalize):
        total = taps.sum()
        if not torch.compiler.is_compiling() and total == 0:
            raise ValueError("f must not sum up to 0 if it is to be normalized")
        taps = taps / total
    if as_flag("flip_filter", flip_filter):
        taps = taps.flip(tuple(range(taps.dim())))
    gain = as_finite("gain", gain)
    if taps.dim() == 1:
        if gain < 0:
            raise ValueError(f"gain must not be negative for a separable filter, got {gain}")
        gain = math.sqrt(gain)
    return (taps * gain).to(place)


def _as_taps(f: Any) -> Tensor:
    try:
        taps = torch.as_tensor(f).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"f must be numbers, got {described(f)}") from error
    if taps.is_complex():
        raise TypeError(f"f must be numbers, got {described(f)}")
    taps = taps.to(torch.float32, copy=True)
    if taps.dim() > 2 or taps.numel() == 0:
        raise ValueError(f"f must have shape (taps,), (height, width) or (), got {shown(tuple(taps.shape))}")
    return taps


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    """Filters images: :func:`upfirdn2d`, padded so that the size stays, and by `padding` on top.

    Args:
        x, f, flip_filter, gain, backend: as of :func:`upfirdn2d`.
        padding: on top of what keeps the size; a number, [x, y], or [left, right, top, bottom].

    Returns:
        N C H W plus the padding. Gradients and errors are those of :func:`upfirdn2d`.
    """
    width, height = _filter_size(f)
    left, right, top, bottom = as_margins("padding", padding)
    margins = left + width // 2, right + (width - 1) // 2, top + height // 2, bottom + (height - 1) // 2
    return upfirdn2d(x, f, padding=margins, flip_filter=flip_filter, gain=gain, backend=backend)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    """Upsamples images: :func:`upfirdn2d`, padded so that the size is `up` times x's, and by `padding`.

    Args:
        x, f, up, flip_filter, backend: as of :func:`upfirdn2d`.
        padding: of the result; a number, [x, y], or [left, right, top, bottom].
        gain: factor beside up's square, which keeps a constant image as it is.

    Returns:
        N C H up W up plus the padding. Gradients and errors are those of :func:`upfirdn2d`.
    """
    width, height = _filter_size(f)
    left, right, top, bottom = as_margins("padding", padding)
    up_x, up_y = as_factors("up", up)
    margins = (
        left + (width + up_x - 1) // 2, right + (width - up_x) // 2,
        top + (height + up_y - 1) // 2, bottom + (height - up_y) // 2,
    )  # fmt: skip
    gain = as_finite("gain", gain) * up_x * up_y
    return upfirdn2d(x, f, (up_x, up_y), 1, margins, flip_filter, gain, backend=backend)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    """Downsamples images: :func:`upfirdn2d`, padded so that the size is x's through `down`.

    Args:
        x, f, down, flip_filter, gain, backend: as of :func:`upfirdn2d`.
        padding: of x, on top; a number, [x, y], or [left, right, top, bottom].

    Returns:
        N C H/down W/down, of the padded x. Gradients and errors are those of :func:`upfirdn2d`.
    """
    width, height = _filter_size(f)
    left, right, top, bottom = as_margins("padding", padding)
    down_x, down_y = as_factors("down", down)
    margins = (
        left + (width - down_x + 1) // 2, right + (width - down_x) // 2,
        top + (height - down_y + 1) // 2, bottom + (height - down_y) // 2,
    )  # fmt: skip
    return upfirdn2d(x, f, 1, (down_x, down_y), margins, flip_filter, gain, backend=backend)


def _filter_size(f: Tensor | None) -> tuple[int, int]:
    if f is not None:
        check_floating("f", f)
        if f.dim() not in (1, 2):
            raise ValueError(f"f must have shape (taps,) or (height, width), got {tuple(f.shape)}")
    return size_of(f)
