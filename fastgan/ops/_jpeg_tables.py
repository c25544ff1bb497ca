"""JPEG's quantization tables, given or made from a quality."""

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
        base: (N or 1, 2, 8, 8), the tables of quality 50; default: those of the standard's annex K.
        smooth: round down by Reich et al.'s differentiable floor instead of straight through.
        device, dtype: of the default base.

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
        device = torch.device("cuda", torch.cuda.current_device())  # as a key, since it may change

    def make() -> Tensor:
        return torch.tensor([(LUMINANCE_TABLE, CHROMINANCE_TABLE)], dtype=dtype, device=device)

    # Cached, since copying them to a GPU synchronizes.
    return _cached((dtype, device), device, make)


def _tables_of_number(quality: float, smooth: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`quality_tables` of a number, cached: making them takes longer than a small image's round trip."""
    key = (quality, smooth, dtype, device)
    return _cached(key, device, lambda: quality_tables(quality, smooth=smooth, device=device, dtype=dtype))


def _cached(key: tuple, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    """The result of make() or its cached result for the same key, which must not be written to."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # every trace must record the same
        return make()
    stream = None
    if device.type == "cuda" and torch.cuda.is_initialized():  # it is not for fake tensors
        stream = torch.cuda.current_stream(device)
    if stream is not None and is_captured(device):
        if key not in _cache:
            raise RuntimeError(
                "JPEG's tables are brought to the device at their first use, which a CUDA graph cannot "
                f"capture: make one call with the same quality on {device} before"
            )
        tables = _cache[key].tables
        _read_by_graphs[id(tables)] = tables
        return tables
    if key not in _cache:
        with torch.inference_mode(False):  # a backward pass cannot save inference tensors
            tables = make()
        if type(tables) is not Tensor:  # a fake tensor of a trace
            return tables
        if len(_cache) >= 256:
            _cache.clear()
        _cache[key] = _CacheEntry(tables, stream, None if stream is None else stream.record_event())
    entry = _cache[key]
    if entry.event is not None and stream is not None and stream != entry.stream:
        stream.wait_event(entry.event)
        entry.tables.record_stream(stream)
    return entry.tables


class _CacheEntry(NamedTuple):
    tables: Tensor
    stream: torch.cuda.Stream | None  # the GPU stream that made the tables
    event: torch.cuda.Event | None  # recorded once they were made


_cache: dict[tuple, _CacheEntry] = {}
# Never cleared: each replay of a CUDA graph reads the memory that was there at its capture.
_read_by_graphs: dict[int, Tensor] = {}


def _floor(x: Tensor) -> Tensor:
    return x + (x.floor() - x).detach()


def _smooth_floor(x: Tensor) -> Tensor:
    nearest = (x - 0.5).detach().round()
    return nearest + (x - 0.5 - nearest) ** 3


def tables_for(image: Tensor, quality: float | Tensor | None, tables: Tensor | None, rounding: str) -> Tensor:
    """The codec's steps, (N or 1, 2, 8, 8), float64 for float64 images, else float32; NaN where invalid."""
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
    """A mask of invalid steps; raises a ValueError that names one if their values can be read.

    Args:
        exact: whether the steps are used unscaled by the exact codec, which rounds them to whole bytes.
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
    _check_quality(name, value, "")  # type: ignore[arg-type]  # the given value, for the message
    return number


def check_qualities(name: str, quality: Tensor, image: Tensor) -> None:
    """Checks a tensor of one quality for all images or one for each, and, if it can be read, its range."""
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
