"""Detects swapped arguments: which of two networks is trained and which is its average."""

from __future__ import annotations

import weakref
from typing import NamedTuple

from torch import Tensor, nn

from fastgan._torch_internals import version


class _Call(NamedTuple):
    """The state after the last call for an average."""

    model: weakref.ref[nn.Module]
    model_version: int
    """The sum of the versions of the model's parameters; `average_version` is that of the average's."""
    average_version: int


_last_calls: weakref.WeakKeyDictionary[nn.Module, _Call] = weakref.WeakKeyDictionary()


def check_order(model: nn.Module, average: nn.Module, params: list[Tensor], averages: list[Tensor]) -> None:
    """Raises a ValueError if the average seems to be the network that is trained.

    Averages may require gradients (StarGAN v2), the model may not require any between steps (StyleGAN3), and
    its gradients may have been set to None, so one sign that the model is being trained suffices.
    """
    if any(parameter.grad is not None for parameter in params):
        return
    model_learns, average_learns = (any(p.requires_grad for p in side) for side in (params, averages))
    has_gradients = any(parameter.grad is not None for parameter in averages)
    if (model_learns and not average_learns) or (model.training and not average.training):
        return
    if has_gradients or (average_learns and not model_learns):
        reason = f"average {'has' if has_gradients else 'requires'} gradients and model does not"
    elif _average_is_stepped(model, average, params, averages):
        reason = "since the last call average was changed, as by an optimizer, and model was not"
    else:
        return
    raise ValueError(
        f"{reason}: they look swapped; the order is update_ema(model, average, decay). If they are not, "
        "freeze the average with average.requires_grad_(False)"
    )


def _average_is_stepped(
    model: nn.Module, average: nn.Module, params: list[Tensor], averages: list[Tensor]
) -> bool:
    """Whether the average's parameters were written to, and the model's were not, since the last call."""
    last = _last_calls.get(average)
    if last is None or last.model() is not model:
        return False
    return _version_sum(averages) != last.average_version and _version_sum(params) == last.model_version


def remember(model: nn.Module, average: nn.Module, params: list[Tensor], averages: list[Tensor]) -> None:
    """Records the state for the next call, unless the average is frozen, which is sign enough."""
    if any(parameter.requires_grad for parameter in averages):
        _last_calls[average] = _Call(weakref.ref(model), _version_sum(params), _version_sum(averages))


def _version_sum(tensors: list[Tensor]) -> int:
    return sum(map(version, tensors))
