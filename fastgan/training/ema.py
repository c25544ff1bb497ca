"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def make_average(network: nn.Module) -> nn.Module:
    """A frozen copy to start the average from."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Average += (1 - decay) (network - average); buffers are copied.

    The first steps use (1 + step) / (10 + step) where that is smaller, so that the start is forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
