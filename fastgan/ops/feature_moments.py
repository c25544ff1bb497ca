r"""Means, variances and the covariance of two feature maps, plane by plane, in one sweep.

.. math::
    \mu_x = \frac{1}{P} \sum_p x_p, \qquad
    \sigma_x^2 = \frac{1}{P} \sum_p (x_p - \mu_x)^2, \qquad
    \sigma_{xy} = \frac{1}{P} \sum_p (x_p - \mu_x)(y_p - \mu_y)

for each sample and channel, with P pixels. With g the gradients of the five numbers, the gradient of a map is
one pass over both:

.. math::
    \frac{\partial L}{\partial x_p} = \frac{1}{P} \big( g_{\mu_x} + 2 g_{\sigma_x^2} (x_p - \mu_x)
    + g_{\sigma_{xy}} (y_p - \mu_y) \big)

It is linear in g and in the deviations from the means, so its own gradients are again moments and gradients
of moments, of the maps and of the incoming tangents: every order is exact.

Deviations are taken from the means themselves, not by the difference of two sums of squares, which would lose
all digits where a mean is large. What rounding took from the means (`rests`) is kept for the gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import fold, unfold
from fastgan.ops._checks import check_alike, check_floating, laid_out_alike
from fastgan.ops._declare import declare
from fastgan.reference import feature_moments as reference


class Moments(NamedTuple):
    """The result of :func:`feature_moments`, each (N, C)."""

    mean_x: Tensor
    mean_y: Tensor
    variance_x: Tensor
    variance_y: Tensor
    covariance: Tensor


def feature_moments(features_x: Tensor, features_y: Tensor, *, backend: str | None = None) -> Moments:
    """The means, variances and covariance of each channel's pixels, for each sample.

    Args:
        features_x, features_y: N C ..., equal shapes; float32, bfloat16, float16 or float64, with any
            strides: contiguous and channels_last memory is read without a copy if both have the same.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        Five tensors (N, C), float32, or float64 for float64. Variances and the covariance are divided by the
        number of pixels, not by one less. Gradients of every order are exact.

    Raises:
        TypeError: maps that are not floating-point tensors.
        ValueError: unequal or empty shapes, several devices.
        RuntimeError: the requested backend cannot serve the call.
    """
    check_floating("features_x", features_x)
    check_floating("features_y", features_y)
    check_alike("features_x", features_x, "features_y", features_y)
    if features_x.dim() < 3 or features_x.numel() == 0:
        raise ValueError(
            f"feature maps must have shape (N, C, ...) and an element, got {tuple(features_x.shape)}"
        )
    if _dispatch.choose("feature_moments", (features_x, features_y), backend) == "reference":
        return Moments(*reference.feature_moments(features_x, features_y).unbind(dim=-1))
    return Moments(*_feature_moments(*laid_out_alike(features_x, features_y))[0].unbind(dim=-1))


# --- op and fake ----------------------------------------------------------------------------------


@declare("feature_moments(Tensor x, Tensor y) -> (Tensor moments, Tensor rests)")
def _feature_moments_fake(x, y):
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.new_empty((*x.shape[:2], 5), dtype=dtype), x.new_empty((*x.shape[:2], 2), dtype=dtype)


# The gradients of both maps, empty where not wanted. Moments and rests are those of x and y, and count as
# functions of them: what they contribute to a gradient is part of the gradients of x and y.
@declare(
    "feature_moments_backward(Tensor x, Tensor y, Tensor moments, Tensor rests, Tensor grad, bool with_x, "
    "bool with_y) -> (Tensor grad_x, Tensor grad_y)"
)
def _feature_moments_backward_fake(x, y, moments, rests, grad, with_x, with_y):
    wanted = (x, with_x), (y, with_y)
    return tuple(torch.empty_like(map_) if with_map else map_.new_empty(0) for map_, with_map in wanted)


# --- batching: more samples -------------------------------------------------------------------------


def _moments_of_calls(size, batched, x, y):
    x, y = laid_out_alike(fold(x, batched[0], size), fold(y, batched[1], size))
    return tuple(unfold(output, size) for output in _feature_moments(x, y))


def _gradients_of_calls(size, batched, x, y, moments, rests, grad, with_x, with_y):
    x, y = laid_out_alike(fold(x, batched[0], size), fold(y, batched[1], size))
    of_planes = [
        fold(tensor, in_batch, size).contiguous()
        for tensor, in_batch in zip((moments, rests, grad), batched[2:5], strict=True)
    ]
    outputs = _feature_moments_backward(x, y, *of_planes, with_x, with_y)
    return tuple(unfold(output, size) for output in outputs)


# --- backward -------------------------------------------------------------------------------------


def _save_for_feature_moments(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*map(savable, inputs), *output)


def _feature_moments_gradients(ctx, grad, _):
    with_x, with_y = ctx.needs_input_grad
    grad_x, grad_y = _feature_moments_backward(*ctx.saved_tensors, grad.contiguous(), with_x, with_y)
    return grad_x if with_x else None, grad_y if with_y else None


_feature_moments = differentiable(
    "feature_moments", _save_for_feature_moments, _feature_moments_gradients, _moments_of_calls
)


# --- second order: moments, and gradients of moments, of the tangents ---------------------------------------


def _save_for_feature_moments_backward(ctx, inputs, output):
    x, y, _, _, grad, *_ = inputs
    ctx.save_for_backward(x, y, grad)


def _feature_moments_backward_gradients(ctx, tangent_x, tangent_y):
    x, y, grad = ctx.saved_tensors
    tangent_x, tangent_y = (
        torch.zeros_like(map_) if tangent is None or tangent.numel() == 0 else laid_out_alike(x, tangent)[1]
        for map_, tangent in ((x, tangent_x), (y, tangent_y))
    )
    moments, rests = _feature_moments(tangent_x, tangent_y)
    needs_x, needs_y, _, _, needs_grad, *_ = ctx.needs_input_grad
    grad_x = grad_y = grad_grad = None
    if needs_x or needs_y:
        # The means' gradients do not depend on the maps.
        of_products = torch.cat([torch.zeros_like(grad[..., :2]), grad[..., 2:]], dim=-1)
        grad_x, grad_y = _feature_moments_backward(
            tangent_x, tangent_y, moments, rests, of_products, needs_x, needs_y
        )
    if needs_grad:
        along_x, along_y = 2 * _covariance(tangent_x, x), 2 * _covariance(tangent_y, y)
        across = _covariance(tangent_x, y) + _covariance(x, tangent_y)
        grad_grad = torch.stack([moments[..., 0], moments[..., 1], along_x, along_y, across], dim=-1)
    return grad_x if needs_x else None, grad_y if needs_y else None, None, None, grad_grad, None, None


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    covariance: Tensor = _feature_moments(x, y)[0][..., 4]
    return covariance


_feature_moments_backward = differentiable(
    "feature_moments_backward", _save_for_feature_moments_backward, _feature_moments_backward_gradients,
    _gradients_of_calls,
)  # fmt: skip
