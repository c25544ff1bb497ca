"""Quantization tables of JPEG: those that a quality stands for, and those that are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.ops._checks import as_number, check_real, check_same_device, may_look_at
from fastgan.ops._streams import is_captured

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


def quality_tables(
    quality: float | Tensor,
    base: Tensor | None = None,
    *,
    smooth: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The quantization tables that libjpeg makes for a quality.

    Args:
        quality: in [1, 100]; a number or a tensor, 0-d or (N,). Out of range gives NaN.
        base: (N or 1, 2, 8, 8), what quality 50 means; default: the standard's annex K.
        smooth: round down by Reich et al.'s differentiable floor instead of straight through.

    Returns:
        (N or 1, 2, 8, 8) with values in 1..255, differentiable with respect to quality and base.
    """
    if base is None:
        base = _standard_tables(dtype, torch.device(device or _device_of(quality)))
    quality = torch.as_tensor(quality, dtype=base.dtype, device=base.device)
    floor = _smooth_floor if smooth else _floor
    scale = torch.where(quality < 50, floor(5000 / quality.clamp(min=1)), floor(200 - 2 * quality))
    scale = torch.where((quality >= 1) & (quality <= 100), scale, torch.nan)
    return floor((base * scale.reshape(-1, 1, 1, 1) + 50) / 100).clamp(1, 255)


def _device_of(value: float | Tensor) -> torch.device:
    return value.device if isinstance(value, Tensor) else torch.device("cpu")


def _standard_tables(dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type == "cuda" and device.index is None and torch.cuda.is_initialized():
        device = torch.device("cuda", torch.cuda.current_device())  # another one later

    def make() -> Tensor:
        return torch.tensor([(LUMINANCE_TABLE, CHROMINANCE_TABLE)], dtype=dtype, device=device)

    # Kept, since bringing them to a GPU would wait for it.
    return _kept((dtype, device), device, make)


def _tables_of_number(quality: float, smooth: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`quality_tables` of a number, which take longer than a small image does and are always the same."""
    key = (quality, smooth, dtype, device)
    return _kept(key, device, lambda: quality_tables(quality, smooth=smooth, device=device, dtype=dtype))


def _kept(key: tuple, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    """make(), or what it made for the key before. Nobody may write into it."""
    if torch.compiler.is_compiling():
        return make()
    stream = None
    if device.type == "cuda" and torch.cuda.is_initialized():  # which it is not for fake tensors
        stream = torch.cuda.current_stream(device)
    if stream is not None and is_captured(device):
        if key not in _made:
            raise RuntimeError(
                "JPEG's tables are brought to the device at their first use, which a CUDA graph cannot "
                f"capture: make one call with the same quality on {device} before"
            )
        made = _made[key].tables
        _read_by_graphs[id(made)] = made
        return made
    if key not in _made:
        with torch.inference_mode(False):  # what is made inside it cannot be saved for a backward pass
            made = make()
        if type(made) is not Tensor:  # a fake one, of a trace
            return made
        if len(_made) >= 256:
            _made.clear()
        _made[key] = _Made(made, stream, None if stream is None else stream.record_event())
    kept = _made[key]
    if kept.event is not None and stream is not None and stream != kept.stream:
        stream.wait_event(kept.event)  # until they are made
        kept.tables.record_stream(stream)
    return kept.tables


class _Made(NamedTuple):
    tables: Tensor
    stream: torch.cuda.Stream | None  # of a GPU: on which they were made
    event: torch.cuda.Event | None  # when


_made: dict[tuple, _Made] = {}
# A CUDA graph reads what was there when it was captured whenever it runs: this is never given up.
_read_by_graphs: dict[int, Tensor] = {}


def _floor(x: Tensor) -> Tensor:
    return x + (x.floor() - x).detach()


def _smooth_floor(x: Tensor) -> Tensor:
    nearest = (x - 0.5).detach().round()
    return nearest + (x - 0.5 - nearest) ** 3


def tables_for(image: Tensor, quality: float | Tensor | None, tables: Tensor | None, rounding: str) -> Tensor:
    """What the codec divides by: (N or 1, 2, 8, 8), float32 or for such images float64; NaN where wrong."""
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    batch = image.shape[0]
    if tables is not None:
        check_real("quantization_tables", tables)
        if tables.shape not in ((batch, 2, 8, 8), (1, 2, 8, 8)):
            shape = tuple(tables.shape)
            raise ValueError(f"quantization_tables must have shape ({batch} or 1, 2, 8, 8), got {shape}")
        check_same_device(image=image, quantization_tables=tables)
        tables = tables.to(dtype).contiguous()
        wrong = check_steps(tables, exact=rounding == "straight_through" and quality is None)
        if quality is None:
            return torch.where(wrong, torch.nan, tables)
    if quality is None:
        raise TypeError(
            "quality must be a number or a tensor where there are no quantization_tables, got None"
        )
    if isinstance(quality, Tensor):
        check_qualities("quality", quality, image)
    else:
        quality = as_quality("quality", quality, "a number or a tensor")
        if tables is None:
            return _tables_of_number(quality, rounding == "polynomial", image.device, dtype)
    return quality_tables(quality, tables, smooth=rounding == "polynomial", device=image.device, dtype=dtype)


def check_steps(tables: Tensor, exact: bool) -> Tensor:
    """Where steps are wrong; a ValueError names one where looking does not wait for a device.

    Args:
        exact: whether they are the codec's own, as where nothing scales them: whole numbers of one byte.
    """
    low, high = (0.5, 255.5) if exact else (0.0, torch.inf)
    wrong = ~((tables >= low) & (tables < high) & (tables > 0))
    if may_look_at(tables) and wrong.any():
        at = tuple(int(i) for i in wrong.nonzero()[0])
        wanted = "lie in 1..255" if exact else "be positive"
        raise ValueError(f"steps of quantization_tables must {wanted}, got {float(tables[at])} at index {at}")
    return wrong


def as_quality(name: str, value: object, wanted: str = "a number") -> float:
    """A number in [1, 100], of Python or numpy."""
    number = as_number(name, value, wanted)
    _check_quality(name, value, "")  # type: ignore[arg-type]  # as it is written
    return number


def check_qualities(name: str, quality: Tensor, image: Tensor) -> None:
    """One for all images or one for each, in [1, 100] where looking does not wait for a device."""
    batch = image.shape[0]
    check_real(name, quality)
    if quality.shape not in ((), (batch,), (1,)):
        raise ValueError(f"{name} must be 0-d or have shape ({batch},), got {tuple(quality.shape)}")
    check_same_device(**{"image": image, name: quality})
    if may_look_at(quality):
        for index, value in enumerate(quality.detach().reshape(-1).tolist()):
            _check_quality(name, value, f" at batch index {index}" if quality.dim() else "")


def _check_quality(name: str, value: float, place: str) -> None:
    if not 1 <= value <= 100:
        raise ValueError(f"{name} must lie in [1, 100], got {value}{place}")
