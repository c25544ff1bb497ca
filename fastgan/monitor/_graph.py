"""What the autograd graph of a loss term consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

with torch.inference_mode(False), torch.enable_grad():  # in whatever mode this is imported
    _AccumulateGrad = type(get_gradient_edge(torch.zeros((), requires_grad=True)).node)
Node = Any  # torch.autograd.graph.Node; also instances of autograd.Function, which are not its subclass


@dataclass(frozen=True)
class Reach:
    """What a backward pass visits."""

    nodes: list[Node]
    """Excludes leaves and cuts: they save nothing, and any number of passes may visit them."""
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
    nodes: list[Node] = []
    hit: set[int] = set()
    parameters: list[Tensor] = []
    while stack:
        node = stack.pop()
        if node in leaves:
            hit.add(leaves[node])
        elif type(node) is _AccumulateGrad:
            parameters.append(cast(Any, node).variable)
        else:
            nodes.append(node)
            for following, _ in node.next_functions:
                if following is not None and following not in seen:
                    seen.add(following)
                    stack.append(following)
    return Reach(nodes, frozenset(hit), tuple(parameters))


def needed_again(visits: Iterable[Iterable[Node]]) -> list[bool]:
    """Of several visits in turn: whether a later one comes to some of the same nodes."""
    last: dict[Node, int] = {}
    needed = []
    for index, nodes in enumerate(visits):
        needed.append(False)
        for node in nodes:
            if node in last:
                needed[last[node]] = True
            last[node] = index
    return needed
