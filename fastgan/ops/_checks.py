"""Argument checks that public functions share. Each error names the argument and the offending value.

A valid call costs a few isinstance tests; messages are composed only when an error is raised.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence

import torch

from fastgan._torch_internals import inside_transform

# The dtypes that kernels and references support. Others, like float8, have hardly any operations in torch.
FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_STRIDED = torch.strided
# Symbolic numbers of a trace, whose values are unknown.
_SYMBOLS = (torch.SymInt, torch.SymFloat)
_BEYOND_FLOATS = 2**1024


# --- values in error messages ---------------------------------------------------------------------------


def described(value: object) -> str:
    """Text for a value of the wrong kind: its type and repr, or of tensors and arrays shape and dtype."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        shape = "nested tensors" if value.is_nested else f"shape {tuple(value.shape)}"
        layout = "" if value.layout is torch.strided else f", {value.layout}"
        device = "" if value.device.type == "cpu" else f", on {value.device}"
        return f"{value.dtype} of {shape}{layout}{device}"
    kind = type(value).__name__
    dimensions = getattr(value, "shape", None)
    if isinstance(dimensions, tuple) and dimensions:
        return f"{kind} of shape {dimensions}, {getattr(value, 'dtype', None)}"
    return f"{kind} {_short(repr(value))}"


def shown(value: object) -> str:
    """Text for a wrong value of the right kind: its repr, if that is short."""
    plain = isinstance(value, (str, int, float, tuple)) and len(repr(value)) <= 80
    return repr(value) if plain else described(value)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- tensors ----------------------------------------------------------------------------------------------


def check_tensor(name: str, value: object) -> None:
    """Raises a TypeError unless the value is a plain tensor: not sparse, nested or quantized."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {described(value)}")
    if value.layout is not _STRIDED or value.is_nested or value.is_quantized:
        raise TypeError(f"{name} must be a dense tensor, got {described(value)}")


def check_real(name: str, value: object) -> None:
    """Raises a TypeError unless the value is a dense tensor of floating-point numbers, integers or bools."""
    check_tensor(name, value)
    dtype = value.dtype  # type: ignore[attr-defined]
    if dtype not in FLOATING and (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"{name} must be a tensor of real numbers, got {described(value)}")


def check_floating(name: str, value: object) -> None:
    """Raises a TypeError unless the value is a dense tensor of float32, bfloat16, float16 or float64."""
    if not isinstance(value, torch.Tensor) or value.dtype not in FLOATING:
        raise TypeError(f"{name} must be a floating-point tensor, got {described(value)}")
    if value.layout is not _STRIDED or value.is_nested:
        raise TypeError(f"{name} must be a dense tensor, got {described(value)}")


def is_floating(value: object) -> bool:
    """Whether :func:`check_floating` lets it pass."""
    if not isinstance(value, torch.Tensor) or value.dtype not in FLOATING:
        return False
    return value.layout is _STRIDED and not value.is_nested


def check_image(name: str, image: torch.Tensor, channels: int | None = 3) -> None:
    """Checks for a floating-point N C H W tensor with at least one pixel; channels=None allows any number."""
    if not isinstance(image, torch.Tensor) or image.layout is not _STRIDED or image.is_nested:
        check_tensor(name, image)
    if image.dtype not in FLOATING:
        raise TypeError(
            f"{name} must be a floating-point image in [0, 1], got {described(image)}; "
            "convert 8-bit images with image.float() / 255"
        )
    # Not by `in`, which torch 2.11 cannot trace with a dynamic shape.
    if image.dim() != 4 or (channels is not None and image.shape[1] != channels):
        wanted = "C" if channels is None else channels
        raise ValueError(f"{name} must have shape (N, {wanted}, H, W), got {tuple(image.shape)}")
    if image.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(image.shape)}")


def check_same_device(**tensors: torch.Tensor) -> None:
    device = None
    for tensor in tensors.values():
        if device is None:
            device = tensor.device
        elif tensor.device != device:
            listed = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
            raise ValueError(f"all tensors must be on one device, got {listed}")


def check_same_shape(**tensors: torch.Tensor) -> None:
    shape = None
    for tensor in tensors.values():
        if shape is None:
            shape = tensor.shape
        elif tensor.shape != shape:
            listed = " and ".join(str(tuple(tensor.shape)) for tensor in tensors.values())
            raise ValueError(f"{' and '.join(tensors)} must have the same shape, got {listed}")


def check_alike(first: str, a: torch.Tensor, second: str, b: torch.Tensor) -> None:
    """Checks that two tensors have equal shapes and one device."""
    if a.shape != b.shape:
        check_same_shape(**{first: a, second: b})
    if a.device != b.device:
        check_same_device(**{first: a, second: b})


def scalar_tensor(name: str, value: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A number as a 0-d tensor on the device of `like`; a 0-d tensor unchanged, without synchronization."""
    if isinstance(value, torch.Tensor):
        check_tensor(name, value)
        if value.dim() != 0 or value.dtype not in FLOATING:
            raise ValueError(
                f"{name} must be a number or a 0-d floating-point tensor, "
                f"got shape {tuple(value.shape)}, {value.dtype}"
            )
        if value.requires_grad:
            raise ValueError(f"{name} is not differentiable, but requires grad: pass it detached")
        return value
    number = as_finite(name, value, "a number or a 0-d tensor")
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full((), number, dtype=dtype, device=like.device)


# --- numbers, choices and the rest --------------------------------------------------------------------------


def as_number(name: str, value: object, wanted: str = "a number") -> float:
    """A number of Python or numpy (0-d arrays included) as Python's float. Bools are refused, and so are
    tensors, whose conversion would synchronize.
    """
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, numbers.Real, *_SYMBOLS)):
        kind = getattr(getattr(value, "dtype", None), "kind", None)  # of numpy's arrays
        if kind in ("i", "u", "f") and value.shape == ():  # type: ignore[attr-defined]
            return float(value)  # type: ignore[arg-type]
        raise TypeError(f"{name} must be {wanted}, got {described(value)}")
    if isinstance(value, _SYMBOLS):
        return value  # type: ignore[return-value]
    if isinstance(value, int) and abs(value) >= _BEYOND_FLOATS:
        raise ValueError(f"{name} must be a number that a float can hold, got {described(value)}")
    return float(value)


def as_finite(name: str, value: object, wanted: str = "a number") -> float:
    """:func:`as_number` that refuses infinity and NaN."""
    if type(value) is float and -math.inf < value < math.inf:
        return value
    number = as_number(name, value, wanted)
    if not is_finite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def as_factor(name: str, value: object) -> float | torch.Tensor:
    """A finite number, or a 0-d tensor unchanged, without synchronization."""
    if isinstance(value, torch.Tensor):
        check_real(name, value)
        if value.dim() != 0:
            raise ValueError(f"{name} must be a number or a 0-d tensor, got {described(value)}")
        return value
    return as_finite(name, value, "a number or a 0-d tensor")


def as_not_negative(name: str, value: object) -> float:
    number = as_finite(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return number


def as_seed(name: str, value: object) -> int:
    """A valid seed of torch's generators, as Python's int."""
    check_instance(name, value, numbers.Integral, "a whole number")
    number = int(value)  # type: ignore[call-overload]
    if isinstance(value, bool) or not -(2**63) <= number < 2**64:
        raise ValueError(f"{name} must be a whole number of 64 bits, got {shown(value)}")
    return number


def as_whole_number(name: str, value: object, least: int = 1) -> int:
    """An integer of Python or numpy in [least, 2**31), as Python's int."""
    if type(value) is int and least <= value < 2**31:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral, torch.SymInt)):
        raise TypeError(f"{name} must be a whole number, got {described(value)}")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(value)}")
    if number >= 2**31:
        raise ValueError(f"{name} must be less than 2**31, got {shown(value)}")
    return number


def as_numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers, given as a sequence or a numpy array, as a tuple of Python's floats."""
    if type(value) is tuple and len(value) == count:
        for item in value:
            if type(item) is not float or not is_finite(item):
                break
        else:
            return value
    items = value.tolist() if type(value).__module__ == "numpy" else value  # type: ignore[attr-defined]
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        raise TypeError(f"{name} must be {count} numbers, got {described(value)}")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, float, numbers.Real)):
            raise TypeError(f"{name} must be {count} numbers, got {described(value)}")
    if len(items) != count or not all([is_finite(item) for item in items]):
        raise ValueError(f"{name} must be {count} finite numbers, got {shown(value)}")
    return tuple([as_number(name, item) for item in items])


def as_list(name: str, value: object) -> list[object]:
    """The items of an iterable as a list; a string, a dict, a tensor or an array is refused."""
    wrong = isinstance(value, (torch.Tensor, str, bytes, Mapping)) or type(value).__module__ == "numpy"
    if wrong or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of tensors, got {described(value)}")
    return list(value)


def as_flag(name: str, value: object) -> bool:
    """True or False as Python's bool; of other values only 0, 1 and numpy's bools are accepted."""
    if value is True or value is False:
        return value
    if not is_among(value, (False, True)):
        raise TypeError(f"{name} must be True or False, got {described(value)}")
    return bool(value)


def check_one_of(name: str, value: object, known: Iterable[object]) -> None:
    """Raises a ValueError that lists the choices for a value that is not one of them."""
    known = tuple(known)
    if not (value in known if isinstance(value, str) else is_among(value, known)):
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {shown(value)}")


def check_instance(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Raises a TypeError for an object of another class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, got {described(value)}")


def check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {described(value)}")


def as_device(name: str, value: object) -> torch.device:
    """A torch.device; one given by name or index must exist on this machine."""
    if isinstance(value, torch.device):
        return value
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a torch.device or its name, got {described(value)}")
    try:
        device = torch.device(value)
        if not torch.compiler.is_compiling():
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} must be a device of this machine, got {shown(value)}: {reason}") from error
    return device


def check_scaler(name: str, value: object) -> None:
    """Raises a TypeError unless the value is a torch.amp.GradScaler or None."""
    if value is not None:
        check_instance(name, value, torch.amp.GradScaler, "a torch.amp.GradScaler or None")


def check_generator(name: str, value: object) -> None:
    """Raises a TypeError unless the value is a torch.Generator or None (torch's default)."""
    if value is not None:
        check_instance(name, value, torch.Generator, "a torch.Generator or None")


def is_among(value: object, known: tuple[object, ...]) -> bool:
    """`in` by hash, since comparing arrays or tensors gives an array or an error."""
    try:
        return value in frozenset(known)
    except TypeError:  # not hashable: a list, an array
        return False


# --- properties ------------------------------------------------------------------------------------------


def is_finite(number: float) -> bool:
    """`math.isfinite`, which torch.compile cannot trace with dynamic shapes and numbers."""
    return abs(number) < math.inf


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it is non-overlapping and dense, else a contiguous copy."""
    return tensor if torch.empty_like(tensor).stride() == tensor.stride() else tensor.contiguous()


def laid_out_alike(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both contiguous, or both with each pixel's channels together, sample after sample."""
    if not x.is_contiguous() and not x.movedim(1, -1).is_contiguous():
        x = x.contiguous()
    if x.stride() != y.stride():
        y = torch.empty_like(x, dtype=y.dtype).copy_(y)
    return x, y


def may_look_at(tensor: torch.Tensor) -> bool:
    """Whether the tensor's values can be read now, without synchronizing or breaking a trace."""
    if torch.compiler.is_compiling() or inside_transform():
        return False
    return tensor.device.type == "cpu" and type(tensor) in (torch.Tensor, torch.nn.Parameter)
