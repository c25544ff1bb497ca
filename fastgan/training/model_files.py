"""Files of trained networks for use: model.safetensors, with the configuration inside."""

from __future__ import annotations

import dataclasses
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import fastgan
from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.training.checkpoint import FORMATS as CHECKPOINTS
from fastgan.training.checkpoint import NoneIntact, load_checkpoint, read_weights, write_weights
from fastgan.training.checkpoint_content import Checkpoint, read_json
from fastgan.training.config import TrainingConfig, to_plain
from fastgan.training.finite import first_non_finite

FILE_NAME = "model.safetensors"
OLDER_NAME = "generator.safetensors"  # dcgan's, of earlier versions: its only network's keys without its name
FORMAT = "fastgan-model-1"
FORMATS = FORMAT.rstrip("0123456789")
# Options that name a place of the machine of the training, and mean nothing on another.
LOCAL_OPTIONS = ("runs_path", "train_path", "val_path", "vae")
READERS = {".pt2": "torch.export.load", ".onnx": "onnxruntime.InferenceSession"}


@dataclass
class Saved:
    """Trained networks in memory, on the CPU, of a checkpoint or of a model's file."""

    path: Path
    recipe: str
    config: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    """What else the file has for its model, see `Recipe.about_for_use`."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    def weights(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The weights of the networks of these names, by NETWORK.KEY; averaged ones if the run kept them.

        Raises:
            ValueError: a checkpoint without one of the networks.
        """
        if self.checkpoint is not None:
            trained = {name: self.checkpoint.trained(name) for name in names}
            return {f"{name}.{key}": w for name, weights in trained.items() for key, w in weights.items()}
        prefixes = tuple(f"{name}." for name in names)
        if len(names) == 1 and not any(key.startswith(prefixes) for key in self.tensors):
            return {f"{names[0]}.{key}": weights for key, weights in self.tensors.items()}
        return dict(self.tensors)

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run whose checkpoint it is; None for a model's file."""
        if self.checkpoint is None:
            return None
        # A link to a checkpoint is followed, but not one in the place of the folder of checkpoints.
        file = os.path.realpath(self.path) if self.path.is_symlink() else os.path.abspath(self.path)
        return Path(file).parent.parent


def write_model(
    path: Path, recipe: str, config: TrainingConfig, weights: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Writes trained networks for use.

    Args:
        recipe: its name.
        weights: by NETWORK.KEY.
        about: what else its model needs, as JSON.

    Raises:
        OSError: it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "recipe": recipe,
        "config": json.dumps(to_plain(config)),
        "about": json.dumps(about, ensure_ascii=False),
        "fastgan": fastgan.__version__,
        "torch": torch.__version__,
    }
    write_weights(path, weights, metadata)


def without_places(config: TrainingConfig) -> TrainingConfig:
    """The configuration with LOCAL_OPTIONS at their defaults, for files that leave the machine."""
    fields = dataclasses.fields(config)
    defaults: dict[str, Any] = {f.name: f.default for f in fields if f.name in LOCAL_OPTIONS}
    return dataclasses.replace(config, **defaults)


def read_saved(path: str | Path, recipe: str | None = None) -> Saved:
    """Reads trained networks.

    Args:
        path: a run's folder, whose newest intact checkpoint counts, or else its model.safetensors, with a
            RuntimeWarning if there are checkpoints; or a checkpoint, or a model's file.
        recipe: the recipe that they must be of; None: any.

    Raises:
        FileNotFoundError: there is nothing of the kind.
        OSError: a file cannot be read.
        TypeError: `path` is no path.
        ValueError: a file that is damaged, of another kind, or of another recipe.
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path must be a str or a Path, got {reprlib.repr(path)}")
    path = Path(path)
    if path.is_file():
        saved = _read_file(path, recipe)
    else:
        try:
            saved = _of_checkpoint(load_checkpoint(path, recipe))
        except (FileNotFoundError, NoneIntact) as error:
            files = [path / name for name in (FILE_NAME, OLDER_NAME) if (path / name).is_file()]
            if not files:
                raise
            saved = _read_file(files[0], recipe)
            if isinstance(error, NoneIntact):
                warn(f"{error}. The run's {printable(files[0])} is taken", RuntimeWarning)
    if recipe is not None and saved.recipe != recipe:
        raise ValueError(
            f"{printable(saved.path)} is a model of the recipe {reprlib.repr(saved.recipe)}, "
            f"not of {recipe!r}"
        )
    return saved


def _read_file(path: Path, recipe: str | None) -> Saved:
    if reader := READERS.get(path.suffix.lower()):
        raise ValueError(
            f"{printable(path)} is for {reader}: give a run's folder, a checkpoint, or what `fastgan export "
            "--format safetensors` wrote"
        )
    metadata = _metadata(path)
    format_name = metadata.get("format", "")
    if format_name.startswith(CHECKPOINTS) or (format_name == "" and "recipe" not in metadata):
        return _of_checkpoint(load_checkpoint(path, recipe))  # which tells what else it is
    if format_name and format_name != FORMAT:
        known = (
            "is of another version of fastgan"
            if format_name.startswith(FORMATS)
            else "is no model of fastgan"
        )
        raise ValueError(
            f"{printable(path)} {known}: its format is {reprlib.repr(format_name)}, not {FORMAT!r}"
        )
    metadata, tensors = read_weights(path)
    if name := first_non_finite(tensors):
        raise ValueError(f"{printable(path)} is of no use: {printable(name)} is NaN or infinite")
    try:
        if "recipe" not in metadata:
            raise ValueError("its metadata has no 'recipe'")
        about = read_json(metadata, "about") if "about" in metadata else {}
        return Saved(path, metadata["recipe"], read_json(metadata, "config"), about, tensors)
    except ValueError as error:
        raise ValueError(f"{printable(path)} is not complete: {error}") from error


def _of_checkpoint(checkpoint: Checkpoint) -> Saved:
    return Saved(checkpoint.path, checkpoint.recipe, checkpoint.config, checkpoint=checkpoint)


def _metadata(path: Path) -> dict[str, str]:
    """A file's metadata; {} for one that is no safetensors file, of which reading it says what is wrong."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
