"""Matches the tensors of a network and of its average, even if either is wrapped."""

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

# The attributes of wrapped modules in torch.compile, Lightning Fabric, and (Distributed)DataParallel.
_WRAPPERS = {*WRAPPED, "module"}

Value = TypeVar("Value")


def unwrapped(module: nn.Module) -> nn.Module:
    """Strips DataParallel, DistributedDataParallel, torch.compile and Fabric's wrappers, however nested."""
    while True:
        parts = module_table(module)
        inner = next((parts[name] for name in WRAPPED if name in parts), None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module  # only of these classes, since other modules use the name as well
        if inner is None:
            return module
        module = inner


def unwrapped_copy(module: nn.Module) -> nn.Module:
    """A deep copy without the wrappers around the network and inside it."""
    memo: dict[int, nn.Module] = {}
    for part in reversed(list(module.modules())):  # innermost first
        inner = unwrapped(part)
        if inner is not part:
            memo[id(part)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(unwrapped(module), memo)


def without_wrappers(named: dict[str, Value]) -> dict[str, Value]:
    """The mapping with the names of the bare network as keys."""
    bare = {_bare(name): value for name, value in named.items()}
    return bare if len(bare) == len(named) else named


def _bare(name: str) -> str:
    *path, last = name.split(".")
    return ".".join([part for part in path if part not in _WRAPPERS] + [last])


def parameters_by_name(module: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """(submodule, parameter) of each parameter, by its name in the bare network."""
    return without_wrappers(
        {
            f"{prefix}.{name}" if prefix else name: (part, parameter)
            for prefix, part in module.named_modules()
            for name, parameter in parameter_table(part).items()
            if parameter is not None
        }
    )


def first_names(named: dict[str, tuple[nn.Module, nn.Parameter]]) -> dict[str, str]:
    """The first name of each parameter by name; for a shared parameter they may differ."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(parameter), name) for name, (_, parameter) in named.items()}


# Modules may replace their buffers, as in `self.mean = ...`, so places are kept instead of tensors.
Place = tuple[dict[str, Tensor | None], str]


def buffer_places(module: nn.Module) -> dict[str, Place]:
    """The place of each buffer, by its name in the bare network."""
    return without_wrappers(
        {
            f"{prefix}.{name}" if prefix else name: (buffer_table(part), name)
            for prefix, part in module.named_modules()
            for name in buffer_table(part)
        }
    )


def paired_places(model: nn.Module, average: nn.Module) -> list[tuple[Place, Place]]:
    """(average's place, model's place) of each buffer that both have."""
    sources, targets = buffer_places(model), buffer_places(average)
    return [(targets[name], source) for name, source in sources.items() if name in targets]


def present(places: Iterable[tuple[Place, Place]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The buffers that are at these places now, without those that are None."""
    for (average_table, average_name), (model_table, model_name) in places:
        average, current = average_table[average_name], model_table[model_name]
        if average is not None and current is not None:
            yield average, current


def copy_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copies the second of each pair into the first, in one call per dtype."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in pairs:
        targets, sources = by_dtype.setdefault(target.dtype, ([], []))
        targets.append(target)
        sources.append(source)
    for targets, sources in by_dtype.values():
        foreach_copy_(targets, sources)


class Pairs:
    """The matched tensors of model and average, cached, since walking the modules takes longer than a step.

    Attributes:
        parameters: the model's.
        averages: the average of each parameter, or its local part, by the id of the parameter.
        buffers: the result of :func:`paired_places`.
    """

    def __init__(self, model: nn.Module, average: nn.Module) -> None:
        named_averages = parameters_by_name(average)
        self.parameters: list[Tensor] = list(model.parameters())
        self.averages = {
            id(parameter): local([named_averages[name][1]])[0]
            for name, (_, parameter) in parameters_by_name(model).items()
        }
        self._all_averages = [self.averages[id(parameter)] for parameter in self.parameters]
        self.buffers = paired_places(model, average)
        # The tables and their items are kept, so that no new object can get the id of a replaced one.
        self._tables: list[dict[str, Any]] = [
            table for part in model.modules() for table in (parameter_table(part), module_table(part))
        ]
        self._tables += [parameter_table(part) for part in average.modules() if parameter_table(part)]
        self._items = self._current_items()

    def averages_of(self, parameters: list[Tensor]) -> list[Tensor]:
        """The averages of some of the model's parameters, or, as at nearly every update, of all."""
        if parameters is self.parameters:
            return self._all_averages
        return [self.averages[id(parameter)] for parameter in parameters]

    def are_current(self) -> bool:
        """Whether model and average still have these parameters, in these layers."""
        items = self._current_items()
        return len(items) == len(self._items) and all(map(is_, items, self._items))

    def _current_items(self) -> list[object]:
        # Without a Python loop, since this runs at every update.
        return list(chain.from_iterable(map(dict.values, self._tables)))
