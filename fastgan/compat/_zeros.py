"""Second-order gradients that are zero, where the original's zeros are wanted in place of none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastgan._torch_internals import inside_transform


class _Anchor(torch.autograd.Function):
    """Holds on to the graph of tensors without their memory; its gradient is zero at each."""

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
    """The gradient itself, with an edge to the anchor."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, anchor: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.new_empty(0)


def with_zeros(y: Tensor, *inputs: Tensor | None) -> Tensor:
    """Y, whose gradient has gradients of zeros at the inputs that it was computed from, and not none.

    The gradient of a piecewise linear activation does not depend on its inputs. PyTorch's composition and
    StyleGAN's plugin say so by zeros, and ours by None, which `torch.autograd.grad` refuses, and which an
    optimizer skips: R1's backward would leave other moments in Adam.

    `torch.func` gives zeros anyway, and a compiled graph has no second order.
    """
    if y.requires_grad and torch.is_grad_enabled() and not (is_compiling() or inside_transform()):
        anchor = _Anchor.apply(*inputs)
        y.register_hook(lambda grad: _Anchored.apply(grad, anchor) if torch.is_grad_enabled() else grad)
    return y
