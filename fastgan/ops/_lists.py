"""Ops that take lists of tensors, as functions without lists, into which `autograd.Function` does not look.

Such a function is called as ``function(form, *flat)``, with a :class:`Form` and the items of all lists. The
formulas behind it see arguments with lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastgan._torch_internals import schema


class Form:
    """Which of an op's arguments are lists, and their lengths."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._lengths = [len(argument) if isinstance(argument, list) else None for argument in arguments]

    def pack(self, flat: Sequence[Any]) -> list[Any]:
        """The arguments with lists, or what belongs to each argument in lists of the same lengths."""
        items = iter(flat)
        return [
            next(items) if length is None else [next(items) for _ in range(length)]
            for length in self._lengths
        ]


def takes_lists(op: Any) -> bool:
    """Whether the schema has an argument ``Tensor[]``."""
    return any(
        isinstance(argument.type, torch.ListType) and argument.type.getElementType() == torch.TensorType.get()
        for argument in schema(op).arguments
    )


def flattened(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The form and all items."""
    return Form(arguments), *_items(arguments)


def on_flat(function: Callable) -> Callable:
    """The function of arguments with lists as one of ``(form, *flat)``."""
    return lambda form, *flat: function(*form.pack(flat))


def setup_on_flat(setup_context: Callable) -> Callable:
    """`setup_context`, which sees inputs with lists; `ctx.needs_input_grad` stays flat."""

    def setup(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.form, *flat = inputs
        setup_context(ctx, ctx.form.pack(flat), output)

    return setup


def gradients_on_flat(gradients: Callable) -> Callable:
    """The formula, which sees `ctx.needs_input_grad` with lists, as those registered by torch.library do."""

    def of_flat(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad
        ctx.needs_input_grad = tuple(ctx.form.pack(needed[1:]))
        try:
            return None, *_items(gradients(ctx, *grads))
        finally:
            ctx.needs_input_grad = needed

    return of_flat


def rule_on_flat(rule: Callable) -> Callable:
    """The batching rule, which sees arguments, and which of them are batched, with lists."""

    def of_flat(size: int, batched: Sequence[bool], form: Form, *flat: Any) -> Any:
        return rule(size, form.pack(batched[1:]), *form.pack(flat))

    return of_flat


def _items(arguments: Sequence[Any]) -> list[Any]:
    items: list[Any] = []
    for argument in arguments:
        items += argument if isinstance(argument, list) else [argument]
    return items
