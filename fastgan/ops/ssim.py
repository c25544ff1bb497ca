r"""Structural similarity of two images, as a loss for each image and channel.

.. math::
    \mathrm{SSIM} = \frac{2 \mu_x \mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1} \cdot
    \frac{2 \sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2}, \qquad
    L_{nc} = w \, (1 - \operatorname{mean} \mathrm{SSIM}) + v \operatorname{mean} |x - y|

with means, variances and the covariance of windows, weighed by a Gaussian. They follow from the means and
variances of m = (x + y) / 2 and d = (x - y) / 2, and 1 - SSIM from these without cancellation (see
`fastgan.reference.ssim`). Kernels take variances from differences between nearby pixels
(`csrc/cpu/ssim_rows.h`, `kernels/_ssim_moments.py`).
With :math:`s_z` the derivative of L with respect to a filtered image z, one of m, d and their squares, and G
the filter, which is its own transpose,

.. math::
    \frac{\partial L}{\partial x} = \tfrac12 G(s_m + s_d) + m \, G s_{m^2} + d \, G s_{d^2}, \qquad
    \frac{\partial L}{\partial y} = \tfrac12 G(s_m - s_d) + m \, G s_{m^2} - d \, G s_{d^2}

The forward sweep writes the gradients that are wanted, of the mean over all images and channels; nothing else
is saved. The backward pass multiplies them by the incoming gradient, and skips that where it is that of the
mean, as after ``loss.mean().backward()``. They are saved in the images' dtype, but for float16 in float32,
in which a mean over many pixels has no subnormal gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from fastgan.ops._batching import fold, unfold, with_batch
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_not_negative,
    as_numbers,
    as_whole_number,
    check_alike,
    check_image,
    check_one_of,
)
from fastgan.ops._declare import declare
from fastgan.reference import ssim as reference

WINDOWS = ("gaussian", "uniform")
PADDINGS = reference.PADDINGS
# Far beyond what anybody uses: the kernels' buffers are as wide as four radii.
LARGEST_WINDOW = 255
# The Triton kernels are unrolled, and keep four moments of each of a column's windows in registers. At this
# size both already spill registers and compile in 30 s, against 2 s at size 11; at 101 one of them took 5
# minutes to compile (Triton for sm_90, 2 cores).
LARGEST_TRITON_WINDOW = 33


def ssim_distance(
    x: Tensor,
    y: Tensor,
    data_range: float = 1.0,
    *,
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "valid",
    contrast: bool = False,
    weight: float = 1.0,
    l1_weight: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """``weight`` (1 - mean SSIM) + ``l1_weight`` mean |x - y|, for each image and channel.

    Args:
        x: N C H W; float32, bfloat16, float16 or float64; any strides.
        y: as x; may have another dtype.
        data_range: the largest minus the smallest possible value of the images.
        window: "gaussian", or "uniform" for equal weights, which ignores sigma.
        window_size: odd, at most 255; beyond 33 the reference serves the GPU, with a warning.
        sigma: standard deviation of the Gaussian in pixels.
        k: K1 and K2 of the paper; c1 = (K1 data_range)^2, c2 = (K2 data_range)^2.
        padding: "valid", for windows that lie within the image, as in the paper and in pytorch-msssim;
            "same", for windows around every pixel with zeros beyond the border, as in fused-ssim; "reflect",
            the same with the image mirrored there, as in torchmetrics and kornia.
        contrast: leave out the luminance, the first of the two quotients.
        weight, l1_weight: of the two terms. The mean of |x - y| is over all pixels, whatever the padding.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        (N, C), float32, or float64 if an image is, computed in that dtype. Equal images give exactly 0, and
        flat areas lose no digits: kernels sum the squares of differences between nearby pixels, never those
        of values. In float32 the relative error is 1e-6, and 1e-5 of values of 100 times the data_range.
        Beside edges it is larger with ``backend="reference"``, which has the plain formula, and grows with
        the square of their height. On a GPU the same happens for most Gaussian windows of 11 and more,
        the default among them, whose rows share what is subtracted; there it is about a tenth as large.

    Gradients with respect to x and y are exact. In float32 their largest error on pairs of photographs is
    less than 1e-5 of the largest gradient; it grows with values beyond the data_range. A gradient of the
    gradient needs ``backend="reference"``: kernels save only the gradient and refuse a second one.

    Raises:
        TypeError: images that are not floating-point tensors, or another argument of the wrong kind.
        ValueError: other or unequal shapes, fewer pixels than the window needs, several devices, or an
            argument that is out of its range.
        RuntimeError: the requested backend cannot serve the call.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 2004.
    """
    check_image("x", x, channels=None)
    check_image("y", y, channels=None)
    check_alike("x", x, "y", y)
    window_size, sigma = as_window(window, window_size, sigma)
    c1, c2 = as_constants(data_range, k)
    check_size("x", x, window_size, padding)
    contrast = as_flag("contrast", contrast)
    weight, l1_weight = as_finite("weight", weight), as_finite("l1_weight", l1_weight)
    if _chosen(x, y, window_size, backend) == "reference":
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        taps = reference.window_taps(window_size, sigma)
        return reference.ssim(x.to(wide), y.to(wide), taps, c1, c2, padding, contrast, weight, l1_weight)
    number = PADDINGS.index(padding)
    if contrast:  # the kernels' factor of 0 for the luminance needs a finite one
        c1 = 1.0
    return _compare(x, y, window_size, sigma, c1, c2, number, contrast, weight, l1_weight)[0]


def _chosen(x: Tensor, y: Tensor, window_size: int, backend: str | None) -> str:
    """The backend that serves the call."""
    chosen = _dispatch.choose("ssim", (x, y), backend)
    if chosen != "triton" or window_size <= LARGEST_TRITON_WINDOW:
        return chosen
    reason = f"the Triton kernel takes a window_size of at most {LARGEST_TRITON_WINDOW}, got {window_size}"
    if _dispatch.requested(backend) is not None:
        raise RuntimeError(f"ssim: backend 'triton' was requested, but {reason}")
    _dispatch.warn_once("ssim", reason)
    return "reference"


def as_window(window: str, window_size: int, sigma: float) -> tuple[int, float]:
    """The window's size and, 0 for equal weights, its standard deviation."""
    check_one_of("window", window, WINDOWS)
    window_size, sigma = as_window_size("window_size", window_size), as_positive("sigma", sigma)
    return window_size, sigma if window == "gaussian" else 0.0


def as_window_size(name: str, size: int) -> int:
    size = as_whole_number(name, size)
    if size % 2 == 0 or size > LARGEST_WINDOW:
        raise ValueError(f"{name} must be odd and at most {LARGEST_WINDOW}, got {size}")
    return size


def as_positive(name: str, value: float) -> float:
    number = as_finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return number


def as_constants(data_range: float, k: Sequence[float], name_of_k: str = "k") -> tuple[float, float]:
    """c1 and c2."""
    data_range = as_positive("data_range", data_range)
    first, second = (
        as_not_negative(name_of_k, number) * data_range for number in as_numbers(name_of_k, k, 2)
    )
    return first * first, second * second


def check_size(name: str, image: Tensor, window_size: int, padding: str) -> None:
    """Checks that the image has pixels enough for a window."""
    check_one_of("padding", padding, PADDINGS)
    least = {"valid": window_size, "same": 1, "reflect": window_size // 2 + 1}[padding]
    if image.shape[2] < least or image.shape[3] < least:
        raise ValueError(
            f"{name} must have at least {least} x {least} pixels for windows of {window_size} x {window_size}"
            f" and padding={padding!r}, got shape {tuple(image.shape)}"
        )


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "ssim(Tensor x, Tensor y, int window_size, float sigma, float c1, float c2, int padding, bool contrast, "
    "float weight, float l1_weight, bool with_x, bool with_y) -> "
    "(Tensor loss, Tensor direction_x, Tensor direction_y)"
)
def _ssim_fake(
    x, y, window_size, sigma, c1, c2, padding, contrast, weight, l1_weight, with_x, with_y
):  # fmt: skip
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    directions = [
        torch.empty_like(image, dtype=_saved(image)) if wanted else image.new_empty(0, dtype=_saved(image))
        for image, wanted in ((x, with_x), (y, with_y))
    ]
    return x.new_empty(x.shape[:2], dtype=dtype), *directions


def _saved(image: Tensor) -> torch.dtype:
    return torch.float32 if image.dtype == torch.float16 else image.dtype


# N C grad direction, of each image and channel: 1 times the direction if grad is that of a mean. N and C are
# those of the tensors, since each new number would make compiled code recompile.
@declare("ssim_backward(Tensor direction, Tensor grad, ScalarType dtype) -> Tensor")
def _ssim_backward_fake(direction, grad, dtype):
    return torch.empty_like(direction, dtype=dtype)


# The same in place, for when the direction is not needed again.
@declare("ssim_backward_(Tensor(a!) direction, Tensor grad) -> ()")
def _ssim_backward_fake_(direction, grad):
    return None


# --- batching: more samples -------------------------------------------------------------------------


def _compare(x, y, *formula, with_x=False, with_y=False):
    with_x, with_y = with_x or wants_gradient(x), with_y or wants_gradient(y)
    return _ssim(x, y, *formula, with_x, with_y)


def _compares(size, batched, x, y, *formula_and_wanted):
    *formula, with_x, with_y = formula_and_wanted
    x, y = fold(x, batched[0], size), fold(y, batched[1], size)
    loss, *directions = _compare(x, y, *formula, with_x=with_x, with_y=with_y)
    # The gradient of each call's mean, not of the mean over all calls.
    return unfold(loss, size), *(unfold(size * direction, size) for direction in directions)


def _compares_backward(size, batched, direction, grad, dtype):
    direction, grad = with_batch(direction, batched[0], size), with_batch(grad, batched[1], size)
    planes = direction.shape[1] * direction.shape[2]
    return (planes * grad[..., None, None] * direction).to(dtype)


# --- backward -------------------------------------------------------------------------------------


def _save_for_ssim(ctx, inputs, output):
    x, y, *_, with_x, with_y = inputs
    needs_x, needs_y = ctx.needs_input_grad[:2]
    check_saved("ssim", "with_x and with_y", (with_x or not needs_x) and (with_y or not needs_y))
    ctx.dtypes = (x.dtype, y.dtype)
    _, direction_x, direction_y = output
    ctx.save_for_backward(direction_x, direction_y)


def _ssim_gradients(ctx, grad, *grad_directions):
    if any(grad_direction is not None for grad_direction in grad_directions):
        raise NotImplementedError(_FIRST_ORDER_ONLY)
    gradients: list[Tensor | None] = [None, None]
    for index, direction in enumerate(ctx.saved_tensors):
        dtype = ctx.dtypes[index]
        if not ctx.needs_input_grad[index]:
            continue
        if direction.dtype == dtype and saved_tensors_are_ours(grad):
            direction = direction.detach()  # as an output of the op it is part of the graph
            _ssim_backward_(direction, grad.contiguous())
            gradients[index] = direction
        else:
            gradients[index] = _ssim_backward(direction, grad.contiguous(), dtype)
    return (*gradients, *(None,) * 10)


_ssim_backward_ = below_autograd("ssim_backward_")
_ssim = differentiable("ssim", _save_for_ssim, _ssim_gradients, _compares)


# --- second order: refused; directions are differentiable outputs, lest they silently count as constants --

_FIRST_ORDER_ONLY = (
    "ssim keeps only its gradient and cannot be differentiated twice; use backend='reference', or "
    "fastgan.use('reference'), where a gradient of the gradient is needed"
)
_ssim_backward = first_order_only("ssim_backward", NotImplementedError, _FIRST_ORDER_ONLY, _compares_backward)
