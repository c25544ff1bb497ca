"""The step of RMSprop, Adam and AdamW with clips and moving averages, in plain PyTorch, tensor by tensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ALGORITHMS = ("rmsprop", "adam")


class StepOptions(NamedTuple):
    """The numbers of a step; what is infinite bounds nothing."""

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    """RMSprop's momentum; Adam's beta1."""
    decay: float = 0.99
    """Of the average of squared gradients: RMSprop's alpha; Adam's beta2."""
    eps: float = 1e-8
    decoupled: bool = False
    """AdamW's weight decay, which shrinks the parameter instead of adding to the gradient."""
    maximize: bool = False
    eps_inside_sqrt: bool = False
    grad_clip_value: float = math.inf
    grad_clip_norm: float = math.inf
    low: float = -math.inf
    high: float = math.inf
    average_weight: float = 0.0
    """1 - decay of the parameters' moving average."""


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
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    grad_norm: Tensor | None = None,
    with_statistics: bool = False,
) -> Tensor:
    """See :func:`fastgan.ops.optimizer_step.optimizer_step`."""
    arrays = (params, first, second, third, averages, steps)
    # Scalers give them as (1,), which would not fit 0-d parameters.
    grad_scale = None if grad_scale is None else grad_scale.reshape(())
    found_inf = None if found_inf is None else found_inf.reshape(())
    statistics = torch.zeros(3 if with_statistics else 0, dtype=torch.float64, device=params[0].device)
    for i, grad in enumerate(grads):
        before = [array[i] if array else None for array in arrays]
        after = [None if tensor is None else tensor.clone() for tensor in before]
        sums = _step_one(algorithm, grad, after, options, grad_scale, grad_norm)
        for old, new in zip(before, after, strict=True):
            if old is not None and new is not None and old.numel():
                old.copy_(new if found_inf is None else torch.where(found_inf.to(old.device) == 0, new, old))
        if with_statistics:
            statistics += sums if found_inf is None else torch.where(found_inf == 0, sums, 0.0)
    return statistics


def _step_one(
    algorithm: str,
    grad: Tensor,
    arrays: list[Tensor | None],
    options: StepOptions,
    grad_scale: Tensor | None,
    grad_norm: Tensor | None,
) -> Tensor:
    """Changes (parameter, first, second, third, average, step); returns the sums of the statistics."""
    parameter, first, second, third, average, step = arrays
    assert parameter is not None and first is not None and step is not None
    wide = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    grad, p = grad.to(wide), parameter.to(wide)
    if grad_scale is not None:
        grad = grad / grad_scale
    sums = [grad.double().square().sum()]
    if grad_norm is not None:
        grad = grad * (options.grad_clip_norm / (grad_norm + 1e-6)).clamp(max=1.0)
    grad = grad.clamp(-options.grad_clip_value, options.grad_clip_value)
    if options.maximize:
        grad = -grad
    step += 1
    if options.decoupled:
        p = p * (1 - options.lr * options.weight_decay)
    else:
        grad = grad + options.weight_decay * parameter.to(wide)

    square = options.decay * first.to(wide) + (1 - options.decay) * grad * grad
    first.copy_(square)
    if algorithm == "adam":
        assert second is not None
        mean = second.to(wide).lerp(grad, 1 - options.momentum)
        second.copy_(mean)
        if third is not None:
            square = torch.maximum(third.to(wide), square)
            third.copy_(square)
        time = step.to(p.device).double()
        correction = (1 - options.decay**time).sqrt().to(wide)
        direction = mean / (square.sqrt() / correction + options.eps)
        p = p - (options.lr / (1 - options.momentum**time)).to(wide) * direction
    else:
        if second is not None:
            mean = second.to(wide).lerp(grad, 1 - options.decay)
            second.copy_(mean)
            square = square - mean * mean
        root = (square + options.eps).sqrt() if options.eps_inside_sqrt else square.sqrt() + options.eps
        direction = grad / root
        if third is not None:
            direction = options.momentum * third.to(wide) + direction
            third.copy_(direction)
        p = p - options.lr * direction
    p = p.clamp(options.low, options.high)
    parameter.copy_(p)
    if average is not None and average.numel():
        average.copy_(average.to(wide).lerp(p, options.average_weight))
    at_bound = ((p <= options.low) | (p >= options.high)).sum()
    return torch.stack([*sums, p.double().square().sum(), at_bound.double()])


def gradient_norm(grads: list[Tensor]) -> Tensor:
    """The L2 norm of all gradients as one vector."""
    wide = torch.float64 if any(grad.dtype == torch.float64 for grad in grads) else torch.float32
    return torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt().to(wide)
