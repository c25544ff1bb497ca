"""Checkpoints: one safetensors file with everything a run needs to go on, and no pickle.

Tensors are named `networks/NAME/KEY`, `averages/NAME/KEY`, `emas/INDEX/updates` and
`optimizers/NAME/INDEX/KEY`; the metadata holds recipe, configuration, step and the optimizers'
param_groups as JSON. Only a finite state is saved, and a file appears under its final name only when it is
complete (weights.py); checksums tell whether it still is what was saved.
"""

from __future__ import annotations

import json
import math
import reprlib
import shutil
from pathlib import Path

import torch
from torch import Tensor

import fastgan
from fastgan._warnings import warn
from fastgan.training.checkpoint_content import Checkpoint, load_optimizer, read_content
from fastgan.training.checkpoint_files import DAMAGED, SET_ASIDE, checkpoint_files, checkpoint_path, steps_of
from fastgan.training.config import to_plain
from fastgan.training.finite import first_non_finite
from fastgan.training.names import printable
from fastgan.training.recipe import Recipe
from fastgan.training.runtime import ProcessFailed
from fastgan.training.weights import INCOMPLETE, check_dtypes, read_tensors, write_weights
from fastgan.training.weights import read_weights as read_weights

FORMAT = "fastgan-checkpoint-1"
FORMATS = FORMAT.rstrip("0123456789")  # how this one, those before and those to come begin


class OtherFormat(ValueError):
    """A checkpoint of another version of fastgan, which is not damaged."""


# --- saving -----------------------------------------------------------------------------------------------


def save_checkpoint(recipe: Recipe, step: int, folder: Path, keep: int) -> Path:
    """Writes the state after `step` steps, then removes all but the newest `keep` checkpoints up to it.

    Raises:
        FloatingPointError: the state is not finite; nothing is written, and nothing is removed.
        OSError: the file cannot be written; nothing is left under its final name.
    """
    tensors = state_tensors(recipe)
    # The loop has asked all processes; whoever else saves must not write NaN either.
    if found := _non_finite(recipe, tensors):
        raise FloatingPointError(_describe(found, step, folder))
    groups = {name: optimizer.state_dict()["param_groups"] for name, optimizer in recipe.optimizers.items()}
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
    files = checkpoint_files(folder)
    for old in files[: files.index(path) + 1][:-keep]:
        old.unlink()
    for begun in folder.glob(f"step-*{INCOMPLETE}"):  # by a process that was killed
        shutil.rmtree(begun, ignore_errors=True)
    return path


def check_finite_state(recipe: Recipe, step: int, folder: Path) -> None:
    """Ends the run, in all processes, which call it alike, if the state of one of them is not finite.

    Args:
        step: steps done.
        folder: of the checkpoints, for the message to name the last one.

    Raises:
        FloatingPointError: in the processes where it is not; the message names what.
        ProcessFailed: in the others.
    """
    found = _non_finite(recipe, state_tensors(recipe))
    if recipe.runtime.any(found is not None):
        if found is None:
            raise ProcessFailed(f"the state of another process became NaN or infinite by step {step}")
        raise FloatingPointError(_describe(found, step, folder))


def state_tensors(recipe: Recipe) -> dict[str, Tensor]:
    """All tensors of a recipe's state by their names in a checkpoint, on their devices, not copied."""
    tensors: dict[str, Tensor] = {}
    for kind, modules in (("networks", recipe.networks), ("averages", recipe.averages)):
        for name, module in modules.items():
            for key, tensor in module.state_dict().items():
                tensors[f"{kind}/{name}/{key}"] = tensor
    for name, optimizer in recipe.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"optimizers/{name}/{index}/{key}"] = torch.as_tensor(value)
    for index, ema in enumerate(recipe.emas):
        tensors[f"emas/{index}/updates"] = ema.updates
    return tensors


def _non_finite(recipe: Recipe, tensors: dict[str, Tensor]) -> str | None:
    found = first_non_finite(tensors)
    return found or next(
        (f"state/{n}" for n, value in recipe.state.items() if not math.isfinite(value)), None
    )


def _describe(name: str, step: int, folder: Path) -> str:
    files = checkpoint_files(folder)
    kept = f"the last finite checkpoint is {printable(files[-1])}" if files else "there is no checkpoint yet"
    return (
        f"{name} became NaN or infinite by step {step}, which is not saved; {kept}. Lower the learning "
        "rates, or look at the terms in metrics.csv to see which grew first"
    )


# --- loading ----------------------------------------------------------------------------------------------


def load_checkpoint(path: str | Path, recipe: str | None = None) -> Checkpoint:
    """Reads a checkpoint file, or the newest one of a run's folder that is whole.

    A damaged one in a folder is passed over with a RuntimeWarning that names it and what is wrong.

    Args:
        path: a file, a run's folder, or its checkpoints folder.
        recipe: refuse checkpoints of others.

    Raises:
        FileNotFoundError: nothing there.
        OSError: a file cannot be read, which says nothing of its content.
        ValueError: not a complete checkpoint, or one of another recipe or format; of a folder, none that is
            complete.
    """
    path = Path(path)
    checkpoint = _read(path) if path.is_file() else _newest(path)
    if recipe is not None and checkpoint.recipe != recipe:
        raise ValueError(
            f"{printable(checkpoint.path)} is a checkpoint of the recipe {reprlib.repr(checkpoint.recipe)}, "
            f"not of {recipe!r}"
        )
    return checkpoint


def _newest(path: Path) -> Checkpoint:
    files = checkpoint_files(path) or checkpoint_files(path / "checkpoints")
    if not files:
        raise FileNotFoundError(f"no checkpoint at {printable(path)}")
    wrong: list[str] = []
    for file in reversed(files):
        try:
            checkpoint = _read(file)
            if checkpoint.step != int(file.stem.rpartition("-")[2]):
                # It would count as the newest for ever, whatever is saved after it.
                raise ValueError(f"{printable(file)} is of step {checkpoint.step}, not of that in its name")
        except OtherFormat:
            raise
        except ValueError as error:
            wrong.append(str(error))
            continue
        if wrong:
            warn(f"{'; '.join(wrong)}. The older checkpoint {printable(file)} is taken", RuntimeWarning)
        return checkpoint
    raise ValueError(
        f"none of {len(files)} checkpoints in {printable(files[0].parent)} can be used: {'; '.join(wrong)}"
    )


def _read(path: Path) -> Checkpoint:
    metadata, tensors = read_tensors(path, "checkpoint")
    found = metadata.get("format", "")
    if found != FORMAT and found.startswith(FORMATS):
        raise OtherFormat(
            f"{printable(path)} has the format {reprlib.repr(found)}, which this version of fastgan, "
            f"{fastgan.__version__}, does not know: it reads {FORMAT!r}"
        )
    if found != FORMAT:
        raise ValueError(f"{printable(path)} is a safetensors file, but not a checkpoint of fastgan")
    check_dtypes(path, tensors)
    try:
        checkpoint = read_content(path, metadata, tensors)
    except ValueError as error:
        raise ValueError(f"{printable(path)} is not a complete checkpoint: {error}") from error
    if name := first_non_finite(tensors):
        raise ValueError(f"{printable(path)} is of no use: {printable(name)} is NaN or infinite")
    return checkpoint


def checkpoint_of_step(folder: Path, step: int) -> Path:
    """The checkpoint of a step in a folder.

    Raises:
        FileNotFoundError: there is none; the message has those that are there.
    """
    steps = steps_of(folder)
    for path, found in steps.items():
        if found == step:
            return path
    there = ", ".join(map(str, steps.values())) or "none"
    raise FileNotFoundError(f"no checkpoint of step {step} in {printable(folder)}; there are: {there}")


def set_aside_newer(checkpoint: Checkpoint, chosen: bool = False) -> None:
    """Renames the checkpoints of later steps, which a run that goes on from this one would take for newer.

    Args:
        chosen: whether this one was asked for; otherwise the later ones are damaged.
    """
    files = checkpoint_files(checkpoint.path.parent)
    for later in files[files.index(checkpoint.path) + 1 :]:
        later.rename(later.with_name(later.name + (SET_ASIDE if chosen else DAMAGED)))


def restore(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's state into a recipe built from the same configuration.

    Raises:
        ValueError: the checkpoint's networks or optimizers do not fit the configuration.
    """
    recipe.state = dict(checkpoint.state)
    try:
        for kind, names, found in (
            ("network", recipe.networks, checkpoint.networks),
            ("optimizer", recipe.optimizers, checkpoint.optimizers),
        ):
            if missing := names.keys() - found.keys():
                raise ValueError(f"it has no {kind} {min(missing)!r}")
        for name, module in recipe.networks.items():
            module.load_state_dict(checkpoint.network(name))
        for name, module in recipe.averages.items():
            module.load_state_dict(checkpoint.trained(name))
        for index, ema in enumerate(recipe.emas):
            # A run that kept no average until now begins one that remembers nothing but the networks.
            kept = checkpoint.emas.get(str(index))
            ema.updates.copy_(kept["updates"] if kept else torch.tensor(checkpoint.step))
        for name, optimizer in recipe.optimizers.items():
            load_optimizer(name, optimizer, checkpoint.optimizers[name])
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{printable(checkpoint.path)} does not fit this configuration: {error}") from error
