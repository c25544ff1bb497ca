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
    """Without those that save nothing, which any number of passes may visit: leaves and cuts."""
    leaves: frozenset[int]
    """The indices of the given leaves."""
    parameters: tuple[Tensor, ...]
    """All other leaves that require a gradient."""


def reach(roots: Iterable[Tensor], leaves: Mapping[Node, int]) -> Reach:
    """Walks the graph of these tensors, up to its leaves.

    Args:
        leaves: indices by node; the walk ends there.
    """
    stack: list[Node] = [get_gradient_edge(root).node for root in roots if root.requires_grad]
    seen: set[Node] = set(stack)
    ends: set[Node] = set()
    hit: set[int] = set()
    parameters: list[Tensor] = []
    while stack:
        node = stack.pop()
        if node in leaves:
            ends.add(node)
            hit.add(leaves[node])
            continue
        if type(node).__name__ == "AccumulateGrad":
            ends.add(node)
            parameters.append(node.variable)
            continue
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return Reach(frozenset(seen - ends), frozenset(hit), tuple(parameters))
