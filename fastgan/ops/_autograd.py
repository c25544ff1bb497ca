"""Registration of the ops' gradients, and what a backward formula may know about the pass it runs in."""

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
    requires_grad_outside,
    transform,
    watched_by_modes,
)
from fastgan.ops import _library, _lists
from fastgan.ops._batching import Rule, as_staticmethod

_PLAIN_TENSORS = frozenset((torch.Tensor, torch.nn.Parameter))
# The other argument types of ops. A look-up by hash takes a fifth of the time of a negative isinstance.
_NON_TENSORS = frozenset((bool, int, float, type(None), _lists.Form))


def differentiable(name: str, setup_context: Callable, backward: Callable, batched: Rule) -> Callable:
    """Registers the gradient of `fastgan::<name>` and returns the op, with its batching rule, as a function.

    For an output without an incoming gradient, as masks always are, the formula gets None instead of a tensor
    of zeros; if no output has one, it is not called.

    The registration serves `torch.compile` and export. Transforms of `torch.func` accept only an
    `autograd.Function` with a separate `setup_context`, so under them the returned function uses one. Plain
    eager mode uses another one, which takes half the time of the registration's Python layers. All three
    share the same two formulas.

    Of an op that takes lists of tensors, both formulas and the rule see arguments with lists. So does the
    backward formula `ctx.needs_input_grad`, which the other must not read, and it returns a list for a list.

    There is no forward-mode derivative; asking for one raises NotImplementedError.
    """
    public_name = re.sub("_((double_)?backward|tangent|(input|weight)_gradient)$", "", name)

    def setup(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    def gradients(ctx, *grads):
        for grad in grads:
            if grad is not None:
                return backward(ctx, *grads)
        return tuple([[None] * len(of) if isinstance(of, list) else None for of in ctx.needs_input_grad])

    op = getattr(torch.ops.fastgan, name).default
    torch.library.register_autograd(f"fastgan::{name}", gradients, setup_context=setup, lib=_library.LIBRARY)
    kernel = below_autograd(name)
    takes_lists, places = _lists.takes_lists(op), _lists.places_of_tensors(op)
    kernel_and_setup = _kernel_and_setup(kernel, setup)
    if takes_lists:
        kernel_and_setup = _lists.with_context_on_flat(kernel_and_setup)
        op, kernel, batched = _lists.on_flat(op), _lists.on_flat(kernel), _lists.rule_on_flat(batched)
        setup, gradients = _lists.setup_on_flat(setup), _lists.gradients_on_flat(gradients)

    def setup_if_needed(ctx, inputs, output):
        # Transforms call this even if the op has none of their inputs.
        if any(ctx.needs_input_grad):
            setup(ctx, inputs, output)

    def refuse_tangents(ctx, *tangents):
        raise _no_forward_mode(public_name)

    def function(**methods: Callable) -> Any:
        static = {key: staticmethod(method) for key, method in methods.items()}
        return type(name, (torch.autograd.Function,), static)

    transformed = function(
        forward=lambda *inputs: op(*inputs), setup_context=setup_if_needed, backward=gradients,
        vmap=as_staticmethod(batched), jvp=refuse_tangents,
    )  # fmt: skip
    eager = function(forward=kernel_and_setup, backward=gradients)

    # Whether a transform is active is known once the graph is traced, not yet when Dynamo reads `call`: it
    # would choose the registered gradient, which silently lacks a second order under a transform.
    def call(*arguments):
        if is_dynamo_compiling() and register():
            return opaque(*arguments)
        if takes_lists:
            arguments = _lists.flattened(places, arguments)
        if transform() is not None:
            return transformed.apply(*arguments)
        if forward_mode_active() and _have_tangents(arguments):
            raise _no_forward_mode(public_name)
        if not plain_eager(*arguments):
            return op(*arguments)
        if torch.is_grad_enabled() and _require_grad(arguments):
            return eager.apply(*arguments)
        return kernel(*arguments)

    register, opaque = opaque_to_dynamo(call)
    return call


def _kernel_and_setup(kernel: Callable, setup: Callable) -> Callable:
    def kernel_and_setup(ctx, *arguments):
        output = kernel(*arguments)
        setup(ctx, arguments, output)
        return output

    return kernel_and_setup


def first_order_only(name: str, error: type[Exception], message: str, batched: Rule) -> Callable:
    """:func:`differentiable` for the backward op of an op without second-order gradients, which raise."""

    def refuse(ctx, *grads):
        raise error(message)

    return differentiable(name, lambda ctx, inputs, output: None, refuse, batched)


def below_autograd(name: str) -> Callable:
    """`fastgan::<name>` as a function that autograd does not record."""
    op, without_autograd = getattr(torch.ops.fastgan, name).default, _torch_internals.below_autograd

    def kernel(*arguments):
        with without_autograd():
            return op(*arguments)

    return kernel


def wants_gradient(*arguments: Any) -> bool:
    """Whether a gradient with respect to one of the arguments may be asked for.

    Inside `torch.vmap` this is known only in the batching rule, since the batch is what is differentiated.
    Inside `torch.func.grad` one may be asked for outside of it, too. While `torch.compile` traces a transform
    it is not known at all, and the answer is True. It is True in `torch.jit.trace`, too, because torch
    compares its graph with one that it records without gradients.
    """
    if torch.jit.is_tracing():
        return True
    if not torch.is_grad_enabled():
        return False
    if _require_grad(arguments):
        return True
    if not inside_transform():
        return False
    return torch.compiler.is_compiling() or _require_grad_outside(arguments)


def saved_gradient(x: torch.Tensor, y: torch.Tensor | None) -> tuple[int, torch.dtype | None]:
    """The sign and dtype of the gradient that a loss of x - y (or of x alone) saves; 0 and None if none.

    That of x, or its opposite if y alone needs one, in the dtype of what needs it. Where it is not known who
    does, in `torch.jit.trace` and while `torch.compile` traces a transform, that of x in the wider dtype.

    Never float16, in which the gradient of a mean over many pixels may overflow or be subnormal, although its
    product with the incoming gradient is neither.
    """
    if not wants_gradient(x, y):
        return 0, None
    images = [x] if y is None else [x, y]
    needed = [] if torch.jit.is_tracing() else [image for image in images if _needs_gradient(image)]
    dtypes = [image.dtype for image in needed or images]
    dtype = torch.promote_types(dtypes[0], dtypes[-1])
    only_y = len(needed) == 1 and needed[0] is not x
    return -1 if only_y else 1, torch.float32 if dtype == torch.float16 else dtype


def _needs_gradient(image: torch.Tensor) -> bool:
    if image.requires_grad:
        return True
    return not torch.compiler.is_compiling() and _require_grad_outside((image,))


def _require_grad_outside(arguments: tuple) -> bool:
    tensors = (argument for argument in arguments if isinstance(argument, torch.Tensor))
    return any(requires_grad_outside(tensor) for tensor in tensors)


def _require_grad(arguments: tuple) -> bool:
    for argument in arguments:  # a loop, since this is part of every call and `any` takes twice as long
        if type(argument) in _NON_TENSORS:
            continue
        if isinstance(argument, torch.Tensor) and argument.requires_grad:
            return True
    return False


def check_saved(op: str, argument: str, is_saved: object) -> None:
    """Checks that the forward sweep saved what its gradient needs, which the caller requests by an argument.

    Raises:
        RuntimeError: names the op and the argument. The public functions always pass it; a direct call of
            `torch.ops.fastgan.<op>` may omit it, and would have nothing to compute a gradient from.
    """
    if not is_saved:
        raise RuntimeError(f"{op} needs {argument} where a gradient may be asked for")


def savable(tensor: Tensor | None) -> Tensor | None:
    """The tensor, or a copy if it was made in inference mode, since autograd refuses to save such tensors."""
    return tensor.clone() if tensor is not None and tensor.is_inference() else tensor


def saved_tensors_are_ours(grad: torch.Tensor) -> bool:
    """Whether this backward pass, with this incoming gradient, is the last use of its saved tensors.

    Then a formula may write its result into a saved tensor without other references, which avoids an
    allocation of the gradient's size. True only for an eager ``backward()`` without ``retain_graph``,
    ``create_graph`` or ``is_grads_batched``; AOTAutograd donates its buffers under the same condition. False
    if this torch cannot tell, and during any tracing: a compiled graph may change the strides of saved
    tensors, which torch 2.11 disregards when they are written to. `is_compiling` does not cover all tracing.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or watched_by_modes():
        return False
    return not keeps_graph() and not inside_transform() and not batched_by_autograd(grad)


def plain_eager(*arguments: Any) -> bool:
    """Whether only autograd stands between the caller and the kernel: no dispatch mode (fake tensors,
    tracing, flop counters), no `torch.jit.trace`, no tensor subclass, no batch of gradients.
    """
    if watched_by_modes() or torch.jit.is_tracing():
        return False
    for argument in arguments:
        kind = type(argument)
        if kind in _PLAIN_TENSORS:
            if batched_by_autograd(argument):
                return False
        elif kind not in _NON_TENSORS and isinstance(argument, torch.Tensor):
            return False
    return True


def _have_tangents(arguments: tuple) -> bool:
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in _tensors(arguments))


def _no_forward_mode(op: str) -> NotImplementedError:
    """The error raised for tangents, which would otherwise be dropped silently."""
    return NotImplementedError(
        f"{op} has no forward-mode derivative; backend='reference', or fastgan.use('reference'), has one "
        "where PyTorch's operations do"
    )


def _tensors(arguments: tuple) -> list[torch.Tensor]:
    return [argument for argument in arguments if isinstance(argument, torch.Tensor)]
