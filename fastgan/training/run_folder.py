"""The folder of a run: runs/NAME with config.yaml, metrics.csv, samples/, checkpoints/, report.html."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

from fastgan.training.config import TrainingConfig, write_config

# Room for the first checkpoints and logs; a run that starts with less would stop in its middle.
NEEDED_BYTES = 256 * 2**20


def prepare_run_folder(config: TrainingConfig) -> Path:
    """Creates the run's folder and checks, before anything is computed, that it can be written.

    Raises:
        FileExistsError: it holds another run and `resume` is not set.
        OSError: it cannot be written, or the disk is almost full.
    """
    folder = config.folder
    if (folder / "metrics.csv").exists() and not config.resume:
        raise FileExistsError(
            f"{folder} already holds a run: continue it with --resume true, "
            "or give this one another --exp_name"
        )
    try:
        for part in (folder / "checkpoints", folder / "samples"):
            part.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_bytes(os.urandom(1024))
        probe.unlink()
    except OSError as error:
        raise OSError(f"the run's folder {folder} cannot be written: {error}") from error
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise OSError(
            f"only {free / 2**20:.0f} MiB are free for {folder}; "
            f"a run needs at least {NEEDED_BYTES / 2**20:.0f} MiB"
        )
    write_config(config, folder / "config.yaml")
    return folder


def drop_rows_after(path: Path, step: int) -> None:
    """Removes rows of steps that a resumed run will do again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= step]
    temporary = path.with_name(path.name + ".incomplete")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows(kept)
    os.replace(temporary, path)
