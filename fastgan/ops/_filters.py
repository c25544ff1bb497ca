"""Arguments that the ops of FIR filters share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.ops._checks import as_whole_number, check_floating, check_same_device, shown

Margins = tuple[int, int, int, int]
"""Before and after along x, then along y."""
_LEAST = -(2**31) + 1


def as_factors(name: str, value: object) -> tuple[int, int]:
    """A factor, or one along x and one along y, as the latter."""
    if not _is_sequence(value):
        factor = as_whole_number(name, value)
        return factor, factor
    if len(value) != 2:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a whole number or two, [x, y], got {shown(value)}")
    along_x, along_y = (as_whole_number(name, item) for item in value)  # type: ignore[attr-defined]
    return along_x, along_y


def as_margins(name: str, value: object) -> Margins:
    """A number, two, [x, y], or four, [before, after along x, before, after along y], as the latter."""
    items = list(value) if _is_sequence(value) else [value, value]  # type: ignore[call-overload]
    items = [item for item in items for _ in range(2)] if len(items) == 2 else items
    if len(items) != 4:
        raise ValueError(
            f"{name} must be a whole number, [x, y] or [left, right, top, bottom], got {shown(value)}"
        )
    left, right, top, bottom = (as_whole_number(name, item, _LEAST) for item in items)
    return left, right, top, bottom


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def check_maps(name: str, x: Tensor) -> None:
    """Checks for floating-point N C H W with at least one pixel, of any number of channels and any range."""
    check_floating(name, x)
    if x.dim() != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")


def as_filter(name: str, f: Tensor | None, x: Tensor) -> Tensor:
    """The taps in the dtype that x is filtered in, contiguous; (1, 1) for None."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if f is None:
        return torch.ones(1, 1, dtype=dtype, device=x.device)
    check_floating(name, f)
    if f.dim() not in (1, 2) or f.numel() == 0:
        raise ValueError(f"{name} must have shape (taps,) or (height, width), got {tuple(f.shape)}")
    if f.requires_grad:
        raise ValueError(f"{name} is a constant without a gradient, but requires grad: pass it detached")
    check_same_device(**{"x": x, name: f})
    return f.to(dtype).contiguous()


def size_of(f: Tensor | None) -> tuple[int, int]:
    """Taps along x and along y, as numbers also inside `torch.jit.trace`, where sizes are tensors."""
    return (1, 1) if f is None else (int(f.shape[-1]), int(f.shape[0]))


def output_size(size: int, up: int, down: int, before: int, after: int, taps: int) -> int:
    """Pixels along an axis; less than 1: the padded image is smaller than the filter."""
    return (size * up + before + after - taps + down) // down


def planes(x: Tensor) -> tuple[Tensor, bool]:
    """X in contiguous planes, and whether its channels were last, as those of the result will be."""
    if x.is_contiguous():
        return x, False
    return x.contiguous(), x.movedim(1, -1).is_contiguous()


def in_format(y: Tensor, channels_last: bool) -> Tensor:
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else y
