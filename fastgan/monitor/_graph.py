"""What the autograd graph of a loss term consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

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
    stack: list[Node] = [get_gradient_edge(root).node for root in roots if root.requires_grad]
    seen: set[Node] = set(stack)
    accumulating: set[Node] = set()
    hit: set[int] = set()
    parameters: list[Tensor] = []
    while stack:
        node = stack.pop()
        if type(node).__name__ == "AccumulateGrad":
            accumulating.add(node)
            if node in leaves:
                hit.add(leaves[node])
            else:
                parameters.append(node.variable)
            continue
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return Reach(frozenset(seen - accumulating), frozenset(hit), tuple(parameters))
