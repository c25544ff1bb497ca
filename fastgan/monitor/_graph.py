"""What the autograd graph of a loss term consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Node = Any  # torch.autograd.graph.Node; also instances of autograd.Function, which are not its subclass


@dataclass(frozen=True)
class Reach:
    """What a backward pass visits."""

    nodes: frozenset[Node]
    """Without those that only accumulate a gradient, which any number of passes may visit."""
    leaves: frozenset[int]
    """The given leaves, by their index."""
    parameters: tuple[Tensor, ...]
    """All other leaves that require a gradient."""


def reach(roots: Iterable[Tensor], leaves: Mapping[Node, int]) -> Reach:
    """Walks the graph of these tensors, up to its leaves.

    Args:
        leaves: index by the node that accumulates its gradient.
    """
    seen: set[Node] = set()
    hit: set[int] = set()
    parameters: list[Tensor] = []
    stack: list[Node] = [root.grad_fn for root in roots if root.grad_fn is not None]
    accumulating: set[Node] = set()
    seen.update(stack)
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is None or node in seen:
                continue
            seen.add(node)
            if type(node).__name__ != "AccumulateGrad":
                stack.append(node)
                continue
            accumulating.add(node)
            if node in leaves:
                hit.add(leaves[node])
            else:
                parameters.append(node.variable)
    return Reach(frozenset(seen - accumulating), frozenset(hit), tuple(parameters))
