"""Checkpoints: one safetensors file with everything a run needs to go on, and no pickle.

Tensors are named `networks/NAME/KEY`, `averages/NAME/KEY`, `emas/INDEX/updates` and
`optimizers/NAME/INDEX/KEY`; the metadata holds recipe, configuration, step and the optimizers'
param_groups as JSON. A file appears under its final name only when it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import fastgan
from fastgan.training.config import to_plain
from fastgan.training.recipe import Recipe

FORMAT = "fastgan-checkpoint-1"


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

    def trained(self, name: str) -> dict[str, Tensor]:
        """A network's weights for use: the moving average where one was kept."""
        return self.averages.get(name, self.networks[name])


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def save_checkpoint(recipe: Recipe, step: int, folder: Path, keep: int) -> Path:
    """Writes the state after `step` steps, then removes all but the newest `keep` checkpoints.

    Raises:
        OSError: the file cannot be written; nothing is left under its final name.
    """
    tensors: dict[str, Tensor] = {}
    for kind, modules in (("networks", recipe.networks), ("averages", recipe.averages)):
        for name, module in modules.items():
            for key, tensor in module.state_dict().items():
                tensors[f"{kind}/{name}/{key}"] = tensor
    groups = {}
    for name, optimizer in recipe.optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            for key, value in values.items():
                tensors[f"optimizers/{name}/{index}/{key}"] = torch.as_tensor(value)
    for index, ema in enumerate(recipe.emas):
        tensors[f"emas/{index}/updates"] = ema.updates
    metadata = {
        "format": FORMAT,
        "recipe": recipe.name,
        "config": json.dumps(to_plain(recipe.config)),
        "step": str(step),
        "state": json.dumps(recipe.state),
        "param_groups": json.dumps(groups),
        "fastgan": fastgan.__version__,
        "torch": torch.__version__,
    }
    path = checkpoint_path(folder, step)
    write_weights(path, tensors, metadata)
    for old in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        old.unlink()
    return path


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file that appears under its name only when it is complete.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".incomplete")
    try:
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, recipe: str | None = None) -> Checkpoint:
    """Reads a checkpoint file, or the newest one of a run's folder.

    Args:
        path: a file, a run's folder, or its checkpoints folder.
        recipe: refuse checkpoints of others.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a complete checkpoint, or one of another recipe.
    """
    path = _newest(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of fastgan")
    if recipe is not None and metadata["recipe"] != recipe:
        raise ValueError(f"{path} is a checkpoint of the recipe {metadata['recipe']!r}, not of {recipe!r}")
    checkpoint = Checkpoint(
        path,
        metadata["recipe"],
        json.loads(metadata["config"]),
        int(metadata["step"]),
        json.loads(metadata["state"]),
    )
    for name, groups in json.loads(metadata["param_groups"]).items():
        groups = [{k: tuple(v) if k == "betas" else v for k, v in g.items()} for g in groups]
        checkpoint.optimizers[name] = {"state": {}, "param_groups": groups}
    for key, tensor in tensors.items():
        kind, name, rest = key.split("/", 2)
        if kind == "optimizers":
            index, value = rest.split("/")
            checkpoint.optimizers[name]["state"].setdefault(int(index), {})[value] = tensor
        else:
            getattr(checkpoint, kind).setdefault(name, {})[rest] = tensor
    return checkpoint


def _newest(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / "checkpoints"):
        found = sorted(folder.glob("step-*.safetensors"))
        if found:
            return found[-1]
    raise FileNotFoundError(f"no checkpoint at {path}")


def restore(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's state into a recipe built from the same configuration.

    Raises:
        ValueError: the checkpoint's networks or optimizers do not fit the configuration.
    """
    recipe.state = dict(checkpoint.state)
    try:
        for name, module in recipe.networks.items():
            module.load_state_dict(checkpoint.networks[name])
        for name, module in recipe.averages.items():
            module.load_state_dict(checkpoint.averages.get(name, checkpoint.networks[name]))
        for index, ema in enumerate(recipe.emas):
            # A run that kept no average until now begins one that remembers nothing but the networks.
            kept = checkpoint.emas.get(str(index))
            ema.updates.copy_(kept["updates"] if kept else torch.tensor(checkpoint.step))
        for name, optimizer in recipe.optimizers.items():
            optimizer.load_state_dict(checkpoint.optimizers[name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{checkpoint.path} does not fit this configuration: {error}") from error
