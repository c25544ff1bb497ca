r"""YUV-weighted squared distance of two RGB images, with a gain that rises towards the border.

.. math::
    d = M (x - y) (1 + g f), \qquad L = \sum_c s_c \, \operatorname{mean}_{n,h,w} d_c^2

M converts RGB to YUV; f falls from 1 on the border to 0 at a quarter of the image's size. The loss is a
quadratic form of x - y, so its gradient is linear in x - y:

.. math::
    \frac{\partial L}{\partial x} = \frac{2}{NHW} D, \; D = M^T \operatorname{diag}(s) M (x - y) (1 + g f)^2

One sweep over x and y gives the loss and the *direction* D' = t D. D' is an output of the op like the loss,
with its own derivative, so gradients of every order are exact: the derivative of D' along v is D' itself,
evaluated at x - y = v.

The factor t is chosen such that D' already is the gradient: 2 / (N H W), negative if only y needs one.
The backward pass then scales D' by the incoming gradient, and skips that where it is 1, as after
``loss.backward()``. In float16 t is 1: 2 / (N H W) would push D' into the subnormals. The ops get the sign of
t, or 0 for t = 1, and take N H W from the tensors, since each new number would make compiled code recompile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import (
    below_autograd,
    check_saved,
    differentiable,
    savable,
    saved_gradient,
    saved_tensors_are_ours,
)
from fastgan.ops._batching import one_by_one, with_batch
from fastgan.ops._checks import as_finite, as_numbers, check_image, check_same_device, dense, scalar_tensor
from fastgan.ops._declare import declare
from fastgan.reference import yuv_l2 as reference


def yuv_l2(
    x: Tensor,
    y: Tensor,
    yuv_scales: tuple[float, float, float] = (1.0, 1.0, 1.0),
    edge_gain: float | Tensor = 0.0,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss and its per-channel means; see :func:`fastgan.losses.yuv_color_l2`."""
    check_image("x", x)
    check_image("y", y)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    scale_y, scale_u, scale_v = as_numbers("yuv_scales", yuv_scales, 3)
    check_same_device(x=x, y=y)
    chosen = _dispatch.choose("yuv_l2", (x, y), backend)
    if chosen != "reference" and not isinstance(edge_gain, Tensor) and not torch.compiler.is_compiling():
        # A number saves the launch that fills a tensor. Compiled code would recompile for each number.
        number = as_finite("edge_gain", edge_gain, "a number or a 0-d tensor")
        loss, channels, _ = _sweep(x, y, None, number, scale_y, scale_u, scale_v)
        return loss, channels
    gain = scalar_tensor("edge_gain", edge_gain, like=x)
    check_same_device(x=x, edge_gain=gain)
    if chosen == "reference":
        loss, channels = reference.yuv_l2(x, y, (scale_y, scale_u, scale_v), gain)
        return loss, channels.detach()
    loss, channels, _ = _sweep(x, y, gain, 0.0, scale_y, scale_u, scale_v)
    return loss, channels


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "yuv_l2(Tensor x, Tensor y, Tensor? edge_gain, float edge_gain_number, float scale_y, float scale_u, "
    "float scale_v, int direction_sign, ScalarType? direction_dtype) "
    "-> (Tensor loss, Tensor channels, Tensor direction)"
)
def _yuv_l2_fake(
    x, y, edge_gain, edge_gain_number, scale_y, scale_u, scale_v, direction_sign, direction_dtype
):
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    loss, channels = x.new_empty((), dtype=dtype), x.new_empty(3, dtype=dtype)
    if direction_dtype is None:
        return loss, channels, x.new_empty(0, dtype=dtype)
    return loss, channels, torch.empty_like(x, dtype=direction_dtype)


# sign grad_loss D', times 2 / (N H W) unless D' already has that factor (`scaled`).
@declare(
    "yuv_l2_backward(Tensor direction, Tensor grad_loss, int sign, bool scaled, ScalarType dtype) -> Tensor"
)
def _yuv_l2_backward_fake(direction, grad_loss, sign, scaled, dtype):
    return torch.empty_like(direction, dtype=dtype)


# The same in place, for when the direction is not needed again.
@declare("yuv_l2_backward_(Tensor(a!) direction, Tensor grad_loss, int sign, bool scaled) -> ()")
def _yuv_l2_backward_fake_(direction, grad_loss, sign, scaled):
    return None


# --- batching: one loss per call, call by call; gradients are products ----------------------------------


def _sweep(
    x, y, edge_gain, edge_gain_number, scale_y, scale_u, scale_v, direction_sign=0, direction_dtype=None
):
    kind = (direction_sign, direction_dtype) if direction_dtype else saved_gradient(x, y)
    return _yuv_l2(x, y, edge_gain, edge_gain_number, scale_y, scale_u, scale_v, *kind)


def _yuv_l2_backwards(size, batched, direction, grad_loss, sign, scaled, dtype):
    accumulation_dtype = torch.promote_types(grad_loss.dtype, direction.dtype)
    direction = with_batch(direction, batched[0], size)
    factor = sign * with_batch(grad_loss, batched[1], size).view(size, 1, 1, 1, 1)
    if not scaled:
        factor = factor * 6 / direction[0].numel()
    return (factor.to(accumulation_dtype) * direction).to(dtype)


# --- backward: d loss / d x = 2 / (N H W) D, and d D' / d x is the linear map behind D' ---------------


def _save_for_yuv_l2(ctx, inputs, output):
    x, y, edge_gain, *numbers, direction_sign, direction_dtype = inputs
    _, channels, direction = output
    check_saved("yuv_l2", "a direction_dtype", direction_dtype is not None)
    ctx.mark_non_differentiable(channels)
    ctx.save_for_backward(direction, savable(edge_gain))
    ctx.numbers = numbers
    ctx.dtypes = (x.dtype, y.dtype)
    ctx.direction_sign = direction_sign


def _yuv_l2_gradients(ctx, grad_loss, _grad_channels, grad_direction):
    direction, edge_gain = ctx.saved_tensors
    sign_of_direction, scaled = ctx.direction_sign or 1, ctx.direction_sign != 0
    if grad_direction is None and _can_overwrite(ctx, direction, grad_loss):
        sign = 1 if ctx.needs_input_grad[0] else -1
        direction = direction.detach()  # as an output of the op it is part of the graph
        _yuv_l2_backward_(direction, grad_loss, sign * sign_of_direction, scaled)
        gradients = [direction if needed else None for needed in ctx.needs_input_grad[:2]]
        return (*gradients, *(None,) * 7)
    gradients = [None, None]
    for index, sign in ((0, 1), (1, -1)):
        if not ctx.needs_input_grad[index]:
            continue
        dtype = ctx.dtypes[index]
        terms = []
        if grad_loss is not None:
            terms.append(_yuv_l2_backward(direction, grad_loss, sign * sign_of_direction, scaled, dtype))
        if grad_direction is not None:
            derivative = _direction_at(grad_direction, edge_gain, ctx.numbers, ctx.direction_sign)
            terms.append((sign * derivative).to(dtype))
        gradients[index] = sum(terms[1:], start=terms[0]) if terms else None
    return (*gradients, *(None,) * 7)


def _can_overwrite(ctx, direction: Tensor, grad_loss: Tensor) -> bool:
    """Whether D' can hold the gradient: there is one, in its dtype, and D' is not read again."""
    needs_x, needs_y = ctx.needs_input_grad[:2]
    if needs_x == needs_y or ctx.dtypes[0 if needs_x else 1] != direction.dtype:
        return False
    return saved_tensors_are_ours(grad_loss)


def _direction_at(
    difference: Tensor, edge_gain: Tensor | None, numbers: list[float], sign: int
) -> Tensor:  # fmt: skip
    """D' at x - y = difference; `numbers` are the gain as a number and the three scales."""
    zero = torch.zeros_like(difference)
    return _yuv_l2(difference, zero, edge_gain, *numbers, sign, difference.dtype)[2]


_yuv_l2 = differentiable("yuv_l2", _save_for_yuv_l2, _yuv_l2_gradients, one_by_one(_sweep))


# --- second order: the backward op is bilinear in D' and the incoming gradient --------------------------


def _save_for_yuv_l2_backward(ctx, inputs, output):
    direction, grad_loss, *ctx.kind, _ = inputs
    ctx.save_for_backward(direction, grad_loss)


def _yuv_l2_backward_gradients(ctx, grad):
    direction, grad_loss = ctx.saved_tensors
    grad_direction = grad_grad_loss = None
    if ctx.needs_input_grad[0]:
        grad_direction = _yuv_l2_backward(dense(grad), grad_loss, *ctx.kind, direction.dtype)
    if ctx.needs_input_grad[1]:
        sign, scaled = ctx.kind
        products = sign * grad.to(grad_loss.dtype) * direction.to(grad_loss.dtype)
        grad_grad_loss = products.sum() if scaled else 2 * products.sum(dim=1).mean()
    return grad_direction, grad_grad_loss, None, None, None


_yuv_l2_backward_ = below_autograd("yuv_l2_backward_")
_yuv_l2_backward = differentiable(
    "yuv_l2_backward", _save_for_yuv_l2_backward, _yuv_l2_backward_gradients, _yuv_l2_backwards
)
