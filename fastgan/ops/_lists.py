"""Ops that take lists of tensors, as functions without lists, into which `autograd.Function` does not look.

Such a function is called as ``function(form, *tensors)``, with a :class:`Form` that has all other arguments
and the tensors of all lists. The formulas behind it see the arguments of the op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastgan._torch_internals import schema

_TENSOR = -1


class Form:
    """The arguments of an op without its tensors, for which it has the places.

    Args:
        places: the positions of tensors and lists of tensors, as :func:`places_of_tensors` has them.
    """

    __slots__ = ("_arguments", "_lengths", "_places")

    def __init__(self, places: tuple[int, ...], arguments: Sequence[Any]) -> None:
        self._places = places
        self._arguments = [*arguments]
        self._lengths = []
        for place in places:
            argument = arguments[place]
            self._lengths.append(len(argument) if isinstance(argument, list) else _TENSOR)
            self._arguments[place] = None  # holds no tensor

    def pack(self, tensors: Sequence[Any]) -> list[Any]:
        """The arguments, with these tensors in their places and lists."""
        return self._packed(tensors, [*self._arguments])

    def spread(self, flags: Sequence[bool]) -> list[Any]:
        """What belongs to each tensor, in lists of the same lengths, and False for other arguments."""
        return self._packed(flags, [False] * len(self._arguments))

    def _packed(self, items: Sequence[Any], packed: list[Any]) -> list[Any]:
        begin = 0
        for place, length in zip(self._places, self._lengths, strict=True):
            if length == _TENSOR:
                packed[place] = items[begin]
                begin += 1
            else:
                packed[place] = [*items[begin : begin + length]]
                begin += length
        return packed

    def items(self, results: Sequence[Any]) -> list[Any]:
        """The results that belong to tensors, of a list of them with one for each argument."""
        items: list[Any] = []
        for place, length in zip(self._places, self._lengths, strict=True):
            if length == _TENSOR:
                items.append(results[place])
            else:
                items += results[place]
        return items


def takes_lists(op: Any) -> bool:
    """Whether the schema has an argument ``Tensor[]``."""
    return any(_is_list(argument.type) for argument in schema(op).arguments)


def places_of_tensors(op: Any) -> tuple[int, ...]:
    """The positions of the op's arguments that are tensors (or None in place of one) or lists of tensors."""
    optional = torch.OptionalType(torch.TensorType.get())
    return tuple(
        place
        for place, argument in enumerate(schema(op).arguments)
        if _is_list(argument.type) or argument.type in (torch.TensorType.get(), optional)
    )


def _is_list(kind: Any) -> bool:
    return isinstance(kind, torch.ListType) and kind.getElementType() == torch.TensorType.get()


def flattened(places: tuple[int, ...], arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The form and all tensors."""
    form = Form(places, arguments)
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
