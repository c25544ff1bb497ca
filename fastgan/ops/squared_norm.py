r"""The squared L2 norm of each sample of a batch, as gradient penalties take it of a gradient.

.. math::
    s_n = \sum_i x_{n,i}^2, \qquad \frac{\partial L}{\partial x_{n,i}} = 2\, g_n\, x_{n,i}

One sweep each way, in float32 or better; only the input itself is saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable
from fastgan.ops._batching import fold, unfold
from fastgan.ops._checks import check_floating, dense
from fastgan.ops._declare import declare
from fastgan.reference import squared_norm as reference


def squared_norm(x: Tensor, *, backend: str | None = None) -> Tensor:
    """The sum of squares of each sample.

    Args:
        x: N ..., at least one dimension; float32, bfloat16, float16 or float64; any strides.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        (N,), float32, or float64 for float64. Gradients of every order are exact.

    Raises:
        TypeError, ValueError: x is not a floating-point tensor, is 0-d or is empty.
    """
    check_floating("x", x)
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(f"x must hold samples, shape (N, ...), got {tuple(x.shape)}")
    if _dispatch.choose("squared_norm", (x,), backend) == "reference":
        return reference.squared_norm(x)
    return _squared_norm(_supported_layout(x))


def _supported_layout(x: Tensor) -> Tensor:
    """X itself if its samples are consecutive, dense blocks of memory, of any inner order; else a copy."""
    x = dense(x)
    return x if x.shape[0] == 1 or x.stride(0) * x.shape[0] == x.numel() else x.contiguous()


# --- op and fake ----------------------------------------------------------------------------------


@declare("squared_norm(Tensor x) -> Tensor")
def _squared_norm_fake(x):
    return x.new_empty(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32))


@declare("squared_norm_backward(Tensor x, Tensor grad) -> Tensor")
def _squared_norm_backward_fake(x, grad):
    return torch.empty_like(x)


# --- batching: more samples -------------------------------------------------------------------------


def _squared_norms(size, batched, x):
    return unfold(_squared_norm(_supported_layout(fold(x, batched[0], size))), size)


def _squared_norms_backward(size, batched, x, grad):
    x, grad = fold(x, batched[0], size), fold(grad, batched[1], size)
    return unfold(_squared_norm_backward(_supported_layout(x), grad.contiguous()), size)


# --- backward -------------------------------------------------------------------------------------


def _save_for_squared_norm(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _squared_norm_gradient(ctx, grad):
    (x,) = ctx.saved_tensors
    return _squared_norm_backward(x, grad.contiguous())


_squared_norm = differentiable("squared_norm", _save_for_squared_norm, _squared_norm_gradient, _squared_norms)


# --- second order: backward is bilinear in x and the incoming gradient -----------------------------------


def _save_for_squared_norm_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _squared_norm_backward_gradients(ctx, tangent):
    x, grad = ctx.saved_tensors
    grad_x = grad_grad = None
    if ctx.needs_input_grad[0]:
        grad_x = _squared_norm_backward(_supported_layout(tangent), grad)
    if ctx.needs_input_grad[1]:
        grad_grad = 2 * (x.to(grad.dtype) * tangent.to(grad.dtype)).reshape(len(x), -1).sum(dim=1)
    return grad_x, grad_grad


_squared_norm_backward = differentiable(
    "squared_norm_backward", _save_for_squared_norm_backward, _squared_norm_backward_gradients,
    _squared_norms_backward,
)  # fmt: skip
