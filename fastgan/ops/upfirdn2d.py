r"""Upsampling, a FIR filter and downsampling of each plane, in one sweep.

.. math::
    y_o = g \sum_k f_k \, u_{o\,d + k - p}, \qquad u_{i\,s} = x_i, \text{ else } 0

along either axis, with factors s up and d down, p pixels of padding before the image, and f flipped for a
convolution. A kernel multiplies only those taps that meet a pixel and not an inserted zero. The op is linear:
its gradient is the same op with s and d swapped, f turned and another p, so gradients of every order are
exact, and only f is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import fold, one_by_one, unfold
from fastgan.ops._checks import as_finite, as_flag
from fastgan.ops._declare import declare
from fastgan.ops._filters import (
    as_factors,
    as_filter,
    as_margins,
    check_maps,
    in_format,
    output_size,
    planes,
)
from fastgan.reference import upfirdn2d as reference


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    """Inserts up - 1 zeros after each pixel, pads, convolves with f, and keeps every down-th pixel.

    Args:
        x: N C H W; float32, bfloat16, float16 or float64; any strides (copied unless contiguous).
        f: (taps,), applied along both axes, or (height, width), floating point, on x's device; a constant.
            None: one tap of 1.
        up, down: at least 1; a number, or [x, y].
        padding: of the upsampled image, by zeros; a number, [x, y], or [left, right, top, bottom]. A
            negative one crops.
        flip_filter: False convolves, True correlates, as convolutions in deep learning do.
        gain: factor of the result.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        N C H' W' in x's dtype and memory format, H' = (H up + top + bottom - taps) // down + 1 and W'
        likewise; summed in float32 (float64 for float64).

    Gradients with respect to x are exact to every order; they save f alone.

    Raises:
        TypeError: x or f are not floating-point tensors, other arguments not such numbers.
        ValueError: other shapes, an empty x, f on another device or with a gradient to compute, factors less
            than 1, or a padded image smaller than the filter.
        RuntimeError: the requested backend cannot serve the call.

    Source: Karras et al. 2019-2021, whose `torch_utils.ops.upfirdn2d` has these arguments.
    """
    check_maps("x", x)
    taps = as_filter("f", f, x)
    up_x, up_y = as_factors("up", up)
    down_x, down_y = as_factors("down", down)
    left, right, top, bottom = margins = as_margins("padding", padding)
    flip, gain = as_flag("flip_filter", flip_filter), as_finite("gain", gain)
    height, width = taps.shape[0], taps.shape[-1]
    out_h = output_size(x.shape[2], up_y, down_y, top, bottom, height)
    out_w = output_size(x.shape[3], up_x, down_x, left, right, width)
    if out_h < 1 or out_w < 1:
        padded = x.shape[2] * up_y + top + bottom, x.shape[3] * up_x + left + right
        raise ValueError(
            f"the padded image must be at least as large as f, {height} x {width}, got {padded[0]} x "
            f"{padded[1]} of x's {x.shape[2]} x {x.shape[3]} with up {shown_pair(up_x, up_y)} and padding "
            f"{list(margins)}"
        )
    if _dispatch.choose("upfirdn2d", (x,), backend) == "reference":
        return reference.upfirdn2d(x, taps, (up_x, up_y), (down_x, down_y), margins, flip, gain)
    x, channels_last = planes(x)
    y = _upfirdn2d(x, taps, up_x, up_y, down_x, down_y, left, top, out_h, out_w, flip, gain)
    return in_format(y, channels_last)


def shown_pair(along_x: int, along_y: int) -> str:
    """Of factors, as they may be given."""
    return str(along_x) if along_x == along_y else f"[{along_x}, {along_y}]"


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "upfirdn2d(Tensor x, Tensor f, int up_x, int up_y, int down_x, int down_y, SymInt pad_x, SymInt pad_y, "
    "SymInt out_h, SymInt out_w, bool flip, float gain) -> Tensor"
)
def _upfirdn2d_fake(x, f, up_x, up_y, down_x, down_y, pad_x, pad_y, out_h, out_w, flip, gain):
    return x.new_empty(x.shape[0], x.shape[1], out_h, out_w)


# --- batching: more samples, or call by call if each has its own filter -------------------------------------


def _filtered(size, batched, x, f, *options):
    if batched[1]:
        return _each(size, batched, x.contiguous(), f.contiguous(), *options)
    return unfold(_upfirdn2d(fold(x, batched[0], size).contiguous(), f, *options), size)


# --- backward of every order: the op itself -----------------------------------------------------------------


def _save_for_upfirdn2d(ctx, inputs, output):
    x, f, *ctx.options = inputs
    ctx.save_for_backward(savable(f))
    ctx.size = x.shape[2:]


def _upfirdn2d_gradient(ctx, grad):
    (f,) = ctx.saved_tensors
    up_x, up_y, down_x, down_y, pad_x, pad_y, _, _, flip, gain = ctx.options
    if ctx.needs_input_grad[1]:
        raise NotImplementedError("upfirdn2d has no gradient with respect to f: pass it detached")
    turned_pads = f.shape[-1] - 1 - pad_x, f.shape[0] - 1 - pad_y
    grad_x = _upfirdn2d(
        grad.contiguous(), f, down_x, down_y, up_x, up_y, *turned_pads, *ctx.size, not flip, gain
    )
    return grad_x, *[None] * 11


_upfirdn2d = differentiable("upfirdn2d", _save_for_upfirdn2d, _upfirdn2d_gradient, _filtered)
_each = one_by_one(_upfirdn2d)
