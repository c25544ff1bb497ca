"""The options of an existing run, the defaults when it is resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fastgan._names import printable
from fastgan._warnings import warn
from fastgan.training.checkpoint_files import checkpoint_files
from fastgan.training.yaml_files import parse_options, read_options

# Options of a start, not of the run.
START_OPTIONS = ("exp_name", "runs_path", "resume", "checkpoint")


def options_of_run(folder: Path, config_class: type, recipe: str = "") -> tuple[Path, dict[str, Any]] | None:
    """A run's options and their file: its config.yaml, or, if that is missing, its newest checkpoint.

    Unknown names, as those of another version, are left out with a RuntimeWarning. None: the folder holds no
    checkpoint, and therefore no run to resume.

    Args:
        recipe: the recipe that the run must be of; "": any.

    Raises:
        ValueError: config.yaml holds no options, or the run is of another recipe.
        OSError: it cannot be read.
    """
    files = checkpoint_files(folder / "checkpoints")
    if not files:
        return None
    recipes = [name for file in reversed(files) if (name := _metadata(file).get("recipe"))]
    if recipe and recipes and recipes[0] != recipe:
        raise ValueError(f"{printable(folder)} holds a run of the recipe {recipes[0]!r}, not of {recipe!r}")
    path = folder / "config.yaml"
    if path.exists():
        options = read_options(path)
    else:
        path = next((file for file in reversed(files) if "config" in _metadata(file)), files[-1])
        options = parse_options(_metadata(path).get("config", "{}").encode(), str(path))
    known = {field.name for field in dataclasses.fields(config_class)}
    if unknown := sorted(options.keys() - known):
        warn(
            f"{printable(path)} has options that are not known here: {printable(', '.join(unknown))}",
            RuntimeWarning,
        )
    return path, {n: value for n, value in options.items() if n in known and n not in START_OPTIONS}


def recipe_of_run(folder: Path) -> str:
    """The name of the recipe whose run is in a folder.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: no checkpoint names its recipe.
    """
    files = checkpoint_files(folder / "checkpoints")
    if not files:
        raise FileNotFoundError(
            f"no run to resume in {printable(folder)}: it must be a run's folder, with checkpoints/step-*"
        )
    for file in reversed(files):
        if name := _metadata(file).get("recipe"):
            return name
    raise ValueError(
        f"none of {len(files)} checkpoints in {printable(folder / 'checkpoints')} tells its recipe"
    )


def _metadata(path: Path) -> dict[str, str]:
    """A checkpoint's metadata; {} for a damaged file, which no run resumes from."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
