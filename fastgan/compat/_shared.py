"""What several shims share."""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.losses._input_gradient import check_samples
from fastgan.ops._checks import (
    as_flag,
    check_floating,
    check_same_device,
    check_same_shape,
    described,
    is_among,
    shown,
)


def check_kind(message: str, name: str, value: object, known: tuple[str, ...]) -> None:
    """Raises a NotImplementedError for an unknown choice, with the message of the published code first."""
    if not is_among(value, known):
        said = message.format(value if isinstance(value, str) else described(value))
        raise NotImplementedError(f"{said}: {name} must be one of {', '.join(known)}, got {shown(value)}")


def as_probabilities_flag(value: object, name: str, kind: str) -> bool:
    """`from_probabilities` as a flag, which is for vanilla alone; `name` is what the kind is called."""
    flag = as_flag("from_probabilities", value)
    if flag and kind != "vanilla":
        raise ValueError(f"from_probabilities=True is for vanilla, got True and {name} {kind!r}")
    return flag


def check_logits(**logits: Tensor) -> None:
    """Floating-point tensors of any shape, not empty, on one device."""
    for name, tensor in logits.items():
        check_floating(name, tensor)
        if tensor.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(tensor.shape)}")
    check_same_device(**logits)


def check_pair(**samples: Tensor) -> None:
    """Real and fake samples: floating-point tensors of one shape, on one device."""
    for name, tensor in samples.items():
        check_samples(name, tensor)
    check_same_shape(**samples)
    check_same_device(**samples)


def interpolated(
    real: Tensor, fake: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """Points between real (at weight 1) and fake samples; one weight each, drawn on the given device.

    Where the published code draws, so that a seed gives the same points; in `dtype` where it casts the
    weights.
    """
    part = torch.rand(real.shape[0], *(1,) * (real.dim() - 1), device=device).to(real.device, dtype)
    return (part * real + (1 - part) * fake).detach().requires_grad_()
