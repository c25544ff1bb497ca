"""Measures networks' updates by hooks on their optimizers: how far a step moves them, and what it leaves out.

Every tenth update of a network is measured, without waiting for the device:

* ``NAME_update_ratio``: the norm of the update over that of the weights before it, where evenly spaced rows
  of a weight of more than PART elements stand for all of it, other ones each time;
* ``NAME_gradient_norm``: of the gradient that the optimizer gets, with a closure: from its last call;
* ``NAME_weight_norm``: of the weights before the update;
* ``D_at_bound``: the part of D's weights whose size is D's largest, as clipped weights are;
* ``NAME_untrained``: the part of the weights that got no gradient since the last log line, or that no
  optimizer holds. Weights that are frozen (`requires_grad`) and in no optimizer are meant to stay, and do not
  count, unless they are all of G or all of D.

Complex weights count as pairs of real ones.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fastgan._torch_internals import foreach_norm, foreach_sub_
from fastgan.monitor._optimizers import has_closure, optimizers_of
from fastgan.ops._checks import as_whole_number, check_instance

INTERVAL = 10
"""Updates of a network per measured one."""
PART = 65536
CRITIC = "D"
PLAYERS = ("G", "D")
AT_BOUND = 0.999


Report = Callable[[str, "Tensor | float"], None]


@dataclass
class _Before:
    """Weights before a measured step; lists are by weight."""

    weights: list[Tensor]
    parts: list[Tensor]
    """Rows of them, or all of them."""
    copies: list[Tensor]
    """Of the parts, as they were."""
    stand_for: list[float]
    """How many elements each of a part's stands for."""
    norms: list[Tensor]

    def of(self, chosen: list[bool]) -> _Before:
        """Those of some weights."""
        lists: tuple[list[Any], ...] = (self.weights, self.parts, self.copies, self.stand_for, self.norms)
        return _Before(*(list(itertools.compress(each, chosen)) for each in lists))


class Watched:
    """Networks whose updates are measured.

    Args:
        report: called with a name and a number, or a 0-d tensor on the network's device, per measure.
        interval: updates of a network per measured one, at least 1.

    Attributes:
        measures: whether the updates from now on are measured. None: each `interval`-th one is.
    """

    measures: bool | None = None

    def __init__(self, report: Report, interval: int = INTERVAL) -> None:
        self._handles: list[RemovableHandle] = []
        self.report = report
        self.interval = as_whole_number("interval", interval)
        self._networks: dict[str, nn.Module] = {}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._updates: dict[tuple[int, str], int] = {}
        # Steps of an optimizer before any gradient of a network.
        self._idle: dict[tuple[int, str], int] = {}
        self._before: dict[tuple[int, str], _Before] = {}  # between the hooks of a measured step
        # Of each network: sizes, by identity, of the weights that have had no gradient since the last look.
        self._waiting: dict[str, dict[int, int]] = {}
        self._stepped: set[str] = set()
        # Of each optimizer: its parameters by network. Looked up once per log line, not at every step.
        self._owned: dict[int, dict[str, list[Tensor]]] = {}

    def add(self, networks: Mapping[str, nn.Module], optimizers: Iterable[object]) -> None:
        """Watches these networks, by the names in their measures, through these optimizers.

        Args:
            optimizers: of one in a wrapper, the one inside, see :func:`optimizers_of`.

        Raises:
            TypeError: a network that is no module, or an optimizer that is none.
            ValueError: a name that is in use.
        """
        for name, network in networks.items():
            check_instance(f"the network {name}", network, nn.Module, "a torch.nn.Module")
            if name in self._networks:
                raise ValueError(f"a network is watched as {name} already")
        listed = [inside for optimizer in optimizers for inside in optimizers_of(optimizer)]
        for name, network in networks.items():
            if any(True for _ in network.parameters()):
                self._networks[name] = network
                self._await(name)
        self._owned.clear()
        watched = weakref.proxy(self)  # the hooks must not keep this, and with it all networks, alive
        for optimizer in listed:
            if not any(optimizer is known for known in self._optimizers):
                self._optimizers.append(optimizer)
                self._handles += [
                    optimizer.register_step_pre_hook(
                        lambda opt, args, kwargs: watched._before_step(opt, has_closure(args, kwargs))
                    ),
                    optimizer.register_step_post_hook(
                        lambda opt, args, kwargs: watched._after_step(opt, has_closure(args, kwargs))
                    ),
                ]

    def remove(self) -> None:
        """Takes the hooks off the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __del__(self) -> None:
        self.remove()

    def finish(self) -> None:
        """Called at a log line: reports what was not trained since the last one."""
        self._owned.clear()  # groups may have been added to optimizers, or parameters to networks
        if not self._stepped:
            return
        held = {id(p) for optimizer in self._optimizers for p in _params_of(optimizer)}
        for name, network in self._networks.items():
            parameters = list(network.parameters())
            in_optimizers = [p for p in parameters if id(p) in held]
            if in_optimizers and name not in self._stepped:
                continue  # this network's turn has not come
            counted = [p for p in parameters if p.requires_grad or id(p) in held]
            if not counted and name not in PLAYERS:
                continue  # an average, or a network of a loss, that nobody trains
            counted = counted or parameters
            waiting = self._waiting[name]
            untrained = sum(p.numel() for p in counted if id(p) in waiting or id(p) not in held)
            self.report(f"{name}_untrained", untrained / sum(p.numel() for p in counted))
            self._await(name)
        self._stepped.clear()

    def _await(self, name: str) -> None:
        self._waiting[name] = {id(p): p.numel() for p in self._networks[name].parameters()}

    def _owned_by(self, optimizer: torch.optim.Optimizer) -> dict[str, list[Tensor]]:
        """An optimizer's parameters by the network that they belong to, without networks that have none."""
        owned = self._owned.get(id(optimizer))
        if owned is None:
            ids = {name: {id(p) for p in network.parameters()} for name, network in self._networks.items()}
            parts = {name: [p for p in _params_of(optimizer) if id(p) in own] for name, own in ids.items()}
            owned = self._owned[id(optimizer)] = {name: part for name, part in parts.items() if part}
        return owned

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, computes: bool) -> None:
        """Called before a step.

        Args:
            computes: whether the step itself computes the gradients, by a closure.
        """
        for name, parameters in self._owned_by(optimizer).items():
            if not computes:
                self._wait_no_longer(parameters)
            key = id(optimizer), name
            count = self._updates.get(key, 0)
            if count == 0 and not computes and all(parameter.grad is None for parameter in parameters):
                # One of the first steps, some of which may come before any gradient, as those of D alone.
                self._idle[key] = self._idle.get(key, 0) + 1
                if self._idle[key] >= self.interval:
                    self._stepped.add(name)
                continue
            self._updates[key] = count + 1
            self._stepped.add(name)
            if self.measures or (self.measures is None and count % self.interval == 0):
                # A closure has still to compute the gradients: what has none afterwards is left out then.
                trained = [p for p in parameters if (computes or p.grad is not None) and _is_counted(p)]
                if trained:
                    before = self._before[key] = _weights_before(trained, turn=count // self.interval)
                    if not computes:
                        self._measure_before(optimizer, name, before)

    def _wait_no_longer(self, parameters: list[Tensor]) -> None:
        """Notes which of the parameters have a gradient."""
        for waiting in self._waiting.values():  # networks may share weights
            if waiting:
                for parameter in parameters:
                    if parameter.grad is not None:
                        waiting.pop(id(parameter), None)

    def _measure_before(self, optimizer: torch.optim.Optimizer, name: str, before: _Before) -> None:
        if not getattr(optimizer, "with_statistics", False):  # otherwise its own are those of every step
            gradients = [p.grad for p in before.weights if p.grad is not None and not p.grad.is_sparse]
            gradient_norm = _joined(_norms([_as_real(gradient) for gradient in gradients]))
            # Of a GradScaler, for optimizers that divide by it themselves.
            scale = getattr(optimizer, "grad_scale", None)
            self.report(f"{name}_gradient_norm", gradient_norm if scale is None else gradient_norm / scale)
            self.report(f"{name}_weight_norm", _joined(before.norms))
        if name == CRITIC:
            # Of the weights before the step, which are clipped after it; where a closure had to run first, of
            # those after it.
            values = [_as_real(p.detach()) for p in before.weights]
            device = values[0].device  # a network may be spread over several
            largest = torch.stack([value.abs().amax().float().to(device) for value in values]).amax()
            at_bound = torch.stack(
                [(value.abs() >= AT_BOUND * largest.to(value.device)).sum().to(device) for value in values]
            ).sum()
            self.report(f"{name}_at_bound", at_bound / sum(value.numel() for value in values))

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, computes: bool) -> None:
        if computes:
            for parameters in self._owned_by(optimizer).values():
                self._wait_no_longer(parameters)
        for name in self._networks:
            before = self._before.pop((id(optimizer), name), None)
            if before is not None and computes:
                before = before.of([p.grad is not None for p in before.weights])
                if before.weights:
                    self._measure_before(optimizer, name, before)
            if before is not None and before.weights:
                # Kernels for lists take no rows with gaps.
                after = [
                    part if part.stride() == old.stride() else part.clone()
                    for part, old in zip(before.parts, before.copies, strict=True)
                ]
                foreach_sub_(before.copies, after)
                moved = _joined(_norms(before.copies), before.stand_for)
                self.report(f"{name}_update_ratio", moved / _joined(before.norms).clamp(min=1e-12))


def _weights_before(trained: list[Tensor], turn: int) -> _Before:
    values = [_as_real(p.detach()) for p in trained]
    parts = [_part(value, turn) for value in values]
    stand_for = [value.numel() / part.numel() for value, part in zip(values, parts, strict=True)]
    return _Before(trained, parts, [part.clone() for part in parts], stand_for, _norms(values))


def _part(value: Tensor, turn: int = 0) -> Tensor:
    """Evenly spaced rows of a large weight, which stand for all of it: a copy of the whole would take longer.

    Args:
        turn: shifts the rows, so that all of them have their turn.
    """
    rows = value.shape[0] if value.dim() else 0
    most = max(1, PART * rows // value.numel())
    if most >= rows:
        return value
    stride = -(-rows // most)
    return value[turn % stride :: stride]


def _params_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_counted(parameter: Any) -> bool:
    """Whether a weight has elements, and all of them here: norms of a DTensor need every process."""
    return parameter.numel() > 0 and not hasattr(parameter, "device_mesh")


def _as_real(value: Tensor) -> Tensor:
    """A complex tensor (...) as one of pairs (..., 2); others as they are."""
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """The norm of each, 0-d, float32."""
    return list(foreach_norm(tensors, 2, dtype=torch.float32)) if tensors else []


def _joined(norms: list[Tensor], stand_for: list[float] | None = None) -> Tensor:
    """The norm of all elements together, 0-d, float32.

    Args:
        stand_for: how many elements each of a tensor's stands for.
    """
    if not norms:
        return torch.zeros(())
    scales = [1.0] * len(norms) if stand_for is None else [count**0.5 for count in stand_for]
    device = norms[0].device
    return torch.stack(
        [
            norm.to(device) if scale == 1 else scale * norm.to(device)
            for norm, scale in zip(norms, scales, strict=True)
        ]
    ).norm()
