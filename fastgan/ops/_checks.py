"""Checks of arguments that several ops share. Each names the offending value."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch


def check_same_device(**tensors: torch.Tensor) -> None:
    if len({tensor.device for tensor in tensors.values()}) > 1:
        listed = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"all tensors must be on one device, got {listed}")


def check_image(name: str, image: torch.Tensor, channels: int | None = 3) -> None:
    """A floating-point N C H W tensor with at least one pixel, of any number of channels for None."""
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(image).__name__}")
    if not image.is_floating_point():
        raise TypeError(
            f"{name} must be a floating-point image in [0, 1], got {image.dtype}; "
            "convert 8-bit images with image.float() / 255"
        )
    # Not `in`: torch 2.11 cannot trace that with a dynamic shape.
    if image.dim() != 4 or (channels is not None and image.shape[1] != channels):
        wanted = "C" if channels is None else channels
        raise ValueError(f"{name} must have shape (N, {wanted}, H, W), got {tuple(image.shape)}")
    if image.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(image.shape)}")


def check_one_of(name: str, value: object, known: Iterable[object]) -> None:
    """Raises ValueError, which lists the choices, for a value that is not one of them."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def is_finite(number: float) -> bool:
    """As `math.isfinite`, which torch.compile cannot trace where shapes and numbers are dynamic."""
    return abs(number) < math.inf


def check_floating(name: str, value: object) -> None:
    """A floating-point tensor of any shape."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it fills its memory without gaps or overlaps, else a contiguous copy."""
    return tensor if torch.empty_like(tensor).stride() == tensor.stride() else tensor.contiguous()


def may_look_at(tensor: torch.Tensor) -> bool:
    """Whether its values can be read here and now: no device to wait for, no trace to break."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return tensor.device.type == "cpu" and type(tensor) in (torch.Tensor, torch.nn.Parameter)


def scalar_tensor(name: str, value: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A number as a 0-d tensor beside `like`; a 0-d tensor as it is, so that nothing synchronizes."""
    if isinstance(value, torch.Tensor):
        if value.dim() != 0 or not value.is_floating_point():
            raise ValueError(
                f"{name} must be a number or a 0-d floating-point tensor, "
                f"got shape {tuple(value.shape)}, {value.dtype}"
            )
        if value.requires_grad:
            raise ValueError(f"{name} is not differentiable, but requires grad: pass it detached")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or a 0-d tensor, got {type(value).__name__}")
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.full((), float(value), dtype=dtype, device=like.device)
