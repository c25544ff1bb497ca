"""Helpers that several shims share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan._torch_internals import lerp_all
from fastgan.losses._input_gradient import check_samples
from fastgan.ops._checks import (
    as_flag,
    as_number,
    check_floating,
    check_instance,
    check_same_device,
    check_same_shape,
    described,
    is_among,
    shown,
)


def check_kind(message: str, name: str, value: object, known: tuple[str, ...]) -> None:
    """Raises a NotImplementedError for an unknown choice, with the message of the published code first."""
    if not is_among(value, known):
        text = message.format(value if isinstance(value, str) else described(value))
        raise NotImplementedError(f"{text}: {name} must be one of {', '.join(known)}, got {shown(value)}")


def as_probabilities_flag(value: object, name: str, kind: str) -> bool:
    """`from_probabilities` as a flag, which only vanilla supports; `name` is the argument of the kind."""
    flag = as_flag("from_probabilities", value)
    if flag and kind != "vanilla":
        raise ValueError(f"from_probabilities=True is for vanilla, got True and {name} {kind!r}")
    return flag


def check_logits(**logits: Tensor) -> None:
    """Checks for floating-point tensors of any shape, not empty, on one device."""
    for name, tensor in logits.items():
        check_floating(name, tensor)
        if tensor.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(tensor.shape)}")
    check_same_device(**logits)


def check_pair(**samples: Tensor) -> None:
    """Checks real and fake samples: floating-point tensors of equal shapes, on one device."""
    for name, tensor in samples.items():
        check_samples(name, tensor)
    check_same_shape(**samples)
    check_same_device(**samples)


def broadcast(shape: torch.Size, other: torch.Size) -> torch.Size | None:
    """The broadcast shape of both, or None if they do not broadcast."""
    try:
        return torch.broadcast_shapes(shape, other)
    except RuntimeError:
        return None


def as_images(tensor: Tensor) -> Tensor:
    """Any tensor as N C H W: dimensions before the last three are samples, missing ones have size 1."""
    return tensor.flatten(0, -4) if tensor.dim() > 4 else tensor[(None,) * (4 - tensor.dim())]


def interpolated(
    real: Tensor, fake: Tensor, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """Random points between real (at weight 1) and fake samples, with one weight per sample.

    Args:
        device: where the published code draws the weights, so that a seed gives the same points.
        dtype: the weights' dtype, where the published code casts them.
    """
    weight = torch.rand(real.shape[0], *(1,) * (real.dim() - 1), device=device).to(real.device, dtype)
    return (weight * real + (1 - weight) * fake).detach().requires_grad_()


@torch.no_grad()
def lerp_parameters(
    average: nn.Module, model: nn.Module, decay: float, names: tuple[str, str, str], *, by_name: bool = False
) -> None:
    """Moves each parameter of `average` a share of 1 - decay towards the one of `model`, in its own dtype.

    Args:
        decay: in [0, 1].
        names: of the three arguments, in errors.
        by_name: pair parameters by their names, not in order.
    """
    for name, network in zip(names, (average, model), strict=False):
        check_instance(name, network, nn.Module, "a torch.nn.Module")
    decay = as_number(names[2], decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"{names[2]} must lie in [0, 1], got {decay}")
    averages, parameters = dict(average.named_parameters()), dict(model.named_parameters())
    if by_name:
        missing = averages.keys() - parameters.keys()
        if missing:
            raise ValueError(
                f"{names[1]} must have all parameters of {names[0]}, got {described(model)} without "
                f"{min(missing)!r}"
            )
        parameters = {name: parameters[name] for name in averages}
    elif len(averages) != len(parameters):
        raise ValueError(
            f"{names[1]} must have as many parameters as {names[0]}, {len(averages)}, got {described(model)} "
            f"with {len(parameters)}"
        )
    pairs = list(zip(averages.items(), parameters.values(), strict=True))
    for (name, one), other in pairs:
        if one.shape != other.shape:
            raise ValueError(
                f"{names[1]}'s parameters must have the shapes of {names[0]}'s, got {tuple(other.shape)} for "
                f"{name}, {tuple(one.shape)}"
            )
    if pairs:
        averages_of_all: list[Tensor] = [one for (_, one), _ in pairs]
        lerp_all(averages_of_all, [other.to(one) for (_, one), other in pairs], 1 - decay)
