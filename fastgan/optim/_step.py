"""What the optimizers share: their options beside torch's, and the step in one launch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan.ops.optimizer_step import gradient_norm, optimizer_step
from fastgan.optim.ema import EMA
from fastgan.reference.optimizer_step import StepOptions


class StepStatistics(NamedTuple):
    """Of the last step, over all parameters that had a gradient; 0-d float64 tensors on their device."""

    gradient_norm: Tensor
    """Unscaled, before any clip."""
    weight_norm: Tensor
    clipped_fraction: Tensor
    """The share of weights that lie at a bound of their `weight_clip`: near 1, clipping has degenerated."""


class Gathered(NamedTuple):
    """One group's tensors as :func:`fastgan.ops.optimizer_step.optimizer_step` takes them."""

    params: list[Tensor]
    grads: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    third: list[Tensor]
    steps: list[Tensor]


class FusedStep(torch.optim.Optimizer):
    """Base of the optimizers; the other base is torch's, which keeps the state."""

    algorithm: str
    ema: EMA | None
    statistics: StepStatistics | None
    _extra: dict[str, Any]

    # --- what each optimizer says of itself ---------------------------------------------------------------

    def _gather(self, group: dict) -> Gathered:
        raise NotImplementedError

    def _options(self, group: dict) -> dict[str, Any]:
        raise NotImplementedError

    # --- options ------------------------------------------------------------------------------------------

    def _prepare(self, extra: dict[str, Any], differentiable: bool) -> None:
        """Before torch's constructor, which adds the groups."""
        if differentiable:
            raise ValueError(
                "differentiable=True is not supported: the step is one kernel; use torch.optim's"
            )
        self._extra = extra

    def _finish(self, ema: EMA | None, statistics: bool) -> None:
        """After torch's constructor."""
        if ema is not None:
            ema.check_updated_by(parameter for group in self.param_groups for parameter in group["params"])
        self.ema = ema
        self.with_statistics = statistics
        self.statistics = None
        # torch.amp.GradScaler then gives the scale and what it found to the step, and looks at neither.
        self._step_supports_amp_scaling = True

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; each group may have its own `grad_clip_value`, `grad_clip_norm` and `weight_clip`."""
        for name, default in self._extra.items():
            param_group.setdefault(name, default)
        for name in ("grad_clip_value", "grad_clip_norm"):
            bound = param_group[name]
            if bound is not None and not bound > 0:
                raise ValueError(f"{name} must be positive, got {bound}")
        low, high = weight_bounds(param_group["weight_clip"])
        if not low <= high:
            raise ValueError(f"weight_clip must have low <= high, got {param_group['weight_clip']}")
        super().add_param_group(param_group)
        for parameter in param_group["params"]:
            if not torch.is_floating_point(parameter):
                raise TypeError(f"parameters must be real floating-point tensors, got {parameter.dtype}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, also from torch's optimizer: options that it does not have stay as they are."""
        groups = state_dict["param_groups"]
        if len(groups) == len(self.param_groups):
            kept = [{name: group[name] for name in self._extra} for group in self.param_groups]
            groups = [{**own, **group} for own, group in zip(kept, groups, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": groups})

    def __getstate__(self) -> dict[str, Any]:
        own = {name: self.__dict__[name] for name in ("_extra", "ema", "with_statistics", "statistics")}
        return {**super().__getstate__(), **own, "_step_supports_amp_scaling": True}

    # --- the step -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; the gradients are only read.

        Args:
            closure: computes the loss again, as in torch.

        Raises:
            RuntimeError: a sparse gradient.
            ValueError: a parameter that has moved to another device than its state.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale = getattr(self, "grad_scale", None)
        found_inf = getattr(self, "found_inf", None)
        gathered = [self._gather(group) for group in self.param_groups]
        norm = self._norm_to_clip(gathered, grad_scale)
        weight = 0.0 if self.ema is None else self.ema.advance()
        sums: list[Tensor] = []
        for group, tensors in zip(self.param_groups, gathered, strict=True):
            if tensors.params:
                sums.append(self._step_group(group, tensors, weight, norm, grad_scale, found_inf))
        elements = sum(parameter.numel() for tensors in gathered for parameter in tensors.params)
        if self.with_statistics and sums:
            grad_square, weight_square, at_bound = torch.stack(sums).sum(dim=0).unbind()
            self.statistics = StepStatistics(grad_square.sqrt(), weight_square.sqrt(), at_bound / elements)
        if self.ema is not None:
            self.ema.follow_all_but([p for tensors in gathered for p in tensors.params], weight)
        return loss

    def _step_group(
        self,
        group: dict[str, Any],
        tensors: Gathered,
        weight: float,
        norm: Tensor | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> Tensor:
        params, states = tensors.params, (tensors.first, tensors.second, tensors.third)
        averages = [] if self.ema is None else [self.ema.average_of(parameter) for parameter in params]
        for name, arrays in (("state", tensors.first), ("moving average", averages)):
            for parameter, array in zip(params, arrays, strict=False):
                if array.numel() and parameter.device != array.device:
                    shape = tuple(parameter.shape)
                    raise ValueError(
                        f"a parameter of shape {shape} is on {parameter.device}, its {name} on "
                        f"{array.device}; move models before their optimizer's first step"
                    )
        grads = [
            _laid_out_like(parameter, grad) for parameter, grad in zip(params, tensors.grads, strict=True)
        ]
        low, high = weight_bounds(group["weight_clip"])
        options = StepOptions(
            **self._options(group),
            maximize=group["maximize"],
            grad_clip_value=math.inf if group["grad_clip_value"] is None else group["grad_clip_value"],
            grad_clip_norm=math.inf if group["grad_clip_norm"] is None else group["grad_clip_norm"],
            low=low,
            high=high,
            average_weight=weight,
        )
        return optimizer_step(
            self.algorithm, params, grads, *states, averages, tensors.steps, options,
            grad_scale=grad_scale,
            found_inf=found_inf,
            grad_norm=None if group["grad_clip_norm"] is None else norm,
            with_statistics=self.with_statistics,
            # The kernels walk through memory; a view with gaps or another order is for the reference.
            backend=None if _same_layout(params, *states, averages) else "reference",
        )  # fmt: skip

    def _norm_to_clip(self, gathered: list[Gathered], grad_scale: Tensor | None) -> Tensor | None:
        """The norm of the gradients of all groups that clip theirs."""
        clipped = [
            grad
            for group, tensors in zip(self.param_groups, gathered, strict=True)
            if group["grad_clip_norm"] is not None
            for grad in tensors.grads
        ]
        if not clipped:
            return None
        norm = gradient_norm([grad if _is_dense(grad) else grad.contiguous() for grad in clipped])
        return norm if grad_scale is None else norm / grad_scale


def weight_bounds(clip: float | tuple[float, float] | None) -> tuple[float, float]:
    """The (low, high) that a `weight_clip` says."""
    if clip is None:
        return -math.inf, math.inf
    if isinstance(clip, (int, float)):
        if not clip > 0:
            raise ValueError(f"weight_clip must be positive, or a pair (low, high), got {clip}")
        return -float(clip), float(clip)
    low, high = clip
    return float(low), float(high)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))


def _laid_out_like(parameter: Tensor, grad: Tensor) -> Tensor:
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, dtype=grad.dtype).copy_(grad)


def _same_layout(params: list[Tensor], *others: list[Tensor]) -> bool:
    return all(_is_dense(parameter) for parameter in params) and all(
        tensor.stride() == parameter.stride()
        for tensors in others
        for parameter, tensor in zip(params, tensors, strict=False)
        if tensor.numel()
    )
