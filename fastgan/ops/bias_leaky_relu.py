r"""Bias, leaky ReLU, gain and clamp in one sweep, as they follow the convolutions of a discriminator.

.. math::
    y = \operatorname{clamp}(g \, \operatorname{lrelu}_a(x + b)), \qquad
    \frac{\partial L}{\partial x} = f \, \frac{\partial L}{\partial y}, \quad
    f = g \text{ or } g a \text{ or, where the clamp acted, } 0

Only which of the three values f has, or whether it is NaN, is saved, as a code of one byte per element;
neither x nor y is. Backward is linear in the incoming gradient, so its derivative is the same multiplication
by f (`tangent`), whose derivative is backward again: three operators give exact, fused gradients of every
order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, wants_gradient
from fastgan.ops._batching import fold, unfold
from fastgan.ops._channels import fold_all, laid_out_like, supported_layout
from fastgan.ops._checks import as_finite, as_number, check_floating, check_same_device
from fastgan.ops._declare import declare
from fastgan.reference import bias_leaky_relu as reference


def bias_leaky_relu(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """clamp(gain * leaky_relu(x + bias, slope), -clamp, clamp): `bias_act` with act="lrelu".

    Args:
        x: N C ..., at least two dimensions; float32, bfloat16, float16 or float64; any strides.
        bias: (C,), floating point; None adds nothing.
        slope: factor of negative values.
        gain: factor of all values; sqrt(2) keeps the variance at slope 0.2 (StyleGAN).
        clamp: bound of the result's magnitude, positive; None: unbounded.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        Like x, in its dtype and memory format; computed in float32 (float64 for float64). NaN remains
        NaN, and so does its gradient. With slope 0, minus infinity becomes 0.

    Gradients with respect to x and bias are exact to every order; they save one byte per element.
    At 0 the slope is that of negative values, as in torch; values beyond the clamp pass no gradient.

    Raises:
        TypeError, ValueError: arguments that are not such tensors, a bias of another length, a slope or gain
            that is not finite, a clamp that is not positive.

    Sources: Maas, Hannun and Ng 2013 (leaky ReLU); Karras et al. 2019, 2020 (fused, with gain and clamp).
    """
    check_floating("x", x)
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x must have shape (N, C, ...) and not be empty, got {tuple(x.shape)}")
    if bias is not None:
        check_floating("bias", bias)
        if bias.shape != (x.shape[1],):
            raise ValueError(f"bias must have shape ({x.shape[1]},), got {tuple(bias.shape)}")
        check_same_device(x=x, bias=bias)
    slope, gain = as_finite("slope", slope), as_finite("gain", gain)
    limit = math.inf if clamp is None else as_number("clamp", clamp)
    if not limit > 0:
        raise ValueError(f"clamp must be positive, got {clamp}")

    if _dispatch.choose("bias_leaky_relu", (x,), backend) == "reference":
        return reference.bias_leaky_relu(x, bias, slope, gain, None if clamp is None else limit)
    return activate(supported_layout(x), bias, slope, gain, limit)[0]


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "bias_leaky_relu(Tensor x, Tensor? bias, float slope, float gain, float clamp, bool with_codes) "
    "-> (Tensor y, Tensor codes)"
)
def _bias_leaky_relu_fake(x, bias, slope, gain, clamp, with_codes):
    codes = torch.empty_like(x, dtype=torch.uint8) if with_codes else x.new_empty(0, dtype=torch.uint8)
    return torch.empty_like(x), codes


@declare(
    "bias_leaky_relu_backward(Tensor grad, Tensor codes, float slope, float gain, ScalarType? bias_dtype) "
    "-> (Tensor grad_x, Tensor grad_bias)"
)
def _bias_leaky_relu_backward_fake(grad, codes, slope, gain, bias_dtype):
    channels = 0 if bias_dtype is None else grad.shape[1]
    return torch.empty_like(grad), grad.new_empty(channels, dtype=bias_dtype or torch.float32)


@declare(
    "bias_leaky_relu_tangent(Tensor tangent_x, Tensor? tangent_bias, Tensor codes, float slope, float gain) "
    "-> Tensor"
)
def _bias_leaky_relu_tangent_fake(tangent_x, tangent_bias, codes, slope, gain):
    return torch.empty_like(tangent_x)


# --- batches of calls ---------------------------------------------------------------------------------


def activate(x, bias, slope, gain, clamp, with_codes=False):
    return _bias_leaky_relu(x, bias, slope, gain, clamp, with_codes or wants_gradient(x, bias))


def _activations(size, batched, x, bias, slope, gain, clamp, with_codes):
    (x,), unfold_one = fold_all(size, batched[:1], (x,), into_channels=batched[1])
    bias = fold(bias, True, size) if batched[1] else bias
    return tuple(unfold_one(tensor, size) for tensor in activate(x, bias, slope, gain, clamp, with_codes))


def _activations_backward(size, batched, grad, codes, slope, gain, bias_dtype):
    folded, unfold_one = fold_all(size, batched[:2], (grad, codes), into_channels=bias_dtype is not None)
    grad_x, grad_bias = _bias_leaky_relu_backward(*folded, slope, gain, bias_dtype)
    return unfold_one(grad_x, size), unfold(grad_bias, size)


def _activations_tangent(size, batched, tangent_x, tangent_bias, codes, slope, gain):
    like_x = batched[0], batched[2]
    folded, unfold_one = fold_all(size, like_x, (tangent_x, codes), into_channels=batched[1])
    tangent_bias = fold(tangent_bias, True, size) if batched[1] else tangent_bias
    return unfold_one(_bias_leaky_relu_tangent(folded[0], tangent_bias, folded[1], slope, gain), size)


# --- backward -------------------------------------------------------------------------------------


def _save_for_bias_leaky_relu(ctx, inputs, output):
    _, bias, slope, gain, _, with_codes = inputs
    _, codes = output
    check_saved("bias_leaky_relu", "with_codes", with_codes)
    ctx.mark_non_differentiable(codes)
    ctx.save_for_backward(codes)
    ctx.slope, ctx.gain = slope, gain
    ctx.bias_dtype = None if bias is None else bias.dtype


def _bias_leaky_relu_gradients(ctx, grad, _grad_codes):
    (codes,) = ctx.saved_tensors
    bias_dtype = ctx.bias_dtype if ctx.needs_input_grad[1] else None
    grad = laid_out_like(grad, codes)
    grad_x, grad_bias = _bias_leaky_relu_backward(grad, codes, ctx.slope, ctx.gain, bias_dtype)
    return grad_x, grad_bias if bias_dtype else None, None, None, None, None


_bias_leaky_relu = differentiable(
    "bias_leaky_relu", _save_for_bias_leaky_relu, _bias_leaky_relu_gradients, _activations
)


# --- second order: backward's derivative is the tangent, and the tangent's is backward --------------------


def _save_for_backward(ctx, inputs, output):
    grad, codes, slope, gain, bias_dtype = inputs
    ctx.save_for_backward(codes)
    ctx.slope, ctx.gain, ctx.dtype, ctx.has_bias = slope, gain, grad.dtype, bias_dtype is not None


def _backward_gradients(ctx, tangent_x, tangent_bias):
    (codes,) = ctx.saved_tensors
    if tangent_x is None:
        tangent_x = torch.zeros_like(codes, dtype=ctx.dtype)
    if not ctx.has_bias:  # AOTAutograd passes a tangent of the empty grad_bias
        tangent_bias = None
    tangent_x = laid_out_like(tangent_x, codes)
    tangent = _bias_leaky_relu_tangent(tangent_x, tangent_bias, codes, ctx.slope, ctx.gain)
    return tangent, None, None, None, None


_bias_leaky_relu_backward = differentiable(
    "bias_leaky_relu_backward", _save_for_backward, _backward_gradients, _activations_backward
)


def _save_for_tangent(ctx, inputs, output):
    _, tangent_bias, codes, slope, gain = inputs
    ctx.save_for_backward(codes)
    ctx.slope, ctx.gain = slope, gain
    ctx.bias_dtype = None if tangent_bias is None else tangent_bias.dtype


def _tangent_gradients(ctx, grad):
    (codes,) = ctx.saved_tensors
    bias_dtype = ctx.bias_dtype if ctx.needs_input_grad[1] else None
    grad = laid_out_like(grad, codes)
    grad_x, grad_bias = _bias_leaky_relu_backward(grad, codes, ctx.slope, ctx.gain, bias_dtype)
    return grad_x, grad_bias if bias_dtype else None, None, None, None


_bias_leaky_relu_tangent = differentiable(
    "bias_leaky_relu_tangent", _save_for_tangent, _tangent_gradients, _activations_tangent
)
