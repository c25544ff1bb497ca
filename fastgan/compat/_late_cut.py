"""A cut at the generator's output for losses that have been computed from it already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastgan.monitor import LossBudget
from fastgan.monitor._graph import Node, reach
from fastgan.monitor._heads import times
from fastgan.reference.precision import wide


@dataclass(frozen=True)
class Moved:
    """A loss that has been run backward down to the cut."""

    loss: Tensor
    """The loss with a graph that ends at the cut, as the budget wants it."""
    at_cut: Tensor
    """Its gradient there, times the GradScaler's scale."""
    at_parameters: Mapping[Tensor, Tensor]
    """The same of parameters on the way."""


@dataclass(frozen=True)
class _Way:
    """What a loss is computed from, up to the tensor."""

    nodes: frozenset[Node]
    """Without those that only accumulate a gradient."""
    parameters: tuple[Tensor, ...]
    hits: bool
    """Whether it leads to the tensor."""
    passes_by: bool
    """Whether it also leads to something that the tensor is computed from."""


class LateCut:
    """Moves losses that were computed from a tensor to the budget that cuts it.

    Args:
        scaler: the GradScaler in use, if any, which is also given to the budget.

    Hooks of the tensor itself (`register_hook`) run once for each loss, and again in the final pass.
    """

    def __init__(self, tensor: Tensor, budget: LossBudget, scaler: torch.amp.GradScaler | None) -> None:
        self.tensor = tensor
        self._end = budget.cut(tensor)
        behind = reach([tensor], {})
        self._nodes_behind, self._parameters_behind = frozenset(behind.nodes), behind.parameters
        one = torch.ones((), device=tensor.device)
        self._scale = one if scaler is None else scaler.scale(one)

    def ends(self, loss: Tensor) -> bool:
        """Whether the loss depends on the tensor, and on nothing else that the tensor depends on."""
        way = self._way(loss)
        return way.hits and not way.passes_by

    def move(
        self, losses: Mapping[str, Tensor], without_parameters: Collection[str] = ()
    ) -> dict[str, Moved]:
        """Runs 0-d losses backward, down to the tensor and to the parameters of what is between.

        One that also passes by the tensor is run down to all of its parameters, and its gradient at the
        tensor is then 0.

        Args:
            without_parameters: names of losses that parameters between get no gradient from.
        """
        ways = {name: self._way(loss) for name, loss in losses.items()}
        moved: dict[str, Moved] = {}
        for name, loss in losses.items():
            way = ways.pop(name)
            is_shared = any(not way.nodes.isdisjoint(other.nodes) for other in ways.values())
            moved[name] = self._moved(loss, way, is_shared, name not in without_parameters)
        return moved

    def depends_on(self, layer: nn.Parameter) -> bool:
        """Whether the tensor is computed from this parameter."""
        return any(parameter is layer for parameter in self._parameters_behind)

    def norm(self, moved: Moved, layer: nn.Parameter) -> Tensor:
        """The norm of a loss's gradient of a layer's weight, 0-d, in float32 or better."""
        (gradient,) = torch.autograd.grad(
            self.tensor, layer, moved.at_cut, retain_graph=True, allow_unused=True
        )
        parts = [g for g in (gradient, moved.at_parameters.get(layer)) if g is not None]
        if not parts:
            return self._scale.new_zeros(())
        return torch.linalg.vector_norm(sum(parts[1:], start=wide(parts[0])) / self._scale)

    def _moved(self, loss: Tensor, way: _Way, is_shared: bool, to_parameters: bool) -> Moved:
        parameters = (reach([loss], {}) if way.passes_by else way).parameters if to_parameters else ()
        hits = way.hits and not way.passes_by
        targets = [self.tensor] * hits + [*parameters]
        found: tuple[Tensor | None, ...] = ()
        if targets:
            seed = self._scale.to(loss.dtype)
            keeps = is_shared or way.passes_by
            found = torch.autograd.grad(loss, targets, seed, retain_graph=keeps, allow_unused=True)
        at_cut = found[0] if hits else None
        if at_cut is None:
            at_cut = torch.zeros_like(self.tensor)
        of_parameters = zip(parameters, found[hits:], strict=True)
        at_parameters = {parameter: gradient for parameter, gradient in of_parameters if gradient is not None}
        gradients = [at_cut, *at_parameters.values()]
        moved: Any = _Moved.apply(loss.detach(), gradients, self._scale, self._end, *at_parameters)
        return Moved(moved, at_cut, at_parameters)

    def _way(self, loss: Tensor) -> _Way:
        owned = {id(parameter) for parameter in self._parameters_behind}
        nodes: set[Node] = set()
        accumulating: dict[Node, None] = {}
        hits = passes_by = False
        stack: list[tuple[Node, int]] = [] if loss.grad_fn is None else [(loss.grad_fn, loss.output_nr)]
        while stack:
            node, output = stack.pop()
            if node is self.tensor.grad_fn and output == self.tensor.output_nr:
                hits = True
            elif node in self._nodes_behind:
                passes_by = True
            elif type(node).__name__ == "AccumulateGrad":
                accumulating[node] = None
            elif node not in nodes:
                nodes.add(node)
                stack += [edge for edge in node.next_functions if edge[0] is not None]
        parameters = tuple(node.variable for node in accumulating)
        passes_by = passes_by or any(id(parameter) in owned for parameter in parameters)
        return _Way(frozenset(nodes), parameters, hits, passes_by)


class _Moved(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], scale: Tensor, *tensors: Tensor) -> Tensor:
        ctx.gradients, ctx.scale = gradients, scale
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        # First without the scale, which the gradients have, too: their product might overflow.
        factor = grad / ctx.scale
        return (None, None, None, *(times(gradient, factor) for gradient in ctx.gradients))
