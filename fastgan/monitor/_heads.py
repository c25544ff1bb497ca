"""The backward pass of loss terms down to the cuts, and what is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from fastgan._torch_internals import clear_error_about_donated_buffers
from fastgan.monitor._graph import Reach, needed_again
from fastgan.monitor.shares import Shares
from fastgan.ops import gradient_budget


@dataclass(frozen=True)
class Cut:
    """A place at which the graph ends for the heads."""

    tensor: Tensor
    leaf: Tensor
    end: Tensor
    """A view of the leaf, which the heads get."""
    nodes: tuple[Any, ...]
    """Of the graph: the view's, and the one that accumulates the leaf's gradient."""
    measured: bool

    @classmethod
    def of(cls, tensor: Tensor, measured: bool) -> Cut:
        leaf = tensor.detach().requires_grad_()
        # A view: hooks on a module's inputs, such as FlopCounterMode's, fail in autograd.grad on leaves.
        with torch.enable_grad():
            end = leaf.view_as(leaf)
        return cls(tensor, leaf, end, (end.grad_fn, get_gradient_edge(leaf).node), measured)


@dataclass(frozen=True)
class Rest:
    """What is left of a backward pass once the heads have run."""

    tensors: list[Tensor]
    """The cut tensors, then the heads' trained parameters."""
    gradients: list[Tensor]
    shares: Shares
    scale: Tensor | None
    """What the gradients have been multiplied by."""


class RestOfBackward(torch.autograd.Function):
    """A loss whose backward pass has been run down to the cut."""

    @staticmethod
    def forward(ctx: Any, rest: Rest, *tensors: Tensor) -> Tensor:
        ctx.rest = rest
        return rest.shares.total.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("the loss of a LossBudget has no second gradient: create_graph must be False")
        rest = ctx.rest
        if rest is None:
            raise RuntimeError("the loss of a LossBudget can be run backward once")
        ctx.rest = None
        factor = grad if rest.scale is None else grad / rest.scale
        return (None, *(times(gradient, factor) for gradient in rest.gradients))


def index_by_node(cuts: list[Cut]) -> dict[Any, int]:
    return {node: index for index, cut in enumerate(cuts) for node in cut.nodes}


def times(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product, computed in float32 at least: a GradScaler's first scale, 65536, overflows float16."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return (gradient.to(wide) * factor.to(wide)).to(gradient.dtype)


def head_gradients(
    terms: Mapping[str, Tensor],
    weights: Mapping[str, float | Tensor],
    reaches: list[Reach],
    cuts: list[Cut],
    upstream: list[Any],
    scale: Tensor | None,
) -> tuple[list[list[Tensor | None]], list[dict[Tensor, Tensor]]]:
    """Each term's gradients, times its weight if that is given: at each cut by term, and those of parameters.

    Args:
        upstream: the nodes that are run backward after the heads.
    """
    at_cuts: list[list[Tensor | None]] = [[None] * len(terms) for _ in cuts]
    at_parameters: list[dict[Tensor, Tensor]] = [{} for _ in terms]
    # What a term shares with a later one is kept, and with it all that the term itself has saved: the terms
    # with the largest graphs come last.
    order = sorted(range(len(terms)), key=lambda position: len(reaches[position].nodes))
    kept = needed_again([*(reaches[position].nodes for position in order), upstream])
    names = list(terms)
    for position, keeps_graph in zip(order, kept, strict=False):
        name, reached = names[position], reaches[position]
        term = terms[name]
        leaves = [cuts[index].leaf for index in reached.leaves]
        with torch.enable_grad():  # the weighted scale may be a float16, the scale itself may not
            root = term.to(torch.promote_types(term.dtype, torch.float32))
        seed = torch.ones_like(root) if scale is None else scale.to(root.dtype)
        with clear_error_about_donated_buffers():
            found = torch.autograd.grad(
                root,
                [*leaves, *reached.parameters],
                weights.get(name, 1.0) * seed,
                retain_graph=keeps_graph,
                allow_unused=True,
            )
        for index, gradient in zip(reached.leaves, found, strict=False):
            at_cuts[index][position] = gradient
        # Where all weights are known, gradients of parameters need not be kept per term.
        sums = at_parameters[position if len(weights) < len(terms) else 0]
        for parameter, gradient in zip(reached.parameters, found[len(leaves) :], strict=True):
            if gradient is not None:
                sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return at_cuts, at_parameters


def sweep(
    at_cuts: list[list[Tensor | None]], cuts: list[Cut], count: int, factors: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """The gram matrix at all measured cuts together, and the weighted sum at each; None without gradients."""
    gram: Tensor | None = None
    sums: list[Tensor | None] = []
    for cut, gradients in zip(cuts, at_cuts, strict=True):
        present = [gradient for gradient in gradients if gradient is not None]
        if not present:
            sums.append(None)
            continue
        if len(present) < count:
            zero = torch.zeros_like(present[0])
            present = [zero if gradient is None else gradient for gradient in gradients]
        wide = torch.float64 if present[0].dtype == torch.float64 else torch.float32
        products, total = gradient_budget(present, None if factors is None else factors.to(wide))
        if cut.measured:
            gram = products if gram is None else gram + products
        sums.append(total)
    if gram is None:
        gram = torch.zeros((count, count), device=cuts[0].leaf.device)
    return gram, sums


def summed(by_term: list[dict[Tensor, Tensor]], factors: Tensor | None) -> dict[Tensor, Tensor]:
    """The weighted gradients of the heads' parameters, summed over the terms."""
    sums: dict[Tensor, Tensor] = {}
    for position, gradients in enumerate(by_term):
        for parameter, gradient in gradients.items():
            if factors is not None:
                gradient = times(gradient, factors[position])
            sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return sums


def averaged(values: Tensor, power: int = 1) -> Tensor:
    """What the joined batch of all processes has, from what this one has; divided by the count to a power."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        values = values.clone(memory_format=torch.contiguous_format)  # autograd may hold this very tensor
        distributed.all_reduce(values)
        values = values / distributed.get_world_size() ** power
    return values
