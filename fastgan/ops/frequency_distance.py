r"""The mean squared magnitude of spectra, each frequency weighed by its own magnitude.

The formula is that of :func:`fastgan.losses.focal_frequency_loss`, which says all that this op can do and is
its public face. With D the orthonormal Fourier transform of d, n differences of two images' pixels, and
constant weights w, its gradient is

.. math::
    \frac{\partial L}{\partial d} = \frac{2}{n} \mathcal{F}^{-1}(w D)

As d is real, half a spectrum has it all: each column but the first, and the last of an even number, stands
for its mirror image, too. The gradient is real for the same reason, one inverse transform of half a spectrum,
where PyTorch's own gradient of `rfft2` takes a complex one of a whole spectrum.

The maximum divides the sum, so one sweep finds both. The spectrum and the maxima are saved; backward computes
the weights anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import one_by_one
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    check_floating,
    check_same_device,
    described,
    may_look_at,
)
from fastgan.ops._declare import declare, declare_composite
from fastgan.reference import frequency_distance as reference


def frequency_distance(
    patches: Tensor,
    matrix: Tensor | None = None,
    *,
    alpha: float = 1.0,
    log_matrix: bool = False,
    batch_matrix: bool = False,
    backend: str | None = None,
) -> Tensor:
    """The weighted mean over all frequencies, samples, patches and channels.

    Args:
        patches: (N, patches, C, H, W), differences of images; float32 or float64, any strides.
        matrix, alpha, log_matrix, batch_matrix: as in :func:`fastgan.losses.focal_frequency_loss`.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        0-d, in the patches' dtype. Gradients of every order are exact, with constant weights.

    Raises:
        TypeError: patches or a matrix that are not such tensors, or another argument of the wrong kind.
        ValueError: patches of another number of dimensions or without elements; a matrix that does not fit,
            is on another device or, where it can be read without synchronization, has values outside [0, 1];
            an alpha that is not finite.
        RuntimeError: the requested backend cannot serve the call.
    """
    check_floating("patches", patches)
    if patches.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"patches must be in float32 or float64, got {described(patches)}")
    if patches.dim() != 5:
        raise ValueError(f"patches must have shape (N, patches, C, H, W), got {tuple(patches.shape)}")
    if patches.numel() == 0:
        raise ValueError(f"patches must not be empty, got shape {tuple(patches.shape)}")
    alpha = as_finite("alpha", alpha)
    log_matrix, batch_matrix = as_flag("log_matrix", log_matrix), as_flag("batch_matrix", batch_matrix)
    if matrix is not None:
        matrix = _half_of_matrix(matrix, patches)
    if _dispatch.choose("frequency_distance", (patches,), backend) == "reference":
        return reference.frequency_distance(patches, matrix, alpha, log_matrix, batch_matrix)
    loss: Tensor = _spectral_distance(patches, matrix, alpha, log_matrix, batch_matrix)[0]
    return loss


def _half_of_matrix(matrix: Tensor, patches: Tensor) -> Tensor:
    """The columns of half a spectrum, each the mean of a frequency's weight and that of its mirror image."""
    check_floating("matrix", matrix)
    check_same_device(matrix=matrix, patches=patches)
    matrix = matrix.detach()
    if may_look_at(matrix) and not ((matrix >= 0) & (matrix <= 1)).all():
        low, high = matrix.min().item(), matrix.max().item()
        raise ValueError(f"matrix must lie in [0, 1], got values in [{low:.6g}, {high:.6g}]")
    *outer, height, width = patches.shape
    try:
        matrix.expand(patches.shape)
    except RuntimeError as error:
        raise ValueError(
            f"matrix must be broadcastable to the patches' shape {tuple(patches.shape)}, got shape "
            f"{tuple(matrix.shape)}"
        ) from error
    matrix = matrix.to(patches.dtype).expand(*matrix.shape[:-2], height, width)
    mirrored = matrix.flip((-2, -1)).roll((1, 1), (-2, -1))
    half = ((matrix + mirrored) / 2)[..., : width // 2 + 1].contiguous()
    return half.expand(*outer, *half.shape[-2:])


# --- op and fake: the spectrum, sqrt(H W) D, is (N, patches, C, H, W // 2 + 1, 2), contiguous --------------


@declare(
    "frequency_distance(Tensor spectrum, Tensor? matrix, SymInt width, float alpha, bool log_matrix, "
    "bool batch_matrix) -> (Tensor loss, Tensor maxima)"
)
def _frequency_distance_fake(spectrum, matrix, width, alpha, log_matrix, batch_matrix):
    n, patches, channels = spectrum.shape[:3]
    return spectrum.new_empty(()), spectrum.new_empty(1 if batch_matrix else n * patches * channels)


# The vectors, at first order the spectrum itself, times their weights and 2 grad / n / (H W).
@declare(
    "frequency_distance_backward(Tensor spectrum, Tensor maxima, Tensor? matrix, Tensor vectors, "
    "Tensor grad, SymInt width, float alpha, bool log_matrix) -> Tensor"
)
def _frequency_distance_backward_fake(spectrum, maxima, matrix, vectors, grad, width, alpha, log_matrix):
    return torch.empty_like(spectrum)


# With the transform, so that its gradient is a transform of half a spectrum, too.
@declare_composite(
    "spectral_distance(Tensor patches, Tensor? matrix, float alpha, bool log_matrix, bool batch_matrix) -> "
    "(Tensor loss, Tensor spectrum, Tensor maxima)"
)
def _spectral_distance_of_patches(patches, matrix, alpha, log_matrix, batch_matrix):
    spectrum = _rfft2(patches)
    loss, maxima = torch.ops.fastgan.frequency_distance(
        spectrum, matrix, patches.shape[-1], alpha, log_matrix, batch_matrix
    )
    return loss, spectrum, maxima


# Both without a factor, which the kernels apply: that of norm="ortho" would make dynamic shapes constant.
def _rfft2(images: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.rfft2(images, norm="backward").contiguous())


def _irfft2(spectrum: Tensor, width: int) -> Tensor:
    return torch.fft.irfft2(torch.view_as_complex(spectrum), s=(spectrum.shape[-3], width), norm="forward")


# --- batching: a loss per call, call by call ----------------------------------------------------------------


def _calls(patches, matrix, alpha, log_matrix, batch_matrix):
    return _spectral_distance(patches, matrix, alpha, log_matrix, batch_matrix)


def _calls_backward(spectrum, maxima, matrix, vectors, grad, width, alpha, log_matrix):
    return _frequency_distance_backward(
        spectrum, maxima, matrix, vectors.contiguous(), grad, width, alpha, log_matrix
    )


# --- backward -------------------------------------------------------------------------------------


def _save_for_spectral_distance(ctx, inputs, output):
    patches, matrix, ctx.alpha, ctx.log_matrix, _ = inputs
    _, spectrum, maxima = output
    ctx.mark_non_differentiable(maxima)
    ctx.width = patches.shape[-1]
    ctx.save_for_backward(spectrum, maxima, savable(matrix))


def _spectral_distance_gradient(ctx, grad, grad_spectrum, _):
    spectrum, maxima, matrix = ctx.saved_tensors
    gradient = None
    if grad is not None:
        gradient = _irfft2(
            _frequency_distance_backward(
                spectrum, maxima, matrix, spectrum, grad, ctx.width, ctx.alpha, ctx.log_matrix
            ),
            ctx.width,
        )
    if grad_spectrum is not None:  # of a second order
        once = grad_spectrum / _multiplicity(grad_spectrum, ctx.width)
        of_spectrum = _irfft2(once.contiguous(), ctx.width)
        gradient = of_spectrum if gradient is None else gradient + of_spectrum
    return gradient, None, None, None, None


def _multiplicity(spectrum: Tensor, width: int) -> Tensor:
    """(W // 2 + 1, 1): how many columns of the whole spectrum each one stands for."""
    multiplicity = spectrum.new_ones(width // 2 + 1, 1)
    multiplicity[1 : (width + 1) // 2] = 2
    return multiplicity


_spectral_distance = differentiable(
    "spectral_distance", _save_for_spectral_distance, _spectral_distance_gradient, one_by_one(_calls)
)


# --- second order: backward is bilinear in the vectors and the incoming gradient ----------------------------


def _save_for_frequency_distance_backward(ctx, inputs, output):
    spectrum, maxima, matrix, vectors, grad, *ctx.options = inputs
    ctx.save_for_backward(spectrum, maxima, savable(matrix), vectors, grad)


def _frequency_distance_backward_gradients(ctx, tangent):
    spectrum, maxima, matrix, vectors, grad = ctx.saved_tensors
    tangent = tangent.contiguous()
    constants = spectrum.detach(), maxima, matrix
    of_vectors = of_grad = None
    if ctx.needs_input_grad[3]:
        of_vectors = _frequency_distance_backward(*constants, tangent, grad, *ctx.options)
    if ctx.needs_input_grad[4]:
        ones = torch.ones_like(grad)
        of_grad = (_frequency_distance_backward(*constants, vectors, ones, *ctx.options) * tangent).sum()
    return None, None, None, of_vectors, of_grad, None, None, None


_frequency_distance_backward = differentiable(
    "frequency_distance_backward", _save_for_frequency_distance_backward,
    _frequency_distance_backward_gradients, one_by_one(_calls_backward),
)  # fmt: skip
