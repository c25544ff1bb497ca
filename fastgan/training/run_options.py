"""The options of a run that is there, which count where a resumed run is given none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fastgan._warnings import warn
from fastgan.training.checkpoint_files import checkpoint_files
from fastgan.training.names import printable
from fastgan.training.yaml_files import parse_options, read_options

# Of the start, not of the run.
OF_THE_START = ("exp_name", "runs_path", "resume", "checkpoint")


def options_of_run(folder: Path, config_class: type, recipe: str = "") -> tuple[Path, dict[str, Any]] | None:
    """The options in a run's config.yaml, or, where that is missing, in its newest checkpoint; and which.

    Names that the configuration does not have, as of another version, are left out with a RuntimeWarning.
    None: the folder holds no checkpoint, and so no run to go on with.

    Args:
        recipe: whose run it must be.

    Raises:
        ValueError: config.yaml holds no options; or a run of another recipe.
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
    return path, {n: value for n, value in options.items() if n in known and n not in OF_THE_START}


def recipe_of_run(folder: Path) -> str:
    """The name of the recipe whose run is in a folder.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: none that tells a recipe.
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
    """Nothing of a damaged file, which is not what goes on."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
