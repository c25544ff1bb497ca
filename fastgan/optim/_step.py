"""The optimizers' base: their options beyond torch's, and the step in one launch per group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import is_, itemgetter
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fastgan._torch_internals import AMP_SCALING
from fastgan.ops._checks import as_flag, check_callable, check_instance, described
from fastgan.ops.optimizer_step import gradient_norm, layout_backend, optimizer_step
from fastgan.optim._options import check_group, checked_options, refuse_differentiable, weight_bounds
from fastgan.optim._shards import beside, local, same_shards, summed_over_shards, whole_norm
from fastgan.optim.ema import EMA, count_update
from fastgan.reference.optimizer_step import StepOptions


class StepStatistics(NamedTuple):
    """Statistics of the last step over all parameters with a gradient, 0-d float64 on their device."""

    gradient_norm: Tensor
    """The norm of the unscaled gradients, before any clip."""
    weight_norm: Tensor
    clipped_fraction: Tensor
    """The share of weights that lie at a bound of their `weight_clip`; near 1, clipping has degenerated."""


class StateNames(NamedTuple):
    """torch's names of the states of :func:`fastgan.ops.optimizer_step.optimizer_step`; None: unused."""

    first: str
    second: str | None
    third: str | None


class Plan:
    """One group's tensors as the launch takes them, cached until one of them changes."""

    def __init__(
        self, params: list[Tensor], states: list[dict[str, Tensor]], names: StateNames, ema: EMA | None
    ) -> None:
        self.params, self.states, self.names = params, states, names
        self.tensors = {
            name: [state[name] for state in states] for name in (*names, "step") if name is not None
        }
        self.strides = _strides(params)
        self.devices = _devices(params)
        self.sharded = any(hasattr(parameter, "to_local") for parameter in params)
        self.averages = [] if ema is None else [ema.average_of(parameter) for parameter in params]
        self.arrays = [
            local(self.tensors[name]) if name is not None else [] for name in names
        ]  # first, second, third
        self._check_devices()
        self.backend = layout_backend(local(params), *self.arrays, self.averages)

    def serves(
        self, params: list[Tensor], states: Iterable[dict[str, Tensor] | None], names: StateNames
    ) -> bool:
        """Whether the plan is still valid for these parameters and their states."""
        return (
            len(params) == len(self.params)
            and names == self.names
            and all(map(is_, params, self.params))
            and all(map(is_, states, self.states))
            and all(
                all(map(is_, map(itemgetter(name), self.states), tensors))
                for name, tensors in self.tensors.items()
            )
            and _strides(params) == self.strides
            and _devices(params) == self.devices
        )

    def _check_devices(self) -> None:
        if len(self.devices) > 1:
            named = ", ".join(sorted(map(str, self.devices)))
            raise ValueError(
                f"a group's parameters must be on one device, got {named}; "
                "give each device a group of its own"
            )
        for name, arrays in (("state", self.arrays[0]), ("moving average", self.averages)):
            for parameter, array in zip(self.params, arrays, strict=False):
                if array.numel() and parameter.device != array.device:
                    shape = tuple(parameter.shape)
                    raise ValueError(
                        f"a parameter of shape {shape} is on {parameter.device}, its {name} on "
                        f"{array.device}; move models before their optimizer's first step"
                    )


class FusedStep(torch.optim.Optimizer):
    """Base class of the optimizers; the other base class is torch's, which holds the state."""

    algorithm: str
    neutral: ClassVar[dict[str, Any]] = {
        "grad_clip_value": None,
        "grad_clip_norm": None,
        "weight_clip": None,
        "stochastic_rounding": False,
    }
    """Options that torch's optimizer has not, with the values by which the step is torch's."""
    ema: EMA | None
    statistics: StepStatistics | None
    _extra: dict[str, Any]
    _plans: dict[int, Plan]

    # --- to be defined by each optimizer ------------------------------------------------------------------

    def _state_names(self, group: dict[str, Any]) -> StateNames:
        raise NotImplementedError

    def _init_states(self, group: dict[str, Any]) -> None:
        """Initializes the state of each parameter with a gradient, as torch does."""
        raise NotImplementedError

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    # --- options ------------------------------------------------------------------------------------------

    def _prepare(
        self, torch_options: dict[str, Any], extra: dict[str, Any], differentiable: bool
    ) -> dict[str, Any]:
        """To be called before torch's constructor, which adds the groups.

        Args:
            torch_options: options of torch's constructor.
            extra: options that it does not have.

        Returns:
            The checked `torch_options`.
        """
        refuse_differentiable(differentiable)
        self._extra = checked_options(extra)
        self._plans = {}
        return checked_options(torch_options)

    def _finish(self, ema: EMA | None, statistics: bool) -> None:
        """To be called after torch's constructor."""
        if ema is not None:
            check_instance("ema", ema, EMA, "a fastgan.optim.EMA or None")
            ema.check_updated_by([parameter for group in self.param_groups for parameter in group["params"]])
        self.ema = ema
        self.with_statistics = as_flag("statistics", statistics)
        self.statistics = None
        # torch.amp.GradScaler then passes scale and found_inf to the step, and reads neither on the host.
        setattr(self, AMP_SCALING, True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Like torch's; each group may have its own clips and its own `stochastic_rounding`."""
        check_group(param_group)
        for name, default in self._extra.items():
            param_group.setdefault(name, default)
        if "rounding_seed" not in param_group:
            seed = torch.randint(2**31, ()).item() if param_group["stochastic_rounding"] else -1
            param_group["rounding_seed"] = seed
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Like torch's, also for states of torch's optimizer: options that those lack keep their values."""
        check_instance("state_dict", state_dict, dict, "a dict")
        if not state_dict.keys() >= {"state", "param_groups"}:
            raise ValueError(f"state_dict must have 'state' and 'param_groups', got {described(state_dict)}")
        groups = state_dict["param_groups"]
        extra_names = (*self._extra, "rounding_seed")
        if len(groups) == len(self.param_groups):
            defaults = [{name: group[name] for name in extra_names} for group in self.param_groups]
            groups = [{**default, **group} for default, group in zip(defaults, groups, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": groups})
        # torch has cast the float32 states of half-precision parameters to half precision: restore them.
        ids = [index for group in groups for index in group["params"]]
        params = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(ids, params, strict=True):
            if parameter.element_size() == 2:
                for name, value in state_dict["state"].get(index, {}).items():
                    if isinstance(value, Tensor) and name != "step":
                        self.state[parameter][name] = value.to(parameter.device, torch.float32, copy=True)

    def __getstate__(self) -> dict[str, Any]:
        names = ("_extra", "ema", "with_statistics", "statistics")
        attributes = {name: self.__dict__[name] for name in names}
        return {**super().__getstate__(), **attributes, AMP_SCALING: True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._plans = {}
        if "_extra" in state or hasattr(self, "_extra"):  # the latter when load_state_dict calls this
            super().__setstate__(state)
            return
        # torch's own, which was pickled before `torch.optim.Adam` meant this class.
        plain = {"_extra": dict(self.neutral), "ema": None, "with_statistics": False, "statistics": None}
        super().__setstate__({**state, **plain, AMP_SCALING: True})
        for group in self.param_groups:
            refuse_differentiable(group["differentiable"])
            check_group(group)
            for name, value in (*self.neutral.items(), ("rounding_seed", -1)):
                group.setdefault(name, value)

    # --- the step -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; the gradients are only read.

        The step never synchronizes with the device, and CUDA graphs may capture every step but the first,
        which makes the state. A replayed graph reads `lr` from memory if it is a tensor on the device, and
        counts the steps and the average's updates there.

        Args:
            closure: recomputes the loss, as in torch.

        Raises:
            RuntimeError: a sparse gradient; a captured step that is the first of one of its parameters.
            ValueError: a parameter on another device than its state; a gradient that is sharded differently
                from its parameter.
        """
        loss = None
        if closure is not None:
            check_callable("closure", closure)
            with torch.enable_grad():
                loss = closure()
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        work = []
        for number, group in enumerate(self.param_groups):
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if params:
                grads: list[Tensor] = [parameter.grad for parameter in params]  # type: ignore[misc]
                work.append((group, self._plan(number, group, params), grads))
        if not work:
            if self.ema is not None:  # the parameters may have been replaced by others, which have gradients
                self.ema.check_updated_by(p for group in self.param_groups for p in group["params"])
            return loss
        norm = self._norm_to_clip([(group, grads) for group, _, grads in work])
        if self.ema is not None:
            self.ema.follow_all_but({id(p) for _, plan, _ in work for p in plan.params}, found_inf)
        # On several devices each group reads a copy of the average's update count, and none can increment it.
        devices = {plan.params[0].device for _, plan, _ in work}
        in_launch = self.ema is None or devices == {self.ema.updates.device}
        sums = [
            self._launch(group, plan, grads, norm, scale, found_inf, last=in_launch and plan is work[-1][1])
            for group, plan, grads in work
        ]
        if self.ema and not in_launch:
            count_update(self.ema.updates, found_inf)
        if self.with_statistics:
            elements = sum(parameter.numel() for _, plan, _ in work for parameter in plan.params)
            sums = [sum_.to(sums[0].device) for sum_ in sums]
            grad_square, weight_square, at_bound = torch.stack(sums).sum(dim=0).unbind()
            self.statistics = StepStatistics(grad_square.sqrt(), weight_square.sqrt(), at_bound / elements)
        return loss

    def _plan(self, number: int, group: dict[str, Any], params: list[Tensor]) -> Plan:
        plan, names = self._plans.get(number), self._state_names(group)
        if plan is None or not plan.serves(params, map(self.state.get, params), names):
            if params[0].is_cuda and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(
                    "a CUDA graph would make the optimizer's state anew at every replay: step once, with the "
                    f"same {len(params)} parameters, before it is captured"
                )
            self._init_states(group)
            for parameter in params:
                state = self.state[parameter]
                step = state["step"]
                if step.device != parameter.device:
                    # `step` is on the CPU: item() is free, a copy to the GPU would synchronize.
                    state["step"] = torch.full_like(step, step.item(), device=parameter.device)
                for name in names:
                    if name is not None and parameter.element_size() == 2:
                        state[name] = state[name].float()
            plan = Plan(params, [self.state[parameter] for parameter in params], names, self.ema)
            self._plans[number] = plan
        return plan

    def _launch(
        self,
        group: dict[str, Any],
        plan: Plan,
        grads: list[Tensor],
        norm: Tensor | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        last: bool,
    ) -> Tensor:
        params = plan.params
        if plan.sharded:
            same_shards(params, grads)
            params, grads = local(params), local(grads)
        if _strides(grads) != (_strides(params) if plan.sharded else plan.strides):
            grads = [_laid_out_like(*pair) for pair in zip(params, grads, strict=True)]
        first, second, third = plan.arrays
        low, high = weight_bounds(group["weight_clip"])
        lr, ema = group["lr"], self.ema
        device = params[0].device
        on_device = isinstance(lr, Tensor) and lr.device == device
        options = StepOptions(
            lr=0.0 if on_device else float(lr),
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
            grad_clip_value=math.inf if group["grad_clip_value"] is None else group["grad_clip_value"],
            grad_clip_norm=math.inf if group["grad_clip_norm"] is None else group["grad_clip_norm"],
            low=low,
            high=high,
            average_weight=0.0 if ema is None else 1 - ema.decay,
            average_warmup=ema is not None and ema.warmup,
            counts_update=last,
            rounding_seed=group["rounding_seed"] if group["stochastic_rounding"] else -1,
            **self._options(group),
        )
        sums = optimizer_step(
            self.algorithm, params, grads, first, second, third, plan.averages, plan.tensors["step"], options,
            lr=lr if on_device else None,
            grad_scale=beside(grad_scale, device),
            found_inf=beside(found_inf, device),
            grad_norm=None if group["grad_clip_norm"] is None else beside(norm, device),
            updates=None if ema is None else beside(ema.updates, device),
            with_statistics=self.with_statistics,
            backend=plan.backend,
        )  # fmt: skip
        return summed_over_shards(sums, plan.params) if plan.sharded and self.with_statistics else sums

    def _norm_to_clip(self, work: list[tuple[dict[str, Any], list[Tensor]]]) -> Tensor | None:
        """The norm, still scaled, of the gradients of all groups with `grad_clip_norm`; None without any."""
        clipped = [grad for group, grads in work if group["grad_clip_norm"] is not None for grad in grads]
        if not clipped:
            return None
        if any(hasattr(grad, "to_local") for grad in clipped) or len({g.device for g in clipped}) > 1:
            return whole_norm(clipped)
        return gradient_norm([grad if _is_dense(grad) else grad.contiguous() for grad in clipped])


def _strides(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return [tensor.stride() for tensor in tensors]


def _devices(tensors: list[Tensor]) -> set[torch.device]:
    return {tensor.device for tensor in tensors}


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))


def _laid_out_like(parameter: Tensor, grad: Tensor) -> Tensor:
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, dtype=grad.dtype).copy_(grad)
