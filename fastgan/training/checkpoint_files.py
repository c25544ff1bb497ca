"""The names of a run's checkpoints."""

from __future__ import annotations

import os
import re
from pathlib import Path

FILE_NAME = re.compile(r"step-([0-9]+)\.safetensors")
SET_ASIDE = ".set-aside"
"""Suffix of files that are kept, but that no run resumes from."""


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, by step, the newest last; empty if there is no such folder.

    Raises:
        OSError: the folder cannot be read.
    """
    return list(steps_of(folder))


def steps_of(folder: Path) -> dict[Path, int]:
    """The checkpoints in a folder with their steps, see :func:`checkpoint_files`."""
    try:
        names = os.listdir(folder)  # raises if it cannot be read, where a glob would find nothing
    except (FileNotFoundError, NotADirectoryError):
        return {}
    matches = ((FILE_NAME.fullmatch(name), folder / name) for name in names)
    steps = {path: int(match[1]) for match, path in matches if match and path.is_file()}
    return dict(sorted(steps.items(), key=lambda item: item[1]))
