"""Optimizers that take hooks, inside of what trainers wrap around them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastgan.ops._checks import described

MOST_WRAPPERS = 10
"""Of an optimizer, around each other; a wrapper may hold itself."""


def optimizers_of(given: object) -> list[torch.optim.Optimizer]:
    """The optimizers of one or several, in which wrappers may hold them as `optimizer`.

    So do those of accelerate, Lightning and DeepSpeed. It is the one inside whose step runs hooks.

    Raises:
        TypeError: none, or something else.
    """
    inside = _with_hooks(given)
    if inside is not None:
        return [inside]
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, Tensor)) else []
    found = []
    for each in listed:
        inside = _with_hooks(each)
        if inside is None:
            raise TypeError(
                "optimizers must be a torch.optim.Optimizer or a list of them, got one that is "
                f"{described(each)}"
            )
        found.append(inside)
    if not found:
        raise TypeError(
            f"optimizers must be a torch.optim.Optimizer or a list of them, got {described(given)}"
        )
    return found


def _with_hooks(optimizer: Any) -> torch.optim.Optimizer | None:
    """The optimizer, or the first one inside of it, that takes hooks; None: there is none."""
    for _ in range(MOST_WRAPPERS):
        if isinstance(optimizer, torch.optim.Optimizer):
            try:
                optimizer.register_step_post_hook(lambda *_: None).remove()
                return optimizer
            except AttributeError:  # a wrapper of that class whose base was never initialized
                pass
        optimizer = getattr(optimizer, "optimizer", None)
    return None


def has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a step has got a closure; the first argument is the optimizer."""
    return callable(args[1] if len(args) > 1 else kwargs.get("closure"))
