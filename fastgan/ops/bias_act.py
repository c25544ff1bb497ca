r"""Bias, activation, gain and clamp in one sweep, as they follow the convolutions of StyleGAN's networks.

.. math::
    y = \operatorname{clamp}(g \, \phi(x + b)), \qquad
    \frac{\partial L}{\partial x} = g \, \phi'(x + b) \frac{\partial L}{\partial y}
    \text{ or, where the clamp acted, } 0

========= ===================== ======= =========== ===========================================
act       :math:`\phi(z)`       default default     saved for backward
                                alpha   gain
========= ===================== ======= =========== ===========================================
linear    z                             1           nothing; with a clamp, a byte per element
relu      max(z, 0)                     sqrt(2)     a byte per element
lrelu     max(z, 0) +           0.2     sqrt(2)     a byte per element
          alpha min(z, 0)
tanh      tanh z                        1           y, or x, see below
sigmoid   1 / (1 + exp(-z))             1           y, or x, see below
elu       z, or exp(z) - 1              1           x
          below 0
selu      1.0507 z, or                  1           x
          1.7581 (exp(z) - 1)
softplus  log(1 + exp(z))               1           x
swish     z / (1 + exp(-z))             sqrt(2)     x
========= ===================== ======= =========== ===========================================

Derivatives of tanh and sigmoid follow from y, which the next layer saves anyway. With a clamp, a gain other
than 1 or in half precision, whose rounding would be that of the slope near 1, x is saved.

The first three are piecewise linear, and those that save a byte are cases of
:mod:`fastgan.ops.bias_leaky_relu`, whose kernels they run. Of the others, backward is linear in the incoming
gradient but not in what is saved, so its derivative has two parts: the same multiplication of the tangent,
and the product of gradient, tangent and :math:`\phi''`. One sweep computes both (`double_backward`); its own
derivative consists of PyTorch's operations, and is exact to every order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import fold, unfold
from fastgan.ops._channels import fold_all, laid_out_like, supported_layout
from fastgan.ops._checks import (
    as_finite,
    as_number,
    as_whole_number,
    check_floating,
    check_one_of,
    check_same_device,
    shown,
)
from fastgan.ops._declare import declare
from fastgan.ops.bias_leaky_relu import activate as activate_linear_pieces
from fastgan.reference import bias_act as reference
from fastgan.reference.precision import wide

ROOT = math.sqrt(2)
GAINS = {
    "linear": 1.0, "relu": ROOT, "lrelu": ROOT, "tanh": 1.0, "sigmoid": 1.0, "elu": 1.0, "selu": 1.0,
    "softplus": 1.0, "swish": ROOT,
}  # fmt: skip
"""The activations and their default gains."""
SLOPES = {"linear": 1.0, "relu": 0.0, "lrelu": 0.2}
"""Of the piecewise linear ones for negative numbers; that of "lrelu" is the default of its alpha."""
WIDE = (torch.float32, torch.float64)
# Their numbers in the operators' schemas and in csrc/math/activations.h.
NUMBERS = ("linear", *reference.SMOOTH, *reference.OF_OUTPUT)


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """clamp(gain * act(x + bias), -clamp, clamp).

    Args:
        x: of any shape; float32, bfloat16, float16 or float64; any strides.
        bias: one number for each index of `dim`, floating point; None adds nothing.
        dim: the dimension of x that the bias belongs to, negative ones counted from the last; without a bias
            it does not matter.
        act: "linear", "relu", "lrelu" (leaky ReLU), "tanh", "sigmoid", "elu", "selu", "softplus" or "swish".
        alpha: slope of "lrelu" for negative numbers; None: 0.2. The others have none.
        gain: factor of all values; None: sqrt(2) for "relu", "lrelu" and "swish", which keeps the variance
            about the same, else 1.
        clamp: bound of the result's magnitude, not negative; None: unbounded.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        Like x, in its dtype; computed in float32 (float64 for float64). In channels last where x is and the
        bias belongs to dimension 1, else contiguous; x itself where there is nothing to do. NaN remains NaN,
        and so does its gradient, except of "linear" without a clamp. At infinities values and slopes are the
        limits.

    Gradients with respect to x and bias are exact to every order, those of first and second order fused.
    Values beyond the clamp pass none. At 0 "relu", "lrelu", "elu" and "selu" have the slope of negative
    numbers, as in torch.

    Raises:
        TypeError, ValueError: arguments that are not such tensors, an empty x, a bias of another length, an
            unknown `act`, an alpha for another one than "lrelu", an alpha or gain that is not finite, a
            negative clamp.

    Source: Karras et al., "Alias-free generative adversarial networks", 2021 (`bias_act`).
    """
    check_floating("x", x)
    if x.numel() == 0:
        raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}")
    check_one_of("act", act, GAINS)
    if alpha is not None and act != "lrelu":
        raise ValueError(f"alpha is the slope of act='lrelu', got alpha={shown(alpha)} for act={act!r}")
    slope = SLOPES.get(act, 0.0) if alpha is None else as_finite("alpha", alpha)
    gain = GAINS[act] if gain is None else as_finite("gain", gain)
    limit = math.inf if clamp is None else as_number("clamp", clamp)
    if not limit >= 0:
        raise ValueError(f"clamp must not be negative, got {clamp}")
    if bias is not None:
        check_floating("bias", bias)
        dim = _dimension(dim, x)
        if bias.shape != (x.shape[dim],):
            raise ValueError(f"bias must have shape ({x.shape[dim]},), got {tuple(bias.shape)}")
        check_same_device(x=x, bias=bias)

    if _dispatch.choose("bias_act", (x,), backend) == "reference":
        return reference.bias_act(
            x, bias, dim if bias is not None else 0, act, slope, gain, None if clamp is None else limit
        )
    is_linear = act == "linear" and limit == math.inf
    if is_linear and bias is None and gain == 1:
        return x
    channels = _with_channels(x, None if bias is None else dim)
    if act in SLOPES and not is_linear:
        y = activate_linear_pieces(channels, bias, slope, gain, limit)[0]
    else:
        y = _bias_act(channels, bias, NUMBERS.index(act), gain, limit)
    return y if y.shape == x.shape else y.reshape(x.shape)


def _dimension(dim: object, x: Tensor) -> int:
    """The dimension's number from the first."""
    number = as_whole_number("dim", dim, least=-x.dim())
    if number >= x.dim():
        raise ValueError(f"dim must be less than {x.dim()}, the number of x's dimensions, got {shown(dim)}")
    return number % x.dim()


def _with_channels(x: Tensor, dim: int | None) -> Tensor:
    """X as N C ... with that dimension for C, in a layout that the kernels support."""
    if x.dim() > 1 and dim in (1, None):
        return supported_layout(x)
    x = x.contiguous()
    if dim is None:
        return x.reshape(1, -1)
    x = x.unsqueeze(0) if dim == 0 else x.flatten(0, dim - 1)
    return x.flatten(2) if x.dim() > 2 else x


# --- op and fake ----------------------------------------------------------------------------------


@declare("bias_act(Tensor x, Tensor? bias, int act, float gain, float clamp) -> Tensor")
def _bias_act_fake(x, bias, act, gain, clamp):
    return torch.empty_like(x)


@declare(
    "bias_act_backward(Tensor grad, Tensor? saved, Tensor? bias, int act, float gain, float clamp, "
    "ScalarType? bias_dtype) -> (Tensor grad_x, Tensor grad_bias)"
)
def _bias_act_backward_fake(grad, saved, bias, act, gain, clamp, bias_dtype):
    return torch.empty_like(grad), _empty_grad_bias(grad, bias_dtype)


@declare(
    "bias_act_double_backward(Tensor grad, Tensor tangent_x, Tensor? tangent_bias, Tensor? saved, "
    "Tensor? bias, int act, float gain, float clamp, bool with_saved, ScalarType? bias_dtype) "
    "-> (Tensor grad_grad, Tensor grad_saved, Tensor grad_bias)"
)
def _bias_act_double_backward_fake(
    grad, tangent_x, tangent_bias, saved, bias, act, gain, clamp, with_saved, bias_dtype
):
    grad_saved = torch.empty_like(grad) if with_saved else grad.new_empty(0)
    return torch.empty_like(grad), grad_saved, _empty_grad_bias(grad, bias_dtype)


def _empty_grad_bias(grad, bias_dtype):
    return grad.new_empty(0 if bias_dtype is None else grad.shape[1], dtype=bias_dtype or torch.float32)


# --- batches of calls ---------------------------------------------------------------------------------


def _activations(size, batched, x, bias, act, gain, clamp):
    (x,), unfold_one = fold_all(size, batched[:1], (x,), into_channels=batched[1])
    bias = fold(bias, True, size) if batched[1] else bias
    return unfold_one(_bias_act(x, bias, act, gain, clamp), size)


def _folded(size, batched, like_x, biases, bias_dtype):
    """Tensors like x and biases, either of which may be None, with the batch of calls folded in."""
    into_channels = bias_dtype is not None or any(batched[len(like_x) :])
    own = [is_batched for tensor, is_batched in zip(like_x, batched, strict=False) if tensor is not None]
    there = [tensor for tensor in like_x if tensor is not None]
    folded, unfold_one = fold_all(size, own, there, into_channels)
    remaining = iter(folded)
    like_x = [None if tensor is None else next(remaining) for tensor in like_x]
    if into_channels:
        biases = [
            None if bias is None else fold(bias, is_batched, size)
            for bias, is_batched in zip(biases, batched[len(like_x) :], strict=True)
        ]
    return like_x, biases, unfold_one


def _activations_backward(size, batched, grad, saved, bias, act, gain, clamp, bias_dtype):
    (grad, saved), (bias,), unfold_one = _folded(size, batched[:3], (grad, saved), (bias,), bias_dtype)
    grad_x, grad_bias = _bias_act_backward(grad, saved, bias, act, gain, clamp, bias_dtype)
    return unfold_one(grad_x, size), unfold(grad_bias, size)


def _activations_double_backward(size, batched, grad, tangent_x, tangent_bias, saved, bias, *options):
    order = [batched[i] for i in (0, 1, 3, 2, 4)]
    (grad, tangent_x, saved), (tangent_bias, bias), unfold_one = _folded(
        size, order, (grad, tangent_x, saved), (tangent_bias, bias), options[-1]
    )
    grad_grad, grad_saved, grad_bias = _bias_act_double_backward(
        grad, tangent_x, tangent_bias, saved, bias, *options
    )
    return unfold_one(grad_grad, size), unfold_one(grad_saved, size), unfold(grad_bias, size)


# --- backward -------------------------------------------------------------------------------------


def _save_for_bias_act(ctx, inputs, output):
    x, bias, act, ctx.gain, ctx.clamp = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    of_output = f"{NUMBERS[act]} of output"
    if act == 0:
        saved, bias = None, None
    elif of_output in NUMBERS and ctx.gain == 1 and ctx.clamp == math.inf and output.dtype in WIDE:
        saved, bias, act = output, None, NUMBERS.index(of_output)
    else:
        saved = x
    ctx.act = act
    ctx.save_for_backward(savable(saved), savable(bias))


def _bias_act_gradients(ctx, grad):
    saved, bias = ctx.saved_tensors
    grad = supported_layout(grad) if saved is None else laid_out_like(grad, saved)
    bias_dtype = ctx.bias_dtype if ctx.needs_input_grad[1] else None
    grad_x, grad_bias = _bias_act_backward(grad, saved, bias, ctx.act, ctx.gain, ctx.clamp, bias_dtype)
    return grad_x, grad_bias if bias_dtype else None, None, None, None


_bias_act = differentiable("bias_act", _save_for_bias_act, _bias_act_gradients, _activations)


# --- second order ---------------------------------------------------------------------------------


def _save_for_backward(ctx, inputs, output):
    grad, saved, bias, ctx.act, ctx.gain, ctx.clamp, bias_dtype = inputs
    ctx.has_bias = bias_dtype is not None
    ctx.save_for_backward(savable(grad), savable(saved), savable(bias))


def _backward_gradients(ctx, tangent_x, tangent_bias):
    grad, saved, bias = ctx.saved_tensors
    tangent_x = torch.zeros_like(grad) if tangent_x is None else laid_out_like(tangent_x, grad)
    if not ctx.has_bias:  # AOTAutograd passes a tangent of the empty grad_bias
        tangent_bias = None
    needs_saved, needs_bias = ctx.needs_input_grad[1:3]
    with_saved = saved is not None and (needs_saved or needs_bias)
    bias_dtype = bias.dtype if needs_bias else None
    grad_grad, grad_saved, grad_bias = _bias_act_double_backward(
        grad, tangent_x, tangent_bias, saved, bias, ctx.act, ctx.gain, ctx.clamp, with_saved, bias_dtype
    )
    return (
        grad_grad, grad_saved if needs_saved and with_saved else None, grad_bias if needs_bias else None,
        *(None,) * 4,
    )  # fmt: skip


_bias_act_backward = differentiable(
    "bias_act_backward", _save_for_backward, _backward_gradients, _activations_backward
)


# --- third order, and by PyTorch's operations all higher ones -----------------------------------------


def _save_for_double_backward(ctx, inputs, output):
    *tensors, ctx.act, ctx.gain, ctx.clamp, ctx.with_saved, bias_dtype = inputs
    ctx.with_bias = bias_dtype is not None
    ctx.save_for_backward(*(savable(tensor) for tensor in tensors))


def _double_backward_gradients(ctx, to_grad, to_saved, to_bias):
    grad, tangent_x, tangent_bias, saved, bias = ctx.saved_tensors
    along_channels = (-1, *(1,) * (grad.dim() - 2))
    tangent = wide(tangent_x)
    if tangent_bias is not None:
        tangent = tangent + tangent_bias.to(tangent.dtype).reshape(along_channels)
    first, second, third = _derivatives(ctx, grad, saved, bias, along_channels)
    to_first = 0 if to_grad is None else wide(to_grad)
    to_second = 0 if to_saved is None or not ctx.with_saved else wide(to_saved)
    if to_bias is not None and ctx.with_bias:
        to_second = to_second + to_bias.to(tangent.dtype).reshape(along_channels)
    slope_of_both = second * to_second
    at_tangent = first * to_first + wide(grad) * slope_of_both
    at_saved = second * tangent * to_first + third * wide(grad) * tangent * to_second
    across = [axis for axis in range(grad.dim()) if axis != 1]
    return (
        (tangent * slope_of_both).to(grad.dtype),
        at_tangent.to(grad.dtype),
        None if tangent_bias is None else at_tangent.sum(dim=across).to(tangent_bias.dtype),
        None if saved is None else at_saved.to(grad.dtype),
        None if bias is None else at_saved.sum(dim=across).to(bias.dtype),
        *(None,) * 5,
    )


def _derivatives(ctx, grad, saved, bias, along_channels):
    """Of first, second and third order of clamp(gain act(z)) at z = saved + bias."""
    if saved is None:
        zero = torch.zeros((), dtype=wide(grad).dtype, device=grad.device)
        return torch.full_like(zero, ctx.gain), zero, zero
    act, point = NUMBERS[ctx.act], wide(saved)
    if bias is not None:
        point = point + bias.to(point.dtype).reshape(along_channels)
    orders = tuple(ctx.gain * order for order in reference.derivatives(point, act))
    if ctx.clamp == math.inf:
        return orders
    values = ctx.gain * reference.activated(point.detach(), act, 0.0)
    return tuple(torch.where(values.abs() > ctx.clamp, 0, order) for order in orders)


_bias_act_double_backward = differentiable(
    "bias_act_double_backward",
    _save_for_double_backward,
    _double_backward_gradients,
    _activations_double_backward,
)
