"""A checkpoint's content, read from a file that may be incomplete or come from anyone."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import le
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan._names import printable
from fastgan.optim._step import FusedStep, weight_bounds
from fastgan.training.config import Config, from_plain

LONGEST = 500  # characters of a file's content that an error shows
KINDS = ("networks", "averages", "emas", "optimizers")
CLIPS, CHOICES = ("grad_clip_value", "grad_clip_norm"), ("foreach", "fused")  # None: not set


@dataclass
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    path: Path
    recipe: str
    config: dict[str, Any]
    step: int
    state: dict[str, float]
    networks: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    emas: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def network(self, name: str) -> dict[str, Tensor]:
        """A network's weights. Raises a ValueError if the file has no network of this name."""
        if name not in self.networks:
            raise ValueError(f"{printable(self.path)} has no network {name!r}")
        return self.networks[name]

    def trained(self, name: str) -> dict[str, Tensor]:
        """A network's weights for use: the moving average where one was kept."""
        return self.averages.get(name) or self.network(name)

    def options(self, config_class: type[Config]) -> Config:
        """The run's configuration. Raises a ValueError if it is not one of this class."""
        return options_of(self.path, config_class, self.config)


def options_of(path: Path, config_class: type[Config], values: dict[str, Any]) -> Config:
    """A configuration from a file's values. Raises a ValueError that names the file for invalid ones."""
    try:
        return from_plain(config_class, values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the configuration in {printable(path)} cannot be used: {printable(error)[:LONGEST]}"
        ) from error


def read_json(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """The JSON object of this name. Raises a ValueError, without the file's name, if it is not one."""
    if name not in metadata:
        raise ValueError(f"its metadata has no {name!r}")
    try:
        value = json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is not in JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"its {name} must be an object, got {type(value).__name__}")
    return value


def read_content(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    """A checkpoint's parts from a file's metadata and tensors.

    Raises:
        ValueError: a part is missing, of the wrong type, or unknown; without the file's name.
    """
    if "recipe" not in metadata:
        raise ValueError("its metadata has no 'recipe'")
    checkpoint = Checkpoint(
        path, metadata["recipe"], read_json(metadata, "config"), _step(metadata), read_json(metadata, "state")
    )
    for name, value in checkpoint.state.items():
        if not _is_finite_number(value):
            raise ValueError(f"its state {name!r} must be a finite number, got {reprlib.repr(value)}")
    for name, groups in read_json(metadata, "param_groups").items():
        checkpoint.optimizers[name] = {"state": {}, "param_groups": _groups(name, groups)}
    for key, tensor in tensors.items():
        kind, _, place = key.partition("/")
        name, _, rest = place.partition("/")
        if kind not in KINDS or not rest:
            raise ValueError(f"it has a tensor {reprlib.repr(key)}, which belongs to nothing")
        if kind == "optimizers":
            _add_state(checkpoint.optimizers, name, rest, tensor)
        elif kind == "emas" and (tensor.dim() or tensor.dtype != torch.int64 or tensor < 0):
            raise ValueError(f"{reprlib.repr(key)} must be a number of updates, got {_described(tensor)}")
        else:
            getattr(checkpoint, kind).setdefault(name, {})[rest] = tensor
    return checkpoint


def _step(metadata: Mapping[str, str]) -> int:
    text = metadata.get("step", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"its step must be a number from 0 on, got {reprlib.repr(text)}")
    return int(text)


def _groups(name: str, groups: Any) -> list[dict[str, Any]]:
    """An optimizer's param_groups, with JSON's lists turned into tuples."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError(f"the groups of its optimizer {name!r} must be objects, got {reprlib.repr(groups)}")
    for group in groups:
        indices = group.get("params")
        if not isinstance(indices, list) or not all(type(index) is int for index in indices):
            raise ValueError(
                f"the params of its optimizer {name!r} must be numbers, got {reprlib.repr(indices)}"
            )
    return [
        {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}
        for group in groups
    ]


def _add_state(optimizers: dict[str, dict[str, Any]], name: str, place: str, tensor: Tensor) -> None:
    index, _, key = place.partition("/")
    indices = {i for group in optimizers.get(name, {}).get("param_groups", []) for i in group["params"]}
    if not (index.isascii() and index.isdecimal() and len(index) < 19 and int(index) in indices and key):
        raise ValueError(f"it has a state of no parameter, {reprlib.repr(f'optimizers/{name}/{place}')}")
    optimizers[name]["state"].setdefault(int(index), {})[key] = tensor


def load_optimizer(name: str, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Loads a saved optimizer's state into a new optimizer, and checks what its next step needs.

    Raises:
        ValueError: another number of groups or parameters; an option that is missing or of another type; a
            state that is missing, of another shape or not floating-point.
    """
    options = [set(group) for group in optimizer.param_groups]
    for saved_group, group in zip(saved["param_groups"], optimizer.param_groups, strict=False):
        for option in sorted((saved_group.keys() & group.keys()) - {"params"}):
            value = saved_group[option]
            if not _is_valid_option(option, value, group[option]):
                raise ValueError(f"{option} of its optimizer {name!r} cannot be {reprlib.repr(value)}")
    optimizer.load_state_dict(saved)
    for group, needed in zip(optimizer.param_groups, options, strict=True):
        if missing := needed - group.keys():  # options that are newer than the file are filled in by torch
            raise ValueError(f"its optimizer {name!r} has no {min(missing)}")
        if isinstance(optimizer, FusedStep):
            _check_states(name, group, optimizer)


def _check_states(name: str, group: dict[str, Any], optimizer: FusedStep) -> None:
    names = [key for key in optimizer._state_names(group) if key is not None]
    for number, parameter in enumerate(group["params"]):
        state = optimizer.state.get(parameter)
        if not state:  # it has had no gradient yet
            continue
        for key, shape in (("step", torch.Size()), *((key, parameter.shape) for key in names)):
            tensor = state.get(key)
            if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.is_floating_point():
                raise ValueError(
                    f"{key} of its optimizer {name!r} for parameter {number} must be floating-point of "
                    f"shape {tuple(shape)}, got {_described(tensor)}"
                )


def _is_valid_option(option: str, value: Any, expected: Any) -> bool:
    """Whether a file's value of an option may replace the optimizer's."""
    if option in CLIPS:
        return value is None or (_is_finite_number(value) and value > 0)
    if option in CHOICES:
        return value is None or isinstance(value, bool)
    if option == "weight_clip":
        pair = value if isinstance(value, tuple) and len(value) == 2 else (value,)
        return value is None or (all(map(_is_finite_number, pair)) and le(*weight_bounds(value)))
    if isinstance(expected, tuple):
        return isinstance(value, tuple) and len(value) == len(expected) and all(map(_is_finite_number, value))
    if isinstance(expected, (bool, str)):
        return isinstance(value, type(expected))
    return _is_finite_number(value)


def _is_finite_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "none"
