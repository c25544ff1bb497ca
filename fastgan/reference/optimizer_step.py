"""The step of RMSprop, Adam and AdamW with clips and moving averages, in plain PyTorch, tensor by tensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.reference.philox import philox

ALGORITHMS = ("rmsprop", "adam", "average")


class StepOptions(NamedTuple):
    """Hyperparameters of a step; infinite bounds do not apply."""

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    """RMSprop's momentum; Adam's beta1."""
    decay: float = 0.99
    """The decay of the average of squared gradients: RMSprop's alpha; Adam's beta2."""
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
    average_warmup: bool = False
    """Whether an update of the average weighs at least 9 / (10 + updates), with `updates` before the step."""
    counts_update: bool = False
    """Whether this step counts as an update of the average, as that of the last of several groups does."""
    rounding_seed: int = -1
    """The seed of stochastic rounding of half-precision parameters; negative: rounding to nearest."""


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
    lr: Tensor | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    grad_norm: Tensor | None = None,
    updates: Tensor | None = None,
    with_statistics: bool = False,
) -> Tensor:
    """See :func:`fastgan.ops.optimizer_step.optimizer_step`."""
    device = params[0].device
    applies = None if found_inf is None else found_inf.reshape(()).to(device) == 0
    # A scaler's tensors have shape (1,), which would not broadcast with 0-d parameters.
    scalars = Scalars(
        options.lr if lr is None else lr.to(device).double(),
        None if grad_scale is None else grad_scale.reshape(()),
        grad_norm,
        _average_weight(options, updates),
    )
    arrays = (params, first, second, third, averages, steps)
    statistics = torch.zeros(3 if with_statistics else 0, dtype=torch.float64, device=device)
    for i in range(len(params)):
        before = [array[i] if array else None for array in arrays]
        after = [None if tensor is None else tensor.clone() for tensor in before]
        weights = _step_one(algorithm, i, grads[i] if grads else None, after, options, scalars)
        if applies is not None:
            weights = torch.where(applies, weights, params[i].to(weights.dtype))
        for old, new in zip(before, after, strict=True):
            if old is not None and new is not None and old.numel():
                old.copy_(new if applies is None else torch.where(applies.to(old.device), new, old))
        if with_statistics:
            statistics += _sums(grads[i], weights, options, scalars)
    if updates is not None and options.counts_update:
        updates += 1 if applies is None else applies.long()
    return statistics


class Scalars(NamedTuple):
    """The scalars that a step may read from memory; 0-d."""

    lr: float | Tensor
    grad_scale: Tensor | None
    grad_norm: Tensor | None
    average_weight: float | Tensor


def _average_weight(options: StepOptions, updates: Tensor | None) -> float | Tensor:
    if updates is None or not options.average_warmup:
        return options.average_weight
    return (9 / (10 + updates.double())).clamp(min=options.average_weight)


def _step_one(
    algorithm: str,
    number: int,
    grad: Tensor | None,
    arrays: list[Tensor | None],
    options: StepOptions,
    scalars: Scalars,
) -> Tensor:
    """Updates (parameter, first, second, third, average, step) in place; returns the unrounded parameter."""
    parameter, first, second, third, average, step = arrays
    assert parameter is not None
    accumulation_dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    p = parameter.to(accumulation_dtype)
    if algorithm != "average":
        assert grad is not None and first is not None and step is not None
        step += 1
        grad = grad.to(accumulation_dtype)
        if scalars.grad_scale is not None:
            grad = grad / scalars.grad_scale
        grad = _clipped(grad, options, scalars)
        if options.decoupled:
            p = p * _rounded(1 - scalars.lr * options.weight_decay, accumulation_dtype)
        else:
            grad = grad + options.weight_decay * p
        p = p - _update(algorithm, grad, (first, second, third), step.to(p.device), options, scalars.lr)
        p = p.clamp(options.low, options.high)
        if options.rounding_seed >= 0 and parameter.element_size() == 2:
            parameter.copy_(_stochastically_rounded(p, parameter.dtype, options.rounding_seed, step, number))
        else:
            parameter.copy_(p)
    if average is not None and average.numel():
        average.copy_(
            average.to(accumulation_dtype).lerp(p, _rounded(scalars.average_weight, accumulation_dtype))
        )
    return p


def _sums(grad: Tensor, weights: Tensor, options: StepOptions, scalars: Scalars) -> Tensor:
    """Sums of squares of the unscaled gradient and of the weights, and the number of weights at a bound."""
    grad = grad.double() if scalars.grad_scale is None else grad.double() / scalars.grad_scale
    at_bound = ((weights <= options.low) | (weights >= options.high)).sum()
    return torch.stack([grad.square().sum(), weights.double().square().sum(), at_bound.double()])


def _clipped(grad: Tensor, options: StepOptions, scalars: Scalars) -> Tensor:
    if scalars.grad_norm is not None:
        norm = scalars.grad_norm if scalars.grad_scale is None else scalars.grad_norm / scalars.grad_scale
        grad = grad * (options.grad_clip_norm / (norm + 1e-6)).clamp(max=1.0)
    grad = grad.clamp(-options.grad_clip_value, options.grad_clip_value)
    return -grad if options.maximize else grad


def _update(
    algorithm: str,
    grad: Tensor,
    states: tuple[Tensor, Tensor | None, Tensor | None],
    step: Tensor,
    options: StepOptions,
    lr: float | Tensor,
) -> Tensor:
    """The value to subtract from the parameter; updates the states in place."""
    first, second, third = states
    accumulation_dtype = grad.dtype
    square = options.decay * first.to(accumulation_dtype) + (1 - options.decay) * grad * grad
    first.copy_(square)
    if algorithm == "adam":
        assert second is not None
        mean = second.to(accumulation_dtype).lerp(grad, 1 - options.momentum)
        second.copy_(mean)
        if third is not None:
            square = torch.maximum(third.to(accumulation_dtype), square)
            third.copy_(square)
        time = step.double()
        correction = (1 - options.decay**time).sqrt().to(accumulation_dtype)
        direction = mean / (square.sqrt() / correction + options.eps)
        return (lr / (1 - options.momentum**time)).to(accumulation_dtype) * direction
    if second is not None:
        mean = second.to(accumulation_dtype).lerp(grad, 1 - options.decay)
        second.copy_(mean)
        square = square - mean * mean
    root = (square + options.eps).sqrt() if options.eps_inside_sqrt else square.sqrt() + options.eps
    direction = grad / root
    if third is not None:
        direction = options.momentum * third.to(accumulation_dtype) + direction
        third.copy_(direction)
    return _rounded(lr, accumulation_dtype) * direction


def _rounded(number: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    return number.to(dtype) if isinstance(number, Tensor) else number


def _stochastically_rounded(
    values: Tensor, dtype: torch.dtype, seed: int, step: Tensor, stream: int
) -> Tensor:
    """Rounds float32 values up or down at random, such that the expected result is the value.

    Element i, in memory order, uses word i % 4 of Philox's counter i / 4.
    """
    flat = _in_memory_order(values)
    index = torch.arange(flat.numel(), device=flat.device)
    key = seed + step.to(flat.device).long()
    words = torch.stack(philox(key, torch.div(index, 4, rounding_mode="floor"), stream))
    word = words.gather(0, (index % 4)[None])[0]
    magnitude = flat.abs().view(torch.int32).long()
    if dtype == torch.bfloat16:
        inner, up = magnitude >> 16, (word >> 16) < (magnitude & 0xFFFF)
    else:
        units = flat.abs().clamp(max=2.0**-14) * 2.0**24  # multiples of the smallest subnormal number
        is_normal = flat.abs() >= 2.0**-14
        inner = torch.where(is_normal, (magnitude - (112 << 23)) >> 13, units.long())
        up = torch.where(
            is_normal, (word >> 19) < (magnitude & 0x1FFF), (word >> 8) * 2.0**-24 < units - units.floor()
        )
    rounded = (inner + up).to(torch.int16).view(dtype).copysign(flat.to(dtype))
    is_out_of_range = ~flat.isfinite() | ((dtype == torch.float16) & (flat.abs() >= 65536))
    return _like_in_memory(torch.where(is_out_of_range, flat.to(dtype), rounded), values)


def _in_memory_order(tensor: Tensor) -> Tensor:
    """The elements in memory order, (n,); a view if the tensor is dense."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).reshape(-1)


def _like_in_memory(flat: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_in_memory_order`, with shape and memory order of `like`."""
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    permuted = flat.view(like.permute(order).shape)
    return permuted.permute([order.index(dimension) for dimension in range(like.dim())])


def gradient_norm(grads: list[Tensor]) -> Tensor:
    """The L2 norm of all gradients as one vector."""
    accumulation_dtype = (
        torch.float64 if any(grad.dtype == torch.float64 for grad in grads) else torch.float32
    )
    return torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt().to(accumulation_dtype)
