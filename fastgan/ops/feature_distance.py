r"""The distance of two feature maps for perceptual losses, with its gradient from the same sweep.

.. math::
    d_n = \frac{1}{P} \sum_p \sum_c w_c \, |a_{ncp} - b_{ncp}|^q, \qquad
    a = x \text{ or } \frac{x}{\lVert x \rVert + \epsilon}, \quad
    b = y \text{ or } \frac{y}{\lVert y \rVert + \epsilon}

with norms over channels. With :math:`u_c = w_c \, \partial |a_c - b_c|^q / \partial a_c` the gradient of a
normalized map is

.. math::
    \frac{\partial d}{\partial x_c} = \frac{1}{P} \Big( \frac{u_c}{\lVert x \rVert + \epsilon}
    - \frac{x_c \sum_k u_k x_k}{(\lVert x \rVert + \epsilon)^2 \lVert x \rVert} \Big),

and 0 where x is the zero vector. The forward sweep writes it; nothing else is saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import (
    below_autograd,
    check_saved,
    differentiable,
    first_order_only,
    saved_tensors_are_ours,
    wants_gradient,
)
from fastgan.ops._batching import fold, one_by_one, unfold
from fastgan.ops._checks import (
    as_flag,
    check_floating,
    check_one_of,
    check_same_device,
    dense,
    laid_out_alike,
)
from fastgan.ops._declare import declare
from fastgan.reference import feature_distance as reference

LPIPS_EPS = 1e-10


def lpips_head(
    features_x: Tensor, features_y: Tensor, weight: Tensor, *, backend: str | None = None
) -> Tensor:
    """LPIPS of one layer: mean over space of sum_c w_c (x_c / |x| - y_c / |y|)^2, norms over channels.

    Args:
        features_x, features_y, backend: as in :func:`feature_distance`.
        weight: (C,), not differentiated.

    Returns:
        (N,), float32, or float64 for float64.

    Raises:
        TypeError, ValueError: as :func:`feature_distance`.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR
    2018, eq. 1, with epsilon placed as in the lpips package.
    """
    check_floating("weight", weight)
    return feature_distance(features_x, features_y, 2, normalize=True, weight=weight, backend=backend)


def feature_distance(
    features_x: Tensor,
    features_y: Tensor,
    p: int = 1,
    normalize: bool = False,
    *,
    relu_x: bool = False,
    weight: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The mean over space and channels of |x - y|^p, for each sample.

    Args:
        features_x, features_y: N C ..., equal shapes; float32, bfloat16, float16 or float64, with any
            strides: contiguous and channels_last memory is read without a copy if both have the same.
        p: 1 or 2.
        normalize: divide each pixel's vector by its norm over channels (plus 1e-10) first. A vector whose
            squares overflow (in float32 beyond 1.8e19) makes its sample NaN.
        relu_x: apply a ReLU to x first; the gradient is that of x before the activation.
        weight: (C,): sum over channels with these weights instead of their mean; not differentiated.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        (N,), float32, or float64 for float64. The gradient is exact. A gradient of the gradient needs
        ``backend="reference"``: kernels save only the gradient and refuse a second one. For float16 maps they
        save it in float16, times the number of pixels: beyond 65504, as for a normalized vector close to
        zero, it becomes infinite even if the gradient itself would fit.

    Raises:
        TypeError: maps that are not floating-point tensors.
        ValueError: unequal or empty shapes, another p, a weight of another shape, several devices.
    """
    check_floating("features_x", features_x)
    check_floating("features_y", features_y)
    if features_x.shape != features_y.shape:
        raise ValueError(
            f"features_x and features_y must have one shape, got {tuple(features_x.shape)} and "
            f"{tuple(features_y.shape)}"
        )
    if features_x.dim() < 3 or features_x.numel() == 0:
        raise ValueError(
            f"feature maps must have shape (N, C, ...) and an element, got {tuple(features_x.shape)}"
        )
    check_one_of("p", p, (1, 2))
    p, normalize, relu_x = int(p), as_flag("normalize", normalize), as_flag("relu_x", relu_x)
    channels = features_x.shape[1]
    tensors = {"features_x": features_x, "features_y": features_y}
    if weight is not None:
        check_floating("weight", weight)
        weight = weight.detach()
        if weight.shape != (channels,):
            raise ValueError(f"weight must have shape ({channels},), got {tuple(weight.shape)}")
        tensors["weight"] = weight
    check_same_device(**tensors)
    chosen = _dispatch.choose("feature_distance", (features_x, features_y), backend)
    if chosen == "reference":
        if weight is None:
            weight = torch.full((channels,), 1 / channels, dtype=torch.float64, device=features_x.device)
        return reference.feature_distance(features_x, features_y, weight, p, normalize, LPIPS_EPS, relu_x)
    x, y = laid_out_alike(features_x, features_y)
    if weight is not None:
        weight = weight.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    return _measure(x, y, weight, p, normalize, LPIPS_EPS, relu_x)[0]


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "feature_distance(Tensor x, Tensor y, Tensor? weight, int power, bool normalize, float eps, bool relu_x, "
    "bool of_mean, bool with_x, bool with_y) -> "
    "(Tensor distance, Tensor direction_x, Tensor direction_y)"
)
def _feature_distance_fake(x, y, weight, power, normalize, eps, relu_x, of_mean, with_x, with_y):
    accumulation_dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    directions = [
        torch.empty_like(map_) if wanted else map_.new_empty(0) for map_, wanted in ((x, with_x), (y, with_y))
    ]
    return x.new_empty(x.shape[0], dtype=accumulation_dtype), *directions


# Without a weight each channel has weight 1 / C.
# Directions are P times each distance's gradient, or, divided by N P, the gradient of their mean (`of_mean`).
# The ops take N and P from the tensors, since each new number would make compiled code recompile.
@declare("feature_distance_backward(Tensor direction, Tensor grad, bool of_mean) -> Tensor")
def _feature_distance_backward_fake(direction, grad, of_mean):
    return torch.empty_like(direction)


# The same in place, for when the direction is not needed again.
@declare("feature_distance_backward_(Tensor(a!) direction, Tensor grad, bool of_mean) -> ()")
def _feature_distance_backward_fake_(direction, grad, of_mean):
    return None


# --- batching: more samples, or call by call if each has its own weights ----------------------------------


def _measure(x, y, weight, power, normalize, eps, relu_x, of_mean=True, with_x=False, with_y=False):
    wants_x, wants_y = wants_gradient(x), wants_gradient(y)
    if not (with_x or with_y):
        # Save the gradient of the batch's mean, so that backward from a mean has nothing left to do. Not in
        # float16, where the division by pixels and samples would make it subnormal.
        dtypes = [map_.dtype for map_, wanted in ((x, wants_x), (y, wants_y)) if wanted]
        of_mean = torch.float16 not in dtypes
    with_x, with_y = with_x or wants_x, with_y or wants_y
    return _feature_distance(x, y, weight, power, normalize, eps, relu_x, of_mean, with_x, with_y)


def _measures(size, batched, x, y, weight, power, normalize, eps, relu_x, of_mean, with_x, with_y):
    formula = power, normalize, eps, relu_x
    if batched[2]:
        return one_by_one(_measure)(size, batched, x, y, weight, *formula, of_mean, with_x, with_y)
    x, y = laid_out_alike(fold(x, batched[0], size), fold(y, batched[1], size))
    if not (of_mean and (with_x or with_y)):
        outputs = _measure(x, y, weight, *formula, of_mean, with_x, with_y)
    else:
        # The gradient of each call's mean, not of the mean over all calls.
        outputs = _measure(x, y, weight, *formula, False, with_x, with_y)
        factor = size * x.shape[1] / x.numel()
        outputs = (outputs[0], factor * outputs[1], factor * outputs[2])
    return tuple(unfold(output, size) for output in outputs)


def _measures_backward(size, batched, direction, grad, of_mean):
    direction, grad = fold(direction, batched[0], size), fold(grad, batched[1], size)
    if of_mean:  # of each call
        grad = grad * (direction.numel() // (size * direction.shape[1]))
    return unfold(_feature_distance_backward(dense(direction), grad.contiguous(), False), size)


# --- backward -------------------------------------------------------------------------------------


def _save_for_feature_distance(ctx, inputs, output):
    *_, ctx.of_mean, with_x, with_y = inputs
    needs_x, needs_y = ctx.needs_input_grad[:2]
    check_saved("feature_distance", "with_x and with_y", (with_x or not needs_x) and (with_y or not needs_y))
    _, direction_x, direction_y = output
    ctx.save_for_backward(direction_x, direction_y)


def _feature_distance_gradients(ctx, grad, *grad_directions):
    if any(grad_direction is not None for grad_direction in grad_directions):
        raise NotImplementedError(_FIRST_ORDER_ONLY)
    gradients: list[Tensor | None] = []
    for direction, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True):
        if not needed:
            gradients.append(None)
        elif saved_tensors_are_ours(grad):
            direction = direction.detach()  # as an output of the op it is part of the graph
            _feature_distance_backward_(direction, grad.contiguous(), ctx.of_mean)
            gradients.append(direction)
        else:
            gradients.append(_feature_distance_backward(direction, grad.contiguous(), ctx.of_mean))
    return (*gradients, *(None,) * 8)


_feature_distance_backward_ = below_autograd("feature_distance_backward_")
_feature_distance = differentiable(
    "feature_distance", _save_for_feature_distance, _feature_distance_gradients, _measures
)


# --- second order: refused; directions are differentiable outputs, lest they silently count as constants --

_FIRST_ORDER_ONLY = (
    "feature_distance and lpips_head keep only their gradient and cannot be differentiated twice; use "
    "backend='reference', or fastgan.use('reference'), where a gradient of the gradient is needed"
)
_feature_distance_backward = first_order_only(
    "feature_distance_backward", NotImplementedError, _FIRST_ORDER_ONLY, _measures_backward
)
