r"""Inner products of several gradients at the same tensor, and their weighted sum, in one sweep.

.. math::
    G_{ij} = \langle g_i, g_j \rangle, \qquad s = \sum_i w_i \, g_i

The gradients are those of a loss's terms, as at a generator's output: norms, shares and cosines of the terms
follow from G, and s is what goes on to the generator. Each gradient is read once and s written once, however
many there are. With :math:`\bar G` and :math:`\bar s` the incoming gradients,

.. math::
    \frac{\partial L}{\partial g_i} = w_i \bar s + \sum_j (\bar G + \bar G^T)_{ij} \, g_j, \qquad
    \frac{\partial L}{\partial w_i} = \langle \bar s, g_i \rangle

are again weighted sums and inner products, computed by the op itself: gradients of every order are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan._torch_internals import batched_by_autograd
from fastgan.ops import _dispatch
from fastgan.ops._autograd import differentiable, savable
from fastgan.ops._batching import one_by_one
from fastgan.ops._checks import check_floating, check_instance, check_same_device
from fastgan.ops._declare import declare
from fastgan.reference import gradient_budget as reference

MOST = 16
"""The largest number of gradients. The operator itself takes one more, for the gradients of 16."""


def gradient_budget(
    gradients: Sequence[Tensor], weights: Tensor | None = None, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """The inner products of all pairs of gradients, and the gradients' weighted sum.

    Args:
        gradients: 1 to 16 tensors of one shape, at least one element, one dtype (float32, bfloat16, float16
            or float64) and one device; any strides. Those of another memory order than the first are copied.
        weights: (T,), one for each of the T gradients, on their device, in float32 (float64 for float64);
            None: all 1.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device. The reference,
            used where there is no kernel, reads the gradients once for each pair.

    Returns:
        gram: (T, T), symmetric, float32 (float64 for float64): ``gram[i, j]`` is the sum of the products of
            gradients i and j, without weights. Summed in a fixed order, in float32 or better: a call gives
            the same bits for any number of threads.
        total: ``sum_i weights[i] * gradients[i]``, in the dtype and memory format of the first gradient;
            summed in float32 (float64 for float64) and rounded once.

        NaN and infinities propagate: to rows and columns of the gradients that have them, and to the total's
        elements. Gradients with respect to `gradients` and `weights` are exact to every order.

    Raises:
        TypeError: gradients are no list or tuple of floating-point tensors of one dtype, or weights have
            another dtype than above.
        ValueError: none or more than 16 gradients, one without elements, different shapes or devices, or
            another shape of weights.
        RuntimeError: the requested backend cannot serve the call.
    """
    gradients = _checked(gradients)
    if weights is not None:
        _check_weights(weights, gradients)
    if _dispatch.choose("gradient_budget", (gradients[0],), backend) == "reference":
        return reference.gradient_budget(gradients, weights)
    return _gradient_budget(gradients, weights)


def _checked(gradients: Sequence[Tensor]) -> list[Tensor]:
    check_instance("gradients", gradients, (list, tuple), "a list or tuple of tensors")
    if not 1 <= len(gradients) <= MOST:
        kind = type(gradients).__name__
        raise ValueError(f"gradients must be 1 to {MOST} tensors, got a {kind} of {len(gradients)}")
    for i, gradient in enumerate(gradients):
        check_floating(f"gradients[{i}]", gradient)
        _check_alike(gradients[0], gradient, i)
    if gradients[0].numel() == 0:
        shape = tuple(gradients[0].shape)
        raise ValueError(f"gradients must not be empty, got shape {shape} of gradients[0]")
    return list(gradients)


def _check_alike(first: Tensor, other: Tensor, i: int) -> None:
    if other.shape != first.shape:
        raise ValueError(
            f"all gradients must have the same shape, got {tuple(first.shape)} of gradients[0] "
            f"and {tuple(other.shape)} of gradients[{i}]"
        )
    if other.dtype != first.dtype:
        raise TypeError(
            f"all gradients must have the same dtype, got {first.dtype} of gradients[0] "
            f"and {other.dtype} of gradients[{i}]"
        )
    if other.device != first.device:
        check_same_device(**{"gradients[0]": first, f"gradients[{i}]": other})


def _check_weights(weights: Tensor, gradients: list[Tensor]) -> None:
    check_floating("weights", weights)
    dtype = _accumulation_dtype(gradients[0])
    if weights.dtype != dtype:
        raise TypeError(f"weights must be {dtype} for gradients of {gradients[0].dtype}, got {weights.dtype}")
    if weights.shape != (len(gradients),):
        raise ValueError(
            f"weights must have shape ({len(gradients)},), one for each gradient, got {tuple(weights.shape)}"
        )
    check_same_device(gradients=gradients[0], weights=weights)


def _accumulation_dtype(gradient: Tensor) -> torch.dtype:
    return torch.promote_types(gradient.dtype, torch.float32)


# --- op and fake ----------------------------------------------------------------------------------


@declare("gradient_budget(Tensor[] gradients, Tensor? weights) -> (Tensor gram, Tensor total)")
def _gradient_budget_fake(gradients, weights):
    first, count = gradients[0], len(gradients)
    return first.new_empty((count, count), dtype=_accumulation_dtype(first)), torch.empty_like(first)


# --- batching: a matrix per call, call by call -------------------------------------------------------------


def _calls(gradients: list[Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    return _gradient_budget(gradients, weights)


# --- backward of every order: the op itself -----------------------------------------------------------


def _save_for_gradient_budget(ctx, inputs, output):
    gradients, weights = inputs
    ctx.save_for_backward(*map(savable, gradients), savable(weights))


def _gradient_budget_gradients(ctx, grad_gram, grad_total):
    *gradients, weights = ctx.saved_tensors
    needed, of_weights = ctx.needs_input_grad
    of_gradients: list[Tensor | None] = [None] * len(gradients)
    if any(needed):
        matrix = None if grad_gram is None else grad_gram + grad_gram.T
        for i in range(len(gradients)):
            if needed[i]:
                row = None if matrix is None else matrix[i]
                weight = None if weights is None else weights[i]
                of_gradients[i] = _gradient(gradients, row, weight, grad_total)
    grad_weights = None
    if of_weights and grad_total is not None:
        grad_weights = _budget([grad_total, *gradients], None)[0][0, 1:]
    return of_gradients, grad_weights


def _gradient(
    gradients: list[Tensor], row: Tensor | None, weight: Tensor | None, grad_total: Tensor | None
) -> Tensor:
    """The sum of weight * grad_total and row[j] * gradients[j], of which one may be missing."""
    if grad_total is None:
        return _budget(gradients, row)[1]
    if row is not None:
        weight = row.new_ones(()) if weight is None else weight
        return _budget([grad_total, *gradients], torch.cat([weight[None], row]))[1]
    return grad_total if weight is None else (weight * grad_total.to(weight.dtype)).to(grad_total.dtype)


def _budget(gradients: list[Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The op, or its reference for batches of gradients, since the vmap behind them takes no op of lists."""
    if any(tensor is not None and batched_by_autograd(tensor) for tensor in (*gradients, weights)):
        return reference.gradient_budget(gradients, weights)
    return _calls(gradients, weights)


_gradient_budget = differentiable(
    "gradient_budget", _save_for_gradient_budget, _gradient_budget_gradients, one_by_one(_calls)
)
