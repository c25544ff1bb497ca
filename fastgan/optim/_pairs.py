"""Which tensors of a network and of its average belong together, however either is wrapped."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import is_
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastgan._torch_internals import WRAPPED, buffer_table, foreach_copy_, module_table, parameter_table
from fastgan.optim._shards import local

# Where torch.compile and Lightning Fabric keep what they wrap, and DataParallel and DistributedDataParallel.
_WRAPPERS = {*WRAPPED, "module"}

Value = TypeVar("Value")


def unwrapped(module: nn.Module) -> nn.Module:
    """Strips DataParallel, DistributedDataParallel, torch.compile and Fabric's wrappers, however nested."""
    while True:
        parts = module_table(module)
        inner = next((parts[name] for name in WRAPPED if name in parts), None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module  # a name that other modules have, too
        if inner is None:
            return module
        module = inner


def unwrapped_copy(module: nn.Module) -> nn.Module:
    """A deep copy in which the wrappers, around the network and inside of it, are left out."""
    memo: dict[int, nn.Module] = {}
    for part in reversed(list(module.modules())):  # what is inside comes first
        inner = unwrapped(part)
        if inner is not part:
            memo[id(part)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(unwrapped(module), memo)


def without_wrappers(named: dict[str, Value]) -> dict[str, Value]:
    """The same by the names that the tensors have in the bare network."""
    bare = {_bare(name): value for name, value in named.items()}
    return bare if len(bare) == len(named) else named


def _bare(name: str) -> str:
    *path, last = name.split(".")
    return ".".join([part for part in path if part not in _WRAPPERS] + [last])


def parameters_by_name(module: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """(the part that has it, the parameter), by its name in the bare network."""
    return without_wrappers(
        {
            f"{prefix}.{name}" if prefix else name: (part, parameter)
            for prefix, part in module.named_modules()
            for name, parameter in parameter_table(part).items()
            if parameter is not None
        }
    )


def first_names(named: dict[str, tuple[nn.Module, nn.Parameter]]) -> dict[str, str]:
    """The first name that each parameter has: another than its own where it is shared."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(parameter), name) for name, (_, parameter) in named.items()}


# A module's buffers may be assigned anew, as in `self.mean = ...`: what is kept is where to look for them.
Place = tuple[dict[str, Tensor | None], str]


def buffer_places(module: nn.Module) -> dict[str, Place]:
    """Where each buffer is found, by its name in the bare network."""
    return without_wrappers(
        {
            f"{prefix}.{name}" if prefix else name: (buffer_table(part), name)
            for prefix, part in module.named_modules()
            for name in buffer_table(part)
        }
    )


def paired_places(model: nn.Module, average: nn.Module) -> list[tuple[Place, Place]]:
    """(the average's, the model's) of each buffer that both have."""
    sources, targets = buffer_places(model), buffer_places(average)
    return [(targets[name], source) for name, source in sources.items() if name in targets]


def present(places: Iterable[tuple[Place, Place]]) -> Iterator[tuple[Tensor, Tensor]]:
    """What lies there now, without the buffers that are None."""
    for (kept_in, name), (current_in, its_name) in places:
        kept, current = kept_in[name], current_in[its_name]
        if kept is not None and current is not None:
            yield kept, current


def copy_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copies the second of each pair into the first, in one call per type."""
    of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for kept, current in pairs:
        targets, sources = of_type.setdefault(kept.dtype, ([], []))
        targets.append(kept)
        sources.append(current)
    for targets, sources in of_type.values():
        foreach_copy_(targets, sources)


class Pairs:
    """What belongs together, found once: walking through modules takes longer than a step.

    Attributes:
        parameters: the model's.
        averages: the average of each, or its local part, by the id of the parameter.
        buffers: as :func:`paired_places` gives them.
    """

    def __init__(self, model: nn.Module, average: nn.Module) -> None:
        theirs = parameters_by_name(average)
        self.parameters: list[Tensor] = list(model.parameters())
        self.averages = {
            id(parameter): local([theirs[name][1]])[0]
            for name, (_, parameter) in parameters_by_name(model).items()
        }
        self._all_averages = [self.averages[id(parameter)] for parameter in self.parameters]
        self.buffers = paired_places(model, average)
        # Kept together with what they held, so that nothing new gets the id of what has been replaced.
        self._tables: list[dict[str, Any]] = [
            table for part in model.modules() for table in (parameter_table(part), module_table(part))
        ]
        self._tables += [parameter_table(part) for part in average.modules() if parameter_table(part)]
        self._held = self._holding()

    def averages_of(self, parameters: list[Tensor]) -> list[Tensor]:
        """Of all of `parameters`, as at nearly every update, or of some of them."""
        if parameters is self.parameters:
            return self._all_averages
        return [self.averages[id(parameter)] for parameter in parameters]

    def are_current(self) -> bool:
        """Whether model and average still have these parameters, in these layers."""
        now = self._holding()
        return len(now) == len(self._held) and all(map(is_, now, self._held))

    def _holding(self) -> list[object]:
        return list(chain.from_iterable(map(dict.values, self._tables)))  # at every update: no loop in Python
