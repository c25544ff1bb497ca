r"""Blur of each image with its own kernel.

.. math::
    z_{c,y,x} = \sum_{i,j} k_{i,j} \, x_{c,\, y+i-r,\, x+j-r}

for each image with its kernel k of size 2 r + 1, with zeros beyond the border. The op is linear in the image:
its gradient is the same op with the kernel rotated by 180 degrees, so gradients of every order are exact, and
only the kernels are saved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import fold, unfold
from fastgan.ops._checks import check_floating, check_image, check_same_device
from fastgan.ops._declare import declare
from fastgan.reference import blur as reference


def blur(image: Tensor, kernels: Tensor, *, backend: str | None = None) -> Tensor:
    """Convolves all channels of image n with kernel n; zeros beyond the border, like TensorFlow's SAME.

    Args:
        image: N C H W; float32, bfloat16, float16 or float64; any strides.
        kernels: (N, k, k) with k odd, on the image's device; applied unflipped, like convolutions in deep
            learning. Taps of weight zero are skipped: they cost nothing and spread no NaN, and their gradient
            ignores pixels that are not finite. Nothing beyond the border is read either: a NaN tap makes
            only those pixels NaN for which it falls inside the image.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device. The
            reference, used where there is no kernel, goes tap by tap: 7x7 taps take tens of times as long as
            a grouped convolution.

    Returns:
        N C H W, in the image's dtype and memory format; summed in float32 (float64 for float64).

    Gradients with respect to image and kernels are exact to every order. They save the kernels, and the
    image only if the kernels require grad.

    Raises:
        TypeError: the image or the kernels are not floating-point tensors.
        ValueError: other shapes, an even k, an empty image, or tensors on different devices.
        RuntimeError: the requested backend cannot serve the call.
    """
    check_image("image", image, channels=None)
    check_floating("kernels", kernels)
    size = kernels.shape[-1] if kernels.dim() else 0
    if kernels.shape != (image.shape[0], size, size) or size % 2 == 0:
        raise ValueError(
            f"kernels must have shape ({image.shape[0]}, k, k) with k odd, got {tuple(kernels.shape)}"
        )
    check_same_device(image=image, kernels=kernels)
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    if _dispatch.choose("blur", (image,), backend) == "reference":
        return reference.blur(image.to(dtype), kernels.to(dtype)).to(image.dtype)
    return _blur(image, kernels.to(dtype).contiguous(), False)


# --- op and fake ----------------------------------------------------------------------------------


@declare("blur(Tensor image, Tensor kernels, bool turned) -> Tensor")
def _blur_fake(image, kernels, turned):
    return torch.empty_like(image)


# --- batching: more samples -------------------------------------------------------------------------


def _blurs(size, batched, image, kernels, turned):
    image, kernels = fold(image, batched[0], size), fold(kernels, batched[1], size)
    return unfold(_blur(image, kernels.contiguous(), turned), size)


# --- backward of every order: the op itself for the image, plain PyTorch for the kernels ------------------


def _save_for_blur(ctx, inputs, output):
    image, kernels, ctx.turned = inputs
    ctx.save_for_backward(image if ctx.needs_input_grad[1] else None, savable(kernels))


def _blur_gradients(ctx, grad):
    image, kernels = ctx.saved_tensors
    grad_image = grad_kernels = None
    if ctx.needs_input_grad[0]:
        grad_image = _blur(grad, kernels, not ctx.turned)
    if ctx.needs_input_grad[1]:
        dtype = kernels.dtype
        turned = kernels.flip(1, 2) if ctx.turned else kernels
        grad_kernels = reference.blur_kernel_gradient(image.to(dtype), turned, grad.to(dtype))
        grad_kernels = grad_kernels.flip(1, 2) if ctx.turned else grad_kernels
    return grad_image, grad_kernels, None


_blur = differentiable("blur", _save_for_blur, _blur_gradients, _blurs)
