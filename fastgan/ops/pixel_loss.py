r"""Pixel losses of two images: L1, L2, Charbonnier or Huber in RGB, luma or YUV, with edges and variation.

.. math::
    p = M (x - y) (1 + g f), \qquad
    L = \lambda \bigl( R(p) + \lambda_S (R(S_h p) + R(S_w p))
    + \lambda_T (R(\Delta_h M x) + R(\Delta_w M x)) \bigr)

M takes RGB to the channels that are compared; f falls from 1 on the border to 0 at a quarter of the image's
size, as in `yuv_l2`. S are Sobel's derivatives and Delta differences of neighbours, of which there are fewer.
R is a mean of weighed penalties:

.. math::
    R(v) = \frac{1}{N K H W} \sum s_c w \rho(v), \qquad
    \rho(v) = |v|, \; v^2, \; \sqrt{v^2 + \epsilon} \; \text{or} \;
    \begin{cases} v^2 / 2 & |v| \le \delta \\ \delta (|v| - \delta / 2) & \text{else} \end{cases}

w is the weight map, K the number of channels, s_c = 1. In YUV K is 1 and s_c are the channels' weights. A
mean over the weights divides by their mean, too.

One sweep over x and y gives the three terms and, where a gradient is wanted, the gradient itself: with psi
the derivative of rho,

.. math::
    \frac{\partial L}{\partial x} =
        M^T \bigl[ (1 + g f) \bigl( \psi(p) + \lambda_S \textstyle\sum S^T \psi(S p) \bigr)
        + \lambda_T \textstyle\sum \Delta^T \psi(\Delta M x) \bigr] \frac{\lambda s_c w}{N K H W}.

That is all that is saved, in the gradient's dtype (float16's in float32). The backward pass, which is
yuv_l2's, scales it by the incoming gradient, in place where nobody else can see it, and not at all if that is
1. The gradient of y is the negative, without total variation; where that is in the loss and y needs a
gradient, the variation is a sweep of its own.

If both rho are squares, the gradient is linear in x and y, and its own derivative is the op itself at another
x. Other second derivatives are refused; the reference has them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import (
    check_saved,
    differentiable,
    savable,
    saved_gradient,
    saved_tensors_are_ours,
    wants_gradient,
)
from fastgan.ops._batching import one_by_one
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_numbers,
    check_alike,
    check_image,
    check_one_of,
    check_real,
    check_same_device,
    is_floating,
    scalar_tensor,
    shown,
)
from fastgan.ops._declare import declare
from fastgan.ops.yuv_l2 import _yuv_l2_backward as _backward
from fastgan.ops.yuv_l2 import _yuv_l2_backward_ as _backward_
from fastgan.reference import pixel_loss as reference
from fastgan.reference.pixel_loss import COLORS, KINDS
from fastgan.reference.precision import both_double

REDUCTIONS = ("mean", "sum", "none")
# The least eps: float32's smallest normal number. Below, Charbonnier's gradient at 0 would be 0 / 0.
LEAST_EPS = torch.finfo(torch.float32).tiny
_L2 = KINDS.index("l2")


def pixel_loss(
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None = None,
    *,
    kind: str = "l1",
    eps: float = 1e-12,
    delta: float = 1.0,
    color: str = "rgb",
    yuv_scales: tuple[float, float, float] | None = None,
    edge_gain: float | Tensor = 0.0,
    sobel_weight: float = 0.0,
    tv_weight: float = 0.0,
    tv_kind: str = "l1",
    reduction: str = "mean",
    weighted_mean: bool = False,
    loss_weight: float = 1.0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss and its three terms before their weights; see :func:`fastgan.losses.pixel_loss`.

    With ``reduction="none"`` the loss is a map, by PyTorch's operations, without terms.
    """
    check_one_of("color", color, COLORS)
    check_image("x", x, None if color == "rgb" else 3)
    if y is not None:
        check_image("y", y, None)
        check_alike("x", x, "y", y)
    check_one_of("kind", kind, KINDS)
    check_one_of("tv_kind", tv_kind, KINDS)
    check_one_of("reduction", reduction, REDUCTIONS)
    if yuv_scales is not None and color != "yuv":
        raise ValueError(f"yuv_scales are for color='yuv', got {shown(yuv_scales)} and color={color!r}")
    yuv_scales = (1.0, 1.0, 1.0) if yuv_scales is None else yuv_scales
    scale_y, scale_u, scale_v = as_numbers("yuv_scales", yuv_scales, 3)
    eps, delta = as_eps("eps", eps), as_finite("delta", delta)
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")
    sobel_weight, tv_weight = as_finite("sobel_weight", sobel_weight), as_finite("tv_weight", tv_weight)
    if y is None and not tv_weight:
        raise ValueError(f"without y, tv_weight must not be 0, got {tv_weight}")
    loss_weight = as_finite("loss_weight", loss_weight)
    weighted_mean = as_flag("weighted_mean", weighted_mean)
    if weighted_mean and reduction != "mean":
        raise ValueError(f"weighted_mean=True is for reduction='mean', got {reduction!r}")
    if reduction == "none" and (y is None or sobel_weight or tv_weight):
        raise ValueError(
            "reduction='none' is for x and y without sobel_weight and tv_weight, whose maps differ in size"
        )
    if y is not None:
        # Else terms of x alone, and the mean of the weights, would be in x's precision.
        x, y = both_double(x, y)
    tensors = (x,) if y is None else (x, y)
    if weight is not None:
        weight = _as_map(weight, x, 1 if color == "luma" else x.shape[1])
        tensors = (*tensors, weight)
    chosen = "reference"
    if reduction != "none" or backend is not None:
        chosen = _dispatch.choose("pixel_loss", tensors, backend)
    if chosen != "reference" and reduction == "none":
        raise RuntimeError(
            f"pixel_loss: backend {chosen!r} was requested, but it has no kernel for reduction='none'"
        )
    if chosen == "reference":
        gain = scalar_tensor("edge_gain", edge_gain, like=x)
        check_same_device(x=x, edge_gain=gain)
        return reference.pixel_loss(
            x, y, weight, kind, eps=eps, delta=delta, color=color, yuv_scales=(scale_y, scale_u, scale_v),
            edge_gain=gain, sobel_weight=sobel_weight, tv_weight=tv_weight, tv_kind=tv_kind,
            reduction=reduction, weighted_mean=weighted_mean, loss_weight=loss_weight,
        )  # fmt: skip
    gain_tensor, number = None, 0.0
    if isinstance(edge_gain, Tensor) or (torch.compiler.is_compiling() and edge_gain != 0):
        gain_tensor = scalar_tensor("edge_gain", edge_gain, like=x)
        check_same_device(x=x, edge_gain=gain_tensor)
    else:
        # A number saves the launch that fills a tensor. Compiled code would recompile for each number.
        number = as_finite("edge_gain", edge_gain, "a number or a 0-d tensor")
    means = None
    if weight is not None:
        if weight.requires_grad:
            raise ValueError(
                "weight gets no gradient from the kernels, but requires grad: pass it detached, or "
                "backend='reference'"
            )
        means = _means(weight, x, tv_weight != 0) if weighted_mean else None
        weight = weight.expand(x.shape[0], 1 if color == "luma" else x.shape[1], *x.shape[2:])
    loss, parts, _ = _sweep(
        x, y, weight, gain_tensor, means, number, KINDS.index(kind), KINDS.index(tv_kind),
        COLORS.index(color), eps, delta, scale_y, scale_u, scale_v, sobel_weight, tv_weight, loss_weight,
        reduction == "mean", 0, None,
    )  # fmt: skip
    return loss, parts


def as_eps(name: str, value: object) -> float:
    """A number to add to squares below a root."""
    number = as_finite(name, value)
    if number < LEAST_EPS:
        raise ValueError(
            f"{name} must be at least {LEAST_EPS:.3g}, float32's smallest normal number, got {value}"
        )
    return number


def _as_map(weight: object, x: Tensor, channels: int) -> Tensor:
    """The weight as a floating-point tensor of four dimensions that broadcast to N C H W."""
    check_real("weight", weight)
    assert isinstance(weight, Tensor)
    check_same_device(x=x, weight=weight)
    wanted = (x.shape[0], channels, x.shape[2], x.shape[3])
    if weight.dim() != 4 or any(
        size not in (1, full) for size, full in zip(weight.shape, wanted, strict=True)
    ):
        dimensions = "" if weight.dim() == 4 else "have four dimensions and "
        raise ValueError(f"weight must {dimensions}broadcast to {wanted}, got shape {tuple(weight.shape)}")
    return weight if is_floating(weight) else weight.to(torch.float32)


def _means(weight: Tensor, x: Tensor, of_neighbours: bool) -> Tensor:
    """The weight's means over all pixels, and over those with a neighbour below and on the right, (3,).

    Sums of rows first: a row is added up by one thread, however many there are.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    maps = [weight]
    if of_neighbours:
        height, width = x.shape[2:]
        full = weight.expand(-1, -1, height, width)
        # Without neighbours the mean of the whole, which divides a sum of 0.
        maps += [full[:, :, :-1] if height > 1 else full, full[..., :-1] if width > 1 else full]
    with torch.no_grad():
        sums = [rows.sum(dim=-1, dtype=dtype).sum(dtype=torch.float64) / rows.numel() for rows in maps]
        return torch.stack(sums if of_neighbours else 3 * sums).to(dtype)


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "pixel_loss(Tensor x, Tensor? y, Tensor? weight, Tensor? edge_gain, Tensor? weight_means, "
    "float edge_gain_number, int kind, int tv_kind, int color, float eps, float delta, float scale_y, "
    "float scale_u, float scale_v, float sobel_weight, float tv_weight, float loss_weight, bool mean, "
    "int direction_sign, ScalarType? direction_dtype) -> (Tensor loss, Tensor parts, Tensor direction)"
)
def _pixel_loss_fake(x, y, weight, edge_gain, weight_means, edge_gain_number, *options):
    direction_dtype = options[-1]
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype if y is not None else None) else torch.float32
    loss, parts = x.new_empty((), dtype=dtype), x.new_empty(3, dtype=dtype)
    if direction_dtype is None:
        return loss, parts, x.new_empty(0, dtype=dtype)
    return loss, parts, torch.empty_like(x, dtype=direction_dtype)


# --- batching: one loss per call, call by call ---------------------------------------------------------


def _sweep(x, y, weight, edge_gain, weight_means, *numbers):
    """The op with the direction that is asked for, as by a batching rule, or that a gradient will need.

    Where y needs a gradient, the variation of x is a call of its own.
    """
    *options, sobel_weight, tv_weight, loss_weight, mean, sign, dtype = numbers
    tensors = weight, edge_gain, weight_means
    if y is not None and tv_weight and wants_gradient(y):
        kind = saved_gradient(x, None)
        tv, tv_parts, _ = _pixel_loss(x, None, *tensors, *options, 0.0, tv_weight, loss_weight, mean, *kind)
        tv_weight, sign, dtype = 0.0, 0, None
    else:
        tv = tv_parts = None
    kind = (sign, dtype) if dtype else saved_gradient(x, y)
    loss, parts, direction = _pixel_loss(
        x, y, *tensors, *options, sobel_weight, tv_weight, loss_weight, mean, *kind
    )
    if tv is None:
        return loss, parts, direction
    return loss + tv, parts + tv_parts, direction


# --- backward: the gradient is saved; the derivative of a linear one is the op itself --------------------


def _save_for_pixel_loss(ctx, inputs, output):
    x, y, weight, edge_gain, weight_means, *numbers, direction_sign, direction_dtype = inputs
    _, parts, direction = output
    check_saved("pixel_loss", "a direction_dtype", direction_dtype is not None)
    ctx.mark_non_differentiable(parts)
    is_linear = numbers[1] == _L2 and (numbers[2] == _L2 or not numbers[10])
    ctx.is_linear = numbers[2] == _L2 if y is None else is_linear
    saved = [savable(tensor) for tensor in (weight, edge_gain, weight_means)] if ctx.is_linear else [None] * 3
    ctx.save_for_backward(direction, *saved)
    ctx.numbers = numbers
    ctx.has_y = y is not None
    ctx.dtypes = (x.dtype, None if y is None else y.dtype)
    ctx.direction_sign = direction_sign


def _pixel_loss_gradients(ctx, grad_loss, _grad_parts, grad_direction):
    direction, *tensors = ctx.saved_tensors
    rest = (None,) * 18
    if ctx.needs_input_grad[2]:  # where the check of the arguments did not run, as in a recorded graph
        raise NotImplementedError("pixel_loss has no gradient with respect to weight: pass it detached")
    if ctx.has_y and ctx.numbers[10] and ctx.needs_input_grad[1]:
        raise RuntimeError(
            "pixel_loss has no gradient of y together with tv_weight in one call of the operator"
        )
    if grad_direction is None and _can_overwrite(ctx, direction, grad_loss):
        sign = 1 if ctx.needs_input_grad[0] else -1
        direction = direction.detach()  # as an output of the op it is part of the graph
        _backward_(direction, grad_loss, sign * ctx.direction_sign, True)
        gradients = [direction if needed else None for needed in ctx.needs_input_grad[:2]]
        return (*gradients, *rest)
    gradients = [None, None]
    for index, sign in ((0, 1), (1, -1)):
        if not ctx.needs_input_grad[index]:
            continue
        dtype = ctx.dtypes[index]
        terms = []
        if grad_loss is not None:
            terms.append(_backward(direction, grad_loss, sign * ctx.direction_sign, True, dtype))
        if grad_direction is not None:
            derivative = _direction_at(ctx, grad_direction, tensors)
            terms.append((sign * derivative).to(dtype))
        gradients[index] = sum(terms[1:], start=terms[0]) if terms else None
    return (*gradients, *rest)


def _can_overwrite(ctx, direction: Tensor, grad_loss: Tensor) -> bool:
    """Whether the saved gradient can become the one asked for: one, in its dtype, and not read again."""
    needs_x, needs_y = ctx.needs_input_grad[:2]
    if needs_x == needs_y or ctx.dtypes[0 if needs_x else 1] != direction.dtype:
        return False
    return saved_tensors_are_ours(grad_loss)


def _direction_at(ctx, x: Tensor, tensors: list[Tensor | None]) -> Tensor:
    """The gradient that is saved, at another x and y = 0, of a loss of squares."""
    if not ctx.is_linear:
        names = ", ".join(KINDS[kind] for kind in ctx.numbers[1:3])
        raise NotImplementedError(
            f"pixel_loss has no second-order gradient but of kind='l2' (and tv_kind='l2'), got {names}; "
            "backend='reference', or fastgan.use('reference'), has one"
        )
    zero = torch.zeros_like(x) if ctx.has_y else None
    return _pixel_loss(x, zero, *tensors, *ctx.numbers, ctx.direction_sign, x.dtype)[2]


_pixel_loss = differentiable("pixel_loss", _save_for_pixel_loss, _pixel_loss_gradients, one_by_one(_sweep))
