r"""Bias, upsampling filter, leaky ReLU, gain, clamp and downsampling filter: an alias-free activation.

.. math::
    y = D \, a(U(x + b)), \qquad a(u) = \operatorname{clamp}(g \, \operatorname{lrelu}_s(u)), \qquad
    \frac{\partial L}{\partial x} = U^T \left(a' \cdot D^T \frac{\partial L}{\partial y}\right)

U and D are upsampling and downsampling by :mod:`fastgan.ops.upfirdn2d`, U with a gain of up squared. Of the
upsampled image only which of its values a' has is saved, as a code of one byte per pixel. Backward is linear:
filter, multiplication, filter. Its transpose is the same operator with the two filters exchanged and turned,
so one operator gives exact, fused gradients of every order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import check_saved, differentiable, savable, wants_gradient
from fastgan.ops._batching import fold, one_by_one, unfold
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_number,
    as_whole_number,
    check_floating,
    check_same_device,
)
from fastgan.ops._declare import declare
from fastgan.ops._filters import as_filter, as_margins, check_maps, in_format, output_size, planes
from fastgan.reference import filtered_lrelu as reference


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    *,
    backend: str | None = None,
) -> Tensor:
    """Adds b, upsamples with fu, applies clamp(gain * leaky_relu), and downsamples with fd.

    The activation's new frequencies arise at the higher resolution, where fd removes those that the result
    cannot hold (StyleGAN3). The CPU's kernel computes all of it row by row without storing the upsampled
    image; the GPU's takes two launches, and stores it once in between.

    Args:
        x: N C H W; float32, bfloat16, float16 or float64; any strides (copied unless contiguous).
        fu, fd: (taps,) or (height, width), as of :func:`upfirdn2d`; constants. None: one tap of 1.
        b: (C,), floating point, on x's device; None adds nothing. It is added before padding.
        up, down: factors, at least 1.
        padding: of the upsampled image; a number, [x, y], or [left, right, top, bottom]. Negative ones crop.
        gain: factor of the activation; sqrt(2) keeps the variance at slope 0.2.
        slope: factor of negative values.
        clamp: bound of the activation's magnitude, not negative; None: unbounded.
        flip_filter: False convolves with both filters, True correlates.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        N C H' W' in x's dtype and memory format; computed in float32 (float64 for float64). At NaN both value
        and gradient are NaN.

    Gradients with respect to x and b are exact to every order; they save one byte per upsampled pixel, and
    the filters. At 0 the slope is that of negative values; values beyond the clamp pass no gradient.

    Raises:
        TypeError: x, b, fu or fd are not floating-point tensors, other arguments not such numbers.
        ValueError: other shapes, an empty x, tensors on different devices, a filter with a gradient to
            compute, a clamp that is negative, or sizes smaller than a filter.
        RuntimeError: the requested backend cannot serve the call.

    Source: Karras et al. 2021, whose `torch_utils.ops.filtered_lrelu` has these arguments.
    """
    check_maps("x", x)
    first, second = as_filter("fu", fu, x), as_filter("fd", fd, x)
    if b is not None:
        check_floating("b", b)
        if b.shape != (x.shape[1],):
            raise ValueError(f"b must have shape ({x.shape[1]},), got {tuple(b.shape)}")
        check_same_device(x=x, b=b)
    up, down = as_whole_number("up", up), as_whole_number("down", down)
    left, right, top, bottom = margins = as_margins("padding", padding)
    gain, slope = as_finite("gain", gain), as_finite("slope", slope)
    limit = math.inf if clamp is None else as_number("clamp", clamp)
    if not limit >= 0:
        raise ValueError(f"clamp must not be negative, got {clamp}")
    flip = as_flag("flip_filter", flip_filter)
    mid_h = output_size(x.shape[2], up, 1, top, bottom, first.shape[0])
    mid_w = output_size(x.shape[3], up, 1, left, right, first.shape[-1])
    out_h = output_size(mid_h, 1, down, 0, 0, second.shape[0])
    out_w = output_size(mid_w, 1, down, 0, 0, second.shape[-1])
    if mid_h < 1 or mid_w < 1 or out_h < 1 or out_w < 1:
        raise ValueError(
            f"fu and fd, {_size(first)} and {_size(second)}, must fit into the padded image, got "
            f"{x.shape[2] * up + top + bottom} x {x.shape[3] * up + left + right} of x's {x.shape[2]} x "
            f"{x.shape[3]} with up {up} and padding {list(margins)}"
        )
    if _dispatch.choose("filtered_lrelu", (x,), backend) == "reference":
        bound = None if clamp is None else limit
        return reference.filtered_lrelu(x, first, second, b, up, down, margins, gain, slope, bound, flip)
    x, channels_last = planes(x)
    bias = None if b is None else b.contiguous()
    numbers = up, down, left, top, mid_h, mid_w, out_h, out_w, flip, gain, slope, limit
    return in_format(_filtered(x, bias, first, second, *numbers)[0], channels_last)


def _size(f: Tensor) -> str:
    return f"{f.shape[0]} x {f.shape[-1]}"


# --- ops and fakes --------------------------------------------------------------------------------


@declare(
    "filtered_lrelu(Tensor x, Tensor? b, Tensor fu, Tensor fd, int up, int down, SymInt pad_x, SymInt pad_y, "
    "SymInt mid_h, SymInt mid_w, SymInt out_h, SymInt out_w, bool flip, float gain, float slope, "
    "float clamp, bool with_codes) -> (Tensor y, Tensor codes)"
)
def _filtered_lrelu_fake(
    x, b, fu, fd, up, down, pad_x, pad_y, mid_h, mid_w, out_h, out_w, flip, gain, slope, clamp, with_codes
):
    codes = (*x.shape[:2], mid_h, mid_w) if with_codes else (0,)
    return x.new_empty(*x.shape[:2], out_h, out_w), x.new_empty(codes, dtype=torch.uint8)


# Filter, multiplication by what the codes stand for, filter. `first` and `second` are the paddings before the
# image of the two filters, whose factors are `up` and `down`.
@declare(
    "filtered_lrelu_backward(Tensor grad, Tensor codes, Tensor first, Tensor second, int up, int down, "
    "SymInt first_x, SymInt first_y, SymInt second_x, SymInt second_y, SymInt out_h, SymInt out_w, "
    "bool flip, float gain, float slope) -> Tensor"
)
def _filtered_lrelu_backward_fake(
    grad,
    codes,
    first,
    second,
    up,
    down,
    first_x,
    first_y,
    second_x,
    second_y,
    out_h,
    out_w,
    flip,
    gain,
    slope,
):
    return grad.new_empty(*grad.shape[:2], out_h, out_w)


# --- batching: more samples, or call by call if each has its own bias or filters ----------------------------


def _filtered(x, b, fu, fd, *numbers):
    return _filtered_lrelu(x, b, fu, fd, *numbers, wants_gradient(x, b))


def _batch(size, batched, x, b, fu, fd, *options):
    *numbers, with_codes = options
    with_codes = with_codes or wants_gradient(x, b)
    if any(batched[1:4]):
        tensors = [None if t is None else t.contiguous() for t in (x, b, fu, fd)]
        return _each(size, batched, *tensors, *numbers, with_codes)
    x = fold(x, batched[0], size).contiguous()
    y, codes = _filtered_lrelu(x, b, fu, fd, *numbers, with_codes)
    return unfold(y, size), unfold(codes, size)


def _batch_backward(size, batched, grad, codes, first, second, *options):
    if any(batched[2:4]):
        tensors = (t.contiguous() for t in (grad, codes, first, second))
        return _each_backward(size, batched, *tensors, *options)
    grad, codes = fold(grad, batched[0], size).contiguous(), fold(codes, batched[1], size).contiguous()
    return unfold(_filtered_lrelu_backward(grad, codes, first, second, *options), size)


# --- backward -------------------------------------------------------------------------------------


def _refuse_filters(ctx, first, second):
    if ctx.needs_input_grad[first] or ctx.needs_input_grad[second]:
        raise NotImplementedError(
            "filtered_lrelu has no gradient with respect to its filters: pass them detached"
        )


def _save_for_filtered_lrelu(ctx, inputs, output):
    x, b, fu, fd, *options, with_codes = inputs
    _, codes = output
    check_saved("filtered_lrelu", "with_codes", with_codes)
    ctx.mark_non_differentiable(codes)
    ctx.save_for_backward(codes, savable(fu), savable(fd))
    ctx.options, ctx.size = options, x.shape[2:]
    ctx.bias_dtype = None if b is None else b.dtype


def _filtered_lrelu_gradients(ctx, grad, _grad_codes):
    codes, fu, fd = ctx.saved_tensors
    _refuse_filters(ctx, 2, 3)
    up, down, pad_x, pad_y, _, _, _, _, flip, gain, slope, _ = ctx.options
    grad_x = _filtered_lrelu_backward(
        grad.contiguous(), codes, fd, fu, down, up, fd.shape[-1] - 1, fd.shape[0] - 1,
        fu.shape[-1] - 1 - pad_x, fu.shape[0] - 1 - pad_y, *ctx.size, not flip, gain * up * up, slope,
    )  # fmt: skip
    grad_b = None
    if ctx.needs_input_grad[1]:
        grad_b = grad_x.sum(dim=(0, 2, 3), dtype=torch.promote_types(grad_x.dtype, torch.float32))
        grad_b = grad_b.to(ctx.bias_dtype)
    return grad_x, grad_b, *[None] * 15


_filtered_lrelu = differentiable(
    "filtered_lrelu", _save_for_filtered_lrelu, _filtered_lrelu_gradients, _batch
)
_each = one_by_one(_filtered_lrelu)


# --- every further order: the transpose of backward is backward with the filters exchanged ------------------


def _save_for_backward(ctx, inputs, output):
    grad, codes, first, second, *ctx.options = inputs
    ctx.save_for_backward(codes, savable(first), savable(second))
    ctx.size = grad.shape[2:]


def _backward_gradient(ctx, grad):
    codes, first, second = ctx.saved_tensors
    _refuse_filters(ctx, 2, 3)
    up, down, first_x, first_y, second_x, second_y, _, _, flip, gain, slope = ctx.options
    transposed = _filtered_lrelu_backward(
        grad.contiguous(), codes, second, first, down, up,
        second.shape[-1] - 1 - second_x, second.shape[0] - 1 - second_y,
        first.shape[-1] - 1 - first_x, first.shape[0] - 1 - first_y, *ctx.size, not flip, gain, slope,
    )  # fmt: skip
    return transposed, *[None] * 14


_filtered_lrelu_backward = differentiable(
    "filtered_lrelu_backward", _save_for_backward, _backward_gradient, _batch_backward
)
_each_backward = one_by_one(_filtered_lrelu_backward)
