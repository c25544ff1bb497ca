"""Checks of the optimizers' options and parameter groups, before torch's constructors get them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from fastgan.ops._checks import (
    FLOATING,
    as_flag,
    as_list,
    as_number,
    check_floating,
    check_instance,
    described,
    may_look_at,
    shown,
)

# The beginnings of torch's messages for numbers out of range.
_TORCH_MESSAGES = {
    "lr": "Invalid learning rate: ",
    "eps": "Invalid epsilon value: ",
    "momentum": "Invalid momentum value: ",
    "weight_decay": "Invalid weight_decay value: ",
}


def checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options, checked and as Python numbers; those without a check are unchanged.

    Raises:
        TypeError, ValueError: an option of the wrong kind, or out of range.
    """
    return {name: _CHECKS[name](name, value) if name in _CHECKS else value for name, value in options.items()}


def refuse_differentiable(differentiable: object) -> None:
    """Of torch's options the one that the optimizers do not have."""
    if as_flag("differentiable", differentiable):
        raise ValueError(
            f"differentiable must be False, got {differentiable}: the step is one kernel; use torch.optim's"
        )


def as_groups(params: object) -> list[Any]:
    """The `params` of torch's constructors as a list: parameters, (name, parameter) or groups."""
    groups = as_list("params", params)
    if not groups:
        raise ValueError(
            f"optimizer got an empty parameter list: params must not be empty, got {described(params)}"
        )
    if not isinstance(groups[0], dict):
        _check_parameters(groups, params)
    return groups


def check_group(group: object) -> None:
    """Checks a dict of parameters and options, and replaces these by checked ones, in place."""
    check_instance("param_group", group, dict, "a dict")
    assert isinstance(group, dict)
    if "params" not in group:
        raise ValueError(f"param_group must have 'params', got {described(group)}")
    params = group["params"]
    if isinstance(params, set):
        raise TypeError(f"params must have an order, which a set has not, got {described(params)}")
    group["params"] = [params] if isinstance(params, Tensor) else as_list("params", params)
    _check_parameters(group["params"], params)
    group.update(checked_options(group))


def weight_bounds(clip: float | tuple[float, float] | None) -> tuple[float, float]:
    """A `weight_clip` as (low, high)."""
    if clip is None:
        return -math.inf, math.inf
    if isinstance(clip, (int, float)):
        return -float(clip), float(clip)
    low, high = clip
    return float(low), float(high)


def _check_parameters(items: Iterable[object], given: object) -> None:
    for item in items:
        parameter = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        if not isinstance(parameter, Tensor):
            raise TypeError(f"params must be tensors, got {described(item)} in {_kind(given)}")
        if parameter.dtype not in FLOATING:
            raise TypeError(
                f"params must be real floating-point tensors, got {parameter.dtype} in {_kind(given)}"
            )


def _kind(given: object) -> str:
    return "a dict" if isinstance(given, dict) else f"{type(given).__name__} of params"


# --- one option each ------------------------------------------------------------------------------------


def _number(name: str, value: object) -> float:
    number = as_number(name, value)
    return value if isinstance(value, (int, float)) else number  # integers remain integers


def _not_negative(name: str, value: object) -> float:
    number = _number(name, value)
    if not number >= 0:
        raise ValueError(f"{_TORCH_MESSAGES.get(name, '')}{name} must not be negative, got {value}")
    return number


def _positive(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = _number(name, value)
    if not number > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return number


def _rate(name: str, value: object) -> float | Tensor:
    if not isinstance(value, Tensor):
        return _not_negative(name, value)
    check_floating(name, value)
    if value.numel() != 1:
        raise ValueError(
            f"Tensor {name} must be 1-element: {name} must be one number, got {described(value)}"
        )
    if may_look_at(value) and not value >= 0:
        raise ValueError(f"{_TORCH_MESSAGES[name]}{name} must not be negative, got {value.item()}")
    return value


def _betas(name: str, value: Any) -> tuple[float | Tensor, float | Tensor]:
    first, second = (_beta(name, item, value, index) for index, item in enumerate(_pair(name, value)))
    return first, second


def _beta(name: str, item: Any, pair: object, index: int) -> float | Tensor:
    if isinstance(item, Tensor):
        if item.numel() != 1 or item.dtype not in FLOATING:
            raise ValueError(
                f"Tensor {name}[{index}] must be 1-element: {name} must be two numbers, got "
                f"{described(item)} in a {type(pair).__name__}"
            )
        return item
    if not 0 <= item < 1:
        raise ValueError(
            f"Invalid beta parameter at index {index}: {name} must lie in [0, 1), got {shown(pair)}"
        )
    return item


def _pair(name: str, value: Any) -> Sequence[float | Tensor]:
    """Two numbers as floats; tensors are unchanged."""
    pair = value.tolist() if type(value).__module__ == "numpy" else value
    if not isinstance(pair, Sequence) or isinstance(pair, (str, bytes)) or len(pair) != 2:
        raise TypeError(f"{name} must be two numbers, got {described(value)}")
    try:
        return [item if isinstance(item, Tensor) else as_number(name, item) for item in pair]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be two numbers, got {described(value)}") from error


def _alpha(name: str, value: object) -> float:
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return number


def _optional_flag(name: str, value: object) -> bool | None:
    return None if value is None else as_flag(name, value)


def _weight_clip(name: str, value: Any) -> float | tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, Real) or not (isinstance(value, Sequence) or type(value).__module__ == "numpy"):
        number = as_number(name, value, "a number, or a pair (low, high)")
        if not number > 0:
            raise ValueError(f"{name} must be positive, or a pair (low, high), got {value}")
        return number
    low, high = _pair(name, value)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise TypeError(f"{name} must be a number, or a pair (low, high), got {described(value)}")
    if not low <= high:
        raise ValueError(f"{name} must have low <= high, got {shown(value)}")
    return low, high


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "lr": _rate,
    "betas": _betas,
    "eps": _not_negative,
    "alpha": _alpha,
    "momentum": _not_negative,
    "weight_decay": _not_negative,
    "initial_square_avg": _not_negative,
    "grad_clip_value": _positive,
    "grad_clip_norm": _positive,
    "weight_clip": _weight_clip,
    "foreach": _optional_flag,
    "fused": _optional_flag,
    **dict.fromkeys(
        (
            "amsgrad", "maximize", "capturable", "decoupled_weight_decay", "centered", "eps_inside_sqrt",
            "stochastic_rounding",
        ),
        as_flag,
    ),
}  # fmt: skip
