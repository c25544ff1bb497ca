"""Ops that take lists of tensors, as functions without lists, into which `autograd.Function` does not look.

Such a function is called as ``function(form, *tensors)``, with a :class:`Form` that has all other arguments
and the tensors of all lists. The formulas behind it see the arguments of the op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan._torch_internals import schema

_TENSOR, _OTHER = -1, -2


class Form:
    """The arguments of an op without its tensors, for which it has the places."""

    __slots__ = ("_arguments", "_lengths")

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._lengths = [
            len(argument)
            if isinstance(argument, list)
            else _TENSOR
            if isinstance(argument, Tensor)
            else _OTHER
            for argument in arguments
        ]
        self._arguments = [
            argument if length == _OTHER else None
            for argument, length in zip(arguments, self._lengths, strict=True)
        ]

    def pack(self, tensors: Sequence[Any]) -> list[Any]:
        """The arguments, with these tensors in their places and lists."""
        return self._packed(tensors, self._arguments)

    def spread(self, flags: Sequence[bool]) -> list[Any]:
        """What belongs to each tensor, in lists of the same lengths, and False for other arguments."""
        return self._packed(flags, [False] * len(self._lengths))

    def _packed(self, items: Sequence[Any], others: list[Any]) -> list[Any]:
        packed, begin = list(others), 0
        for place, length in enumerate(self._lengths):
            if length == _TENSOR:
                packed[place] = items[begin]
                begin += 1
            elif length != _OTHER:
                packed[place] = [*items[begin : begin + length]]
                begin += length
        return packed

    def items(self, results: Sequence[Any]) -> list[Any]:
        """The results that belong to tensors, of a list of them with one for each argument."""
        items: list[Any] = []
        for length, result in zip(self._lengths, results, strict=True):
            if length == _TENSOR:
                items.append(result)
            elif length != _OTHER:
                items += result
        return items


def takes_lists(op: Any) -> bool:
    """Whether the schema has an argument ``Tensor[]``."""
    return any(
        isinstance(argument.type, torch.ListType) and argument.type.getElementType() == torch.TensorType.get()
        for argument in schema(op).arguments
    )


def flattened(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The form and all tensors."""
    form = Form(arguments)
    return form, *form.items(arguments)


def on_flat(function: Callable) -> Callable:
    """The function of the op's arguments as one of ``(form, *tensors)``."""
    return lambda form, *tensors: function(*form.pack(tensors))


def with_context_on_flat(function: Callable) -> Callable:
    """The function of a context and of the op's arguments as one of ``(ctx, form, *tensors)``."""

    def of_flat(ctx: Any, form: Form, *tensors: Any) -> Any:
        ctx.form = form
        return function(ctx, *form.pack(tensors))

    return of_flat


def setup_on_flat(setup_context: Callable) -> Callable:
    """`setup_context`, which sees the op's arguments; `ctx.needs_input_grad` stays flat."""

    def setup(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.form, *tensors = inputs
        setup_context(ctx, ctx.form.pack(tensors), output)

    return setup


def gradients_on_flat(gradients: Callable) -> Callable:
    """The formula, which sees `ctx.needs_input_grad` with lists, as those registered by torch.library do."""

    def of_flat(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad
        ctx.needs_input_grad = tuple(ctx.form.spread(needed[1:]))
        try:
            return None, *ctx.form.items(gradients(ctx, *grads))
        finally:
            ctx.needs_input_grad = needed

    return of_flat


def rule_on_flat(rule: Callable) -> Callable:
    """The batching rule, which sees the op's arguments, and which of them are batched, with lists."""

    def of_flat(size: int, batched: Sequence[bool], form: Form, *tensors: Any) -> Any:
        return rule(size, form.spread(batched[1:]), *form.pack(tensors))

    return of_flat
