"""Which of two networks is trained and which is its average, where a caller may have swapped them."""

from __future__ import annotations

import weakref
from typing import NamedTuple

from torch import Tensor, nn

from fastgan._torch_internals import version


class _Call(NamedTuple):
    """What the last call for an average left behind."""

    model: weakref.ref[nn.Module]
    of_model: int
    """The sum of its parameters' versions; likewise `of_average`."""
    of_average: int


_last_calls: weakref.WeakKeyDictionary[nn.Module, _Call] = weakref.WeakKeyDictionary()


def check_order(model: nn.Module, average: nn.Module, params: list[Tensor], averages: list[Tensor]) -> None:
    """Raises a ValueError where the average is what is trained.

    Averages may require gradients (StarGAN v2), the model need not do so between steps (StyleGAN3), and its
    gradients may have been set to None: one sign that the model is the model settles it.
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
    """Whether something wrote into the average, and nothing into the model, since the last call with both."""
    last = _last_calls.get(average)
    if last is None or last.model() is not model:
        return False
    return _versions(averages) != last.of_average and _versions(params) == last.of_model


def remember(model: nn.Module, average: nn.Module, params: list[Tensor], averages: list[Tensor]) -> None:
    """For the next call, unless the average is frozen, which tells enough."""
    if any(parameter.requires_grad for parameter in averages):
        _last_calls[average] = _Call(weakref.ref(model), _versions(params), _versions(averages))


def _versions(tensors: list[Tensor]) -> int:
    return sum(map(version, tensors))
