r"""Bilinear sampling of images through homographies.

.. math::
    z_{c,y,x} = \sum_{p} w_p(y, x) \, x_{c,p} + (1 - \sum_{p} w_p(y, x)) \, f_{c,y,x}, \qquad
    (x', y', 1)^T \sim M (x, y, 1)^T

with bilinear weights w of the up to four pixels p of the image around (x', y'), and a fill f where they lie
outside. The op is linear in image and fill, with weights that depend on M alone, so only M is saved. The
backward op is its transpose, whose gradient is the forward op again, so every order is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import fold, unfold
from fastgan.ops._checks import as_number, check_floating, check_image, check_same_device
from fastgan.ops._declare import declare
from fastgan.reference.perspective_warp import perspective_warp as reference_warp


def perspective_warp(
    image: Tensor,
    matrix: Tensor,
    *,
    fill: float | Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Output pixel (x, y) takes the bilinear value at (x', y', 1) ~ matrix (x, y, 1), or the fill outside.

    Coordinates count pixels from the centre of the first one, as in tf.contrib.image.transform. From the
    outermost pixels' centres to one pixel further out, image and fill are blended. Values of weight zero are
    not read: a NaN in an image or a fill reaches only output pixels that it has a weight in.

    Args:
        image: N C H W; float32, bfloat16, float16 or float64; any strides.
        matrix: (N, 3, 3), output to input coordinates; floating point, on the image's device. Pixels that it
            maps to infinity or to 0 / 0 are outside. A matrix that contains NaN makes its image and the
            gradients NaN.
        fill: values beyond the image: None for zeros, a number, or a tensor that expands to the image's shape
            (for instance (N, C, 1, 1), one colour per image), on its device.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device. The
            reference, used where there is no kernel, gathers the four pixels one by one and takes about ten
            times as long as `grid_sample`.

    Returns:
        N C H W, in the image's dtype and memory format.

    Gradients with respect to image and fill are exact to every order and save only the matrix. The matrix
    itself gets a gradient only from ``backend="reference"``. For each input pixel the backward pass gathers
    the gradients of the output pixels that read it, in a fixed order, so results are deterministic, on a GPU
    too. There coordinates are computed in float32, which in images of thousands of pixels may be off by some
    ten-thousandths of a pixel, and the backward pass through a matrix without an inverse is slow.

    Raises:
        TypeError: image, matrix or fill are not floating-point tensors.
        ValueError: other shapes, an empty image, on a GPU one of over a million rows or 65535 channels,
            tensors on different devices, or a matrix that requires grad.
        RuntimeError: the requested backend cannot serve the call.
    """
    return warp_by("matrix", image, matrix, fill, backend)


def warp_by(
    name: str, image: Tensor, matrix: Tensor, fill: float | Tensor | None = None, backend: str | None = None
) -> Tensor:
    """:func:`perspective_warp`, whose errors call the matrix by `name`."""
    check_image("image", image, channels=None)
    check_floating(name, matrix)
    if matrix.shape != (image.shape[0], 3, 3):
        raise ValueError(f"{name} must have shape ({image.shape[0]}, 3, 3), got {tuple(matrix.shape)}")
    check_same_device(**{"image": image, name: matrix})
    expanded = _fill(image, fill)
    if _dispatch.choose("perspective_warp", (image,), backend) == "reference":
        return reference_warp(image, matrix, expanded)
    if matrix.requires_grad:
        raise ValueError(
            f"perspective_warp's kernel has gradients for image and fill alone, but {name} requires grad: "
            "detach it, or ask for backend='reference'"
        )
    return _warp(image, matrix.contiguous(), expanded)


def _fill(image: Tensor, fill: float | Tensor | None) -> Tensor | None:
    if fill is None:
        return None
    if not isinstance(fill, Tensor):
        number = as_number("fill", fill, "None, a number or a tensor")
        if number == 0:
            return None
        return torch.full((), number, dtype=image.dtype, device=image.device).expand(image.shape)
    check_floating("fill", fill)
    check_same_device(image=image, fill=fill)
    try:
        return fill.to(image.dtype).expand(image.shape)
    except RuntimeError:
        raise ValueError(
            f"fill must expand to the image's shape {tuple(image.shape)}, got {tuple(fill.shape)}"
        ) from None


# --- op and fake ----------------------------------------------------------------------------------


@declare("perspective_warp(Tensor image, Tensor matrix, Tensor? fill) -> Tensor")
def _warp_fake(image, matrix, fill):
    return torch.empty_like(image)


@declare("perspective_warp_backward(Tensor grad, Tensor matrix) -> Tensor")
def _warp_backward_fake(grad, matrix):
    return torch.empty_like(grad)


# --- batching: more samples -------------------------------------------------------------------------


def _warps(size, batched, image, matrix, fill):
    image, matrix = fold(image, batched[0], size), fold(matrix, batched[1], size).contiguous()
    return unfold(_warp(image, matrix, None if fill is None else fold(fill, batched[2], size)), size)


def _warps_backward(size, batched, grad, matrix):
    grad, matrix = fold(grad, batched[0], size), fold(matrix, batched[1], size).contiguous()
    return unfold(_warp_backward(grad, matrix), size)


# --- backward, of every order: the two ops are each other's transposes -----------------------------------


def _save_matrix(ctx, inputs, output):
    ctx.save_for_backward(savable(inputs[1]))


def _warp_gradients(ctx, grad):
    (matrix,) = ctx.saved_tensors
    grad_image = grad_fill = None
    if ctx.needs_input_grad[0]:
        grad_image = _warp_backward(grad, matrix)
    if ctx.needs_input_grad[2]:
        accumulation_dtype = torch.promote_types(grad.dtype, torch.float32)
        outside = 1 - _warp(torch.ones_like(grad[:, :1], dtype=accumulation_dtype), matrix, None)
        is_visible = ~(outside <= 8 * torch.finfo(accumulation_dtype).eps)  # as in the kernels; NaN counts
        grad_fill = torch.where(is_visible, grad * outside, 0).to(grad.dtype)
    return grad_image, None, grad_fill


def _warp_backward_gradients(ctx, tangent):
    (matrix,) = ctx.saved_tensors
    return _warp(tangent, matrix, None), None


_warp = differentiable("perspective_warp", _save_matrix, _warp_gradients, _warps)
_warp_backward = differentiable(
    "perspective_warp_backward", _save_matrix, _warp_backward_gradients, _warps_backward
)
