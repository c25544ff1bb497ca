"""Checkpoints: one safetensors file with everything a run needs to go on, and no pickle.

Tensors are named `networks/NAME/KEY`, `averages/NAME/KEY`, `emas/INDEX/updates` and
`optimizers/NAME/INDEX/KEY`; the metadata holds recipe, configuration, step and the optimizers'
param_groups as JSON. Only a finite state is saved, and a file appears under its final name only when it is
complete (weights.py); checksums detect later damage.
"""

from __future__ import annotations

import json
import math
import reprlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import fastgan
from fastgan._files import DAMAGED
from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.training.checkpoint_content import Checkpoint, load_optimizer, read_content
from fastgan.training.checkpoint_files import SET_ASIDE, checkpoint_files, checkpoint_path, steps_of
from fastgan.training.config import to_plain
from fastgan.training.finite import first_non_finite
from fastgan.training.processes.runtime import ProcessFailed
from fastgan.training.weights import INCOMPLETE, check_dtypes, read_tensors, write_weights
from fastgan.training.weights import read_weights as read_weights

if TYPE_CHECKING:
    from fastgan.training.recipe import Recipe

FORMAT = "fastgan-checkpoint-1"
FORMATS = FORMAT.rstrip("0123456789")  # the prefix of this format, older and newer ones


class OtherFormat(ValueError):
    """An intact checkpoint in the format of another version of fastgan."""


class NoneIntact(ValueError):
    """A folder all of whose checkpoints are damaged; the message names each."""


# --- saving -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What a checkpoint holds, as it was after a step."""

    step: int
    tensors: Mapping[str, Tensor]
    """By their names in the checkpoint."""
    numbers: Mapping[str, float]
    """`Recipe.state`."""
    metadata: dict[str, str]


def state_of(recipe: Recipe, step: int) -> State:
    """A recipe's state after `step` steps; its tensors are on their devices, not copied."""
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
    return State(step, state_tensors(recipe), dict(recipe.state), metadata)


def write_checkpoint(state: State, folder: Path, keep: int) -> Path:
    """Writes a checkpoint, and only then removes all but the newest `keep` ones up to it.

    Raises:
        FloatingPointError: the state is not finite; nothing is written, and nothing is removed.
        OSError: the file cannot be written; nothing is left under its final name.
    """
    # The loop has checked already, in all processes; this covers other callers.
    if name := _first_non_finite(state.tensors, state.numbers):
        newest = next(reversed(checkpoint_files(folder)), None)
        raise FloatingPointError(_describe_non_finite(name, state.step, newest))
    path = checkpoint_path(folder, state.step)
    write_weights(path, state.tensors, state.metadata)
    files = checkpoint_files(folder)
    for old in files[: files.index(path) + 1][:-keep]:
        old.unlink()
    for leftover in folder.glob(f"step-*{INCOMPLETE}"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    return path


def check_finite_state(recipe: Recipe, step: int, newest: Callable[[], Path | None]) -> None:
    """Raises in all processes, all of which must call it, if the state of any of them is not finite.

    Args:
        step: steps done.
        newest: returns the newest checkpoint, if there is one; the message names it.

    Raises:
        FloatingPointError: in the processes whose state is not finite; the message names the first value.
        ProcessFailed: in the others.
    """
    name = _first_non_finite(state_tensors(recipe), recipe.state)
    if recipe.runtime.any(name is not None):
        last = recipe.runtime.broadcast_object(newest())  # of the machine that has the folder
        if name is None:
            raise ProcessFailed(f"the state of another process became NaN or infinite by step {step}")
        raise FloatingPointError(_describe_non_finite(name, step, last))


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


def _first_non_finite(tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> str | None:
    name = first_non_finite(tensors)
    return name or next((f"state/{n}" for n, value in numbers.items() if not math.isfinite(value)), None)


def _describe_non_finite(name: str, step: int, newest: Path | None) -> str:
    last = f"the last finite checkpoint is {printable(newest)}" if newest else "there is no checkpoint yet"
    return (
        f"{name} became NaN or infinite by step {step}, which is not saved; {last}. Lower the learning "
        "rates, or look at the terms in metrics.csv to see which grew first"
    )


# --- loading ----------------------------------------------------------------------------------------------


def load_checkpoint(path: str | Path, recipe: str | None = None) -> Checkpoint:
    """Reads a checkpoint file, or the newest intact one in a run's folder.

    A damaged one in a folder is skipped with a RuntimeWarning that names it and says what is wrong.

    Args:
        path: a file, a run's folder, or its checkpoints folder.
        recipe: the recipe that it must be of; None: any.

    Raises:
        FileNotFoundError: there is no checkpoint.
        OSError: a file cannot be read, whatever its content.
        ValueError: an incomplete checkpoint, or one of another recipe or format; a folder without a complete
            one, for which it is a :class:`NoneIntact`.
    """
    path = Path(path)
    checkpoint = _read_file(path) if path.is_file() else _newest(path)
    if recipe is not None and checkpoint.recipe != recipe:
        raise ValueError(
            f"{printable(checkpoint.path)} is a checkpoint of the recipe {reprlib.repr(checkpoint.recipe)}, "
            f"not of {recipe!r}"
        )
    return checkpoint


def _newest(path: Path) -> Checkpoint:
    while True:
        files = checkpoint_files(path) or checkpoint_files(path / "checkpoints")
        if not files:
            raise FileNotFoundError(f"no checkpoint at {printable(path)}")
        try:
            return _newest_intact(files)
        except OSError:
            if all(file.exists() for file in files):
                raise
            # A run that is going on has removed one since, after writing a newer one.


def _newest_intact(files: list[Path]) -> Checkpoint:
    problems: list[str] = []
    for file in reversed(files):
        try:
            checkpoint = _read_file(file)
            if checkpoint.step != int(file.stem.rpartition("-")[2]):
                # By its name it would stay the newest, whatever is saved later.
                raise ValueError(f"{printable(file)} is of step {checkpoint.step}, not of that in its name")
        except OtherFormat:
            raise
        except ValueError as error:
            problems.append(str(error))
            continue
        if problems:
            warn(f"{'; '.join(problems)}. The older checkpoint {printable(file)} is taken", RuntimeWarning)
        return checkpoint
    raise NoneIntact(
        f"none of {len(files)} checkpoints in {printable(files[0].parent)} can be used: {'; '.join(problems)}"
    )


def _read_file(path: Path) -> Checkpoint:
    metadata, tensors = read_tensors(path, "checkpoint")
    format_name = metadata.get("format", "")
    if format_name != FORMAT and format_name.startswith(FORMATS):
        raise OtherFormat(
            f"{printable(path)} has the format {reprlib.repr(format_name)}, which this version of fastgan, "
            f"{fastgan.__version__}, does not know: it reads {FORMAT!r}"
        )
    if format_name != FORMAT:
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
        FileNotFoundError: there is none; the message lists the steps of those that exist.
    """
    steps = steps_of(folder)
    for path, saved_step in steps.items():
        if saved_step == step:
            return path
    available = ", ".join(map(str, steps.values())) or "none"
    raise FileNotFoundError(f"no checkpoint of step {step} in {printable(folder)}; there are: {available}")


def set_aside_newer(checkpoint: Checkpoint, chosen: bool = False) -> None:
    """Renames the checkpoints of later steps, so that a run resumed from this one ignores them.

    Args:
        chosen: whether the user asked for this one; otherwise the later ones are damaged.
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
        for kind, expected, saved in (
            ("network", recipe.networks, checkpoint.networks),
            ("optimizer", recipe.optimizers, checkpoint.optimizers),
        ):
            if missing := expected.keys() - saved.keys():
                raise ValueError(f"it has no {kind} {min(missing)!r}")
        for name, module in recipe.networks.items():
            module.load_state_dict(checkpoint.network(name))
        for name, module in recipe.averages.items():
            module.load_state_dict(checkpoint.trained(name))
        for index, ema in enumerate(recipe.emas):
            # Where the checkpoint has no average, a new one starts from its networks.
            saved_ema = checkpoint.emas.get(str(index))
            ema.updates.copy_(saved_ema["updates"] if saved_ema else torch.tensor(checkpoint.step))
        for name, optimizer in recipe.optimizers.items():
            load_optimizer(name, optimizer, checkpoint.optimizers[name])
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{printable(checkpoint.path)} does not fit this configuration: {error}") from error
