"""How ops are given their gradients, and what a formula may know about the pass it runs in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from fastgan import _torch_internals
from fastgan._torch_internals import (
    batched_by_autograd,
    forward_mode_active,
    inside_transform,
    keeps_graph,
    opaque_to_dynamo,
    transform,
    watched_by_modes,
)
from fastgan.ops import _library
from fastgan.ops._batching import Rule, as_staticmethod

_PLAIN_TENSORS = frozenset((torch.Tensor, torch.nn.Parameter))
# What else ops take: found by hash, in a fifth of the time that isinstance takes to say that it is no tensor.
_NO_TENSORS = frozenset((bool, int, float, type(None)))


def differentiable(name: str, setup_context: Callable, backward: Callable, batched: Rule) -> Callable:
    """Registers the gradient of `fastgan::<name>` and returns the op, with its batching rule, as a function.

    Where an output has no gradient, which is so for masks always, the formula gets None instead of zeros that
    somebody would have to write; it is not called where no output has one.

    The registration serves `torch.compile` and export. Transforms of `torch.func` accept only an
    `autograd.Function` with a separate `setup_context`, so under them the returned function goes through
    one, and in plain eager mode through another, which costs half the time of the registration's layers
    of Python: all three with the same two formulas.

    There is no forward-mode derivative, and asking for one raises.
    """
    public_name = re.sub("_(backward|tangent|(input|weight)_gradient)$", "", name)

    def setup(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    def setup_if_needed(ctx, inputs, output):
        # A transform also asks where none of its own inputs has come in.
        if any(ctx.needs_input_grad):
            setup(ctx, inputs, output)

    def refuse_tangents(ctx, *tangents):
        raise _no_forward_mode(public_name)

    def gradients(ctx, *grads):
        for grad in grads:
            if grad is not None:
                return backward(ctx, *grads)
        return (None,) * len(ctx.needs_input_grad)

    op = getattr(torch.ops.fastgan, name).default
    torch.library.register_autograd(f"fastgan::{name}", gradients, setup_context=setup, lib=_library.LIBRARY)
    kernel = below_autograd(name)

    def kernel_and_setup(ctx, *arguments):
        output = kernel(*arguments)
        setup(ctx, arguments, output)
        return output

    def function(**methods: Callable) -> Any:
        static = {key: staticmethod(method) for key, method in methods.items()}
        return type(name, (torch.autograd.Function,), static)

    transformed = function(
        forward=lambda *inputs: op(*inputs), setup_context=setup_if_needed, backward=gradients,
        vmap=as_staticmethod(batched), jvp=refuse_tangents,
    )  # fmt: skip
    eager = function(forward=kernel_and_setup, backward=gradients)

    # Whether a transform is active is known when the graph is traced through, not when Dynamo reads `call`:
    # it would take the registered gradient, which under a transform has no second order, and says nothing.
    def call(*arguments):
        if is_dynamo_compiling() and tell_dynamo():
            return opaque(*arguments)
        if transform() is not None:
            return transformed.apply(*arguments)
        if forward_mode_active() and _have_tangents(arguments):
            raise _no_forward_mode(public_name)
        if not plain_eager(*arguments):
            return op(*arguments)
        if torch.is_grad_enabled() and _require_grad(arguments):
            return eager.apply(*arguments)
        return kernel(*arguments)

    tell_dynamo, opaque = opaque_to_dynamo(call)
    return call


def first_order_only(name: str, error: type[Exception], message: str, batched: Rule) -> Callable:
    """:func:`differentiable` for the backward op of an op with first-order gradients: a second one raises."""

    def refuse(ctx, *grads):
        raise error(message)

    return differentiable(name, lambda ctx, inputs, output: None, refuse, batched)


def below_autograd(name: str) -> Callable:
    """`fastgan::<name>` as a function that no graph sees."""
    op, without_autograd = getattr(torch.ops.fastgan, name).default, _torch_internals.below_autograd

    def kernel(*arguments):
        with without_autograd():
            return op(*arguments)

    return kernel


def wants_gradient(*arguments: Any) -> bool:
    """Whether a gradient may be asked for with respect to a tensor among the arguments.

    Inside `torch.vmap` that shows no sooner than in the batching rule: what is differentiated is the batch.
    While `torch.compile` traces a transform it does not show at all.
    """
    if not torch.is_grad_enabled():
        return False
    return _require_grad(arguments) or (torch.compiler.is_compiling() and inside_transform())


def _require_grad(arguments: tuple) -> bool:
    for argument in arguments:  # a loop, since every call comes by here: `any` takes twice as long
        if type(argument) in _NO_TENSORS:
            continue
        if isinstance(argument, torch.Tensor) and argument.requires_grad:
            return True
    return False


def check_saved(op: str, wanted: str, is_there: object) -> None:
    """That the forward sweep wrote what the gradient is made of, which its caller asks for by an argument.

    Raises:
        RuntimeError: names the op and the argument. The public functions always ask; calls of
            `torch.ops.fastgan.<op>` may forget to, and would get a gradient of nothing.
    """
    if not is_there:
        raise RuntimeError(f"{op} needs {wanted} where a gradient may be asked for")


def savable(tensor: Tensor | None) -> Tensor | None:
    """The tensor, or a copy of one made in inference mode, which autograd refuses to save as it is."""
    return tensor.clone() if tensor is not None and tensor.is_inference() else tensor


def saved_tensors_are_ours(grad: torch.Tensor) -> bool:
    """Whether this backward pass, with this incoming gradient, is the last to see what was saved for it.

    Then a formula may write its result into a saved tensor that nothing else refers to, and spare an
    allocation the size of a gradient. True only for an eager ``backward()`` without ``retain_graph``,
    ``create_graph`` or ``is_grads_batched``; AOTAutograd donates its buffers under the same condition. False
    where this torch does not tell, and while anything traces: of what is saved in a compiled graph the
    strides may change, which torch 2.11 forgets where it is written to. There `is_compiling` does not say so.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or watched_by_modes():
        return False
    return not keeps_graph() and not inside_transform() and not batched_by_autograd(grad)


def plain_eager(*arguments: Any) -> bool:
    """Whether nothing but autograd stands between the caller and the kernel: no mode that watches operations
    (fake tensors, tracing, flop counters), no tensor subclass, no batch of gradients.
    """
    if watched_by_modes():
        return False
    for argument in arguments:
        kind = type(argument)
        if kind in _PLAIN_TENSORS:
            if batched_by_autograd(argument):
                return False
        elif kind not in _NO_TENSORS and isinstance(argument, torch.Tensor):
            return False
    return True


def _have_tangents(arguments: tuple) -> bool:
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in _tensors(arguments))


def _no_forward_mode(op: str) -> NotImplementedError:
    """Instead of dropping tangents without a word."""
    return NotImplementedError(
        f"{op} has no forward-mode derivative; backend='reference', or fastgan.use('reference'), has one "
        "where PyTorch's operations do"
    )


def _tensors(arguments: tuple) -> list[torch.Tensor]:
    return [argument for argument in arguments if isinstance(argument, torch.Tensor)]
