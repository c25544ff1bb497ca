r"""One optimizer step for any number of tensors in one launch, with unscaling, clips and moving averages.

With g the gradient, times 1 / grad_scale and :math:`\min(1, c / \lVert g \rVert)`, clamped to
grad_clip_value, negated to maximize, plus weight_decay p (unless decoupled):

.. math::
    v &\leftarrow d v + (1 - d) g^2 \\
    \text{RMSprop:}\quad p &\leftarrow p - \eta \, g / (\sqrt{v} + \epsilon)
        \text{ or } g / \sqrt{v + \epsilon}; \text{ centered: } v - \bar g^2 \text{ for } v \\
    \text{Adam:}\quad m &\leftarrow b m + (1 - b) g, \quad
        p \leftarrow p - \frac{\eta}{1 - b^t} \, m / (\sqrt{v / (1 - d^t)} + \epsilon)

then p is clamped to [low, high], and its moving average moves towards p by the fraction average_weight.
Everything is computed in float32 (float64 for float64 parameters), whatever the dtypes of the tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fastgan.ops import _dispatch
from fastgan.ops._declare import declare
from fastgan.reference import optimizer_step as reference
from fastgan.reference.optimizer_step import ALGORITHMS, StepOptions


def optimizer_step(
    algorithm: str,
    params: list[Tensor],
    grads: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    third: list[Tensor],
    averages: list[Tensor],
    steps: list[Tensor],
    options: StepOptions,
    *,
    lr: Tensor | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    grad_norm: Tensor | None = None,
    updates: Tensor | None = None,
    with_statistics: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Updates parameters, states and averages in place; :mod:`fastgan.optim` checks what it passes.

    Args:
        algorithm: "rmsprop", "adam" (with `options.decoupled`: AdamW), or "average", which updates only the
            averages and leaves the parameters alone; `averages` is then the only list of states.
        params, grads: tensors on one device; a parameter, its gradient and states are dense and have the
            same strides.
        first: averages of squared gradients.
        second: RMSprop: averages of gradients (centered) or empty; Adam: averages of gradients.
        third: RMSprop: momentum buffers; Adam: the largest averages of squares (AMSGrad); or empty.
        averages: moving averages of the parameters, or empty; a parameter without one has an empty tensor.
        steps: numbers of steps taken so far, 0-d, on the parameters' device; incremented.
        options: hyperparameters.
        lr: replaces `options.lr`, 0-d.
        grad_scale: divisor of the gradients, 0-d, as set by torch.amp.GradScaler.
        found_inf: if it is not 0, nothing changes; it is read on the device, without synchronization.
            Statistics are then those of the unchanged weights.
        grad_norm: the norm of all gradients before unscaling, for `options.grad_clip_norm`; None: no clip.
        updates: number of updates of the averages so far, as counted for the warm-up, 0-d int64, for
            `options.average_warmup`; incremented if `options.counts_update`.
        with_statistics: whether to sum the statistics.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.

    Returns:
        (3,), float64: the sum of squares of the gradients, unscaled and before any clip; that of the new
        parameters; and the number of parameters that lie at a bound. Without statistics (0,).
    """
    tensor_by_dtype = {t.dtype: t for tensors in (params, grads, first, averages) for t in tensors}
    if _dispatch.choose("optimizer_step", tuple(tensor_by_dtype.values()), backend) == "reference":
        return reference.optimizer_step(
            algorithm, params, grads, first, second, third, averages, steps, options, lr, grad_scale,
            found_inf, grad_norm, updates, with_statistics,
        )  # fmt: skip
    sums = torch.ops.fastgan.optimizer_step_(
        ALGORITHMS.index(algorithm), params, grads, first, second, third, averages, steps,
        [float(number) for number in options], lr, grad_scale, found_inf, grad_norm, updates, with_statistics,
    )  # fmt: skip
    # Kernels write unseen by autograd, which must refuse graphs from before the step, as with torch.optim.
    increment_version([*params, *averages])
    return sums


def gradient_norm(grads: list[Tensor], *, backend: str | None = None) -> Tensor:
    """The L2 norm of all gradients as one vector, 0-d; float64 if one of them is, else float32."""
    if _dispatch.choose("optimizer_step", tuple(grads), backend) == "reference":
        return reference.gradient_norm(grads)
    return torch.ops.fastgan.gradient_norm(grads)


def layout_backend(params: list[Tensor], *others: list[Tensor]) -> str | None:
    """None, or, with a warning, "reference" if the kernels cannot handle the tensors' strides.

    Args:
        params: the parameters.
        others: lists of the parameters' gradients and states, each of the same length or empty; an empty
            tensor stands for none.
    """
    if all(all(map(Tensor.is_contiguous, tensors)) for tensors in (params, *others)):
        return None  # the usual case, without a Python loop
    dense = all(p.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(p) for p in params)
    same = all(
        tensor.stride() == parameter.stride()
        for tensors in others
        for parameter, tensor in zip(params, tensors, strict=False)
        if tensor.numel()
    )
    if dense and same:
        return None
    _dispatch.warn_once(
        "optimizer_step", "a parameter is a view with gaps, or its states lie in another order"
    )
    return "reference"


# --- op and fake ----------------------------------------------------------------------------------


@declare(
    "optimizer_step_(int algorithm, Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] first, "
    "Tensor(c!)[] second, Tensor(d!)[] third, Tensor(e!)[] averages, Tensor(f!)[] steps, float[] options, "
    "Tensor? lr, Tensor? grad_scale, Tensor? found_inf, Tensor? grad_norm, Tensor(g!)? updates, "
    "bool with_statistics) -> Tensor",
    gpu="native",
)
def _optimizer_step_fake(algorithm, params, *arguments):
    return params[0].new_empty(3 if arguments[-1] else 0, dtype=torch.float64)


@declare("gradient_norm(Tensor[] grads) -> Tensor", gpu="native")
def _gradient_norm_fake(grads):
    accumulation_dtype = (
        torch.float64 if any(grad.dtype == torch.float64 for grad in grads) else torch.float32
    )
    return grads[0].new_empty((), dtype=accumulation_dtype)
