"""Zeros, in place of None, for gradients of second order, where the code that is replaced has zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastgan._torch_internals import inside_transform


class _Anchor(torch.autograd.Function):
    """An empty tensor in whose backward pass every input gets a gradient of zeros.

    It keeps the inputs' shapes, dtypes and strides, as tensors on the meta device, and none of their memory.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> Tensor:
        ctx.like = [None if tensor is None else torch.empty_like(tensor, device="meta") for tensor in tensors]
        return next(tensor for tensor in tensors if tensor is not None).new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(
            torch.zeros_like(like, device=grad.device) if is_needed else None
            for like, is_needed in zip(ctx.like, ctx.needs_input_grad, strict=True)
        )


class _Anchored(torch.autograd.Function):
    """A gradient, unchanged, that depends on the anchor in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, anchor: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.new_empty(0)


def with_zeros(y: Tensor, *inputs: Tensor | None) -> Tensor:
    """The output y of an activation, whose gradients of second order at the inputs are zeros instead of None.

    The gradient of a piecewise linear activation does not depend on its inputs. If that gradient is
    differentiated in turn, PyTorch's operations and StyleGAN's plugin return zeros, and fastgan's ops None.
    The difference shows: `torch.autograd.grad` raises for None, and an optimizer skips a parameter without a
    gradient, so that Adam's moments would differ after the backward pass of R1.

    With ``create_graph=True`` the gradient of y therefore passes through :class:`_Anchored`, which leads to
    the inputs by :class:`_Anchor`. Transforms of `torch.func` return zeros anyway, and get y as it is; so do
    graphs of `torch.compile`, which have no second order, and of `torch.jit.trace`, which could not be saved
    with a function in Python.

    Args:
        inputs: what y was computed from, such as the input and the bias; None for an absent one.
    """
    is_traced = is_compiling() or torch.jit.is_tracing()
    if y.requires_grad and torch.is_grad_enabled() and not (is_traced or inside_transform()):
        anchor = _Anchor.apply(*inputs)
        y.register_hook(lambda grad: _Anchored.apply(grad, anchor) if torch.is_grad_enabled() else grad)
    return y
