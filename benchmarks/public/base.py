"""What makes a step of a public trainer's own training, with tiny networks and random batches.

Nothing of the trainers is here. Where a clone wants what this machine lacks (a GPU, downloaded weights, a
module that newer versions of a package have dropped), the environment is arranged before it is imported; the
clone itself stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Training:
    """A trainer that is ready."""

    step: Callable[[], Iterable[Any]]
    """A training step; gives its losses."""
    parameters: Callable[[], list[Tensor]]
    """All that is trained or averaged."""


@dataclass(frozen=True)
class Trainer:
    """A public trainer."""

    folder: str
    """Of the clone."""
    repository: str
    patch: tuple[str, ...]
    """Names for `fastgan.patch`."""
    make: Callable[[Path], Training]
    """Its training, from the clone's folder; the clone can be imported then."""
    served: str
    """What of a step fused functions serve."""
    inside: tuple[str, ...] = ("",)
    """Folders of the clone that its scripts import from."""
    beside: tuple[str, ...] = ()
    """Other clones that it imports from."""

    @property
    def paths(self) -> list[str]:
        return [*(f"{self.folder}/{path}" for path in self.inside), *self.beside]


def of_networks(*networks: nn.Module) -> Callable[[], list[Tensor]]:
    """All parameters of the networks."""
    return lambda: [p for network in networks for p in network.parameters()]


def batches(*shape: int, count: int = 4, low: float = -1.0, high: float = 1.0) -> Any:
    """The same few random batches, again and again."""
    return itertools.cycle([low + (high - low) * torch.rand(*shape) for _ in range(count)])
