"""The folder of a run: runs/NAME with config.yaml, metrics.csv, samples/, checkpoints/, report.html."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from pathlib import Path

from fastgan.training.checkpoint_files import DAMAGED, checkpoint_files
from fastgan.training.config import Resume, TrainingConfig, to_plain, write_config
from fastgan.training.files import replacing
from fastgan.training.names import printable
from fastgan.training.run_files import read_rows
from fastgan.training.run_options import OF_THE_START
from fastgan.training.yaml_files import read_options

LOCK = ".lock"
PARTS = ("checkpoints", "samples")
# Room for the first checkpoints and logs; a run that starts with less would stop in its middle.
NEEDED_BYTES = 256 * 2**20
TABLES = ("metrics.csv", "evaluation.csv", "warnings.csv")
# What else a run makes in its folder: TensorBoard's files, the report, weights for use.
MADE = ("config.yaml", "report.html", "events.out.tfevents*", "generator.safetensors", "samples")
# Of these, what the user may have put there before the run, and a run writes over.
OVERWRITTEN = ("config.yaml", "report.html", "generator.safetensors")
# What is left there of files that were being written.
TORN = (
    "config.yaml.incomplete", *(f"{table}.incomplete" for table in TABLES), "report.html.incomplete",
    "generator.safetensors.incomplete", "checkpoints/step-*.incomplete", "samples/step-*.incomplete*",
    "samples/rows.txt.incomplete",
)  # fmt: skip


def prepare_run_folder(config: TrainingConfig, resume: Resume) -> None:
    """Creates the run's folder and checks, before anything is computed, that it can be written.

    Args:
        resume: as the option of that name; with "auto", any folder will do.

    Raises:
        FileExistsError: `resume` is false, and it holds another run, or files of no run that this one would
            write over, such as a config.yaml with other options than its own.
        FileNotFoundError: it holds no checkpoint and `resume` is true.
        OSError: it cannot be written, a part of it is a link, or the disk is almost full.
    """
    folder = config.folder
    shown = printable(folder)
    parts = [folder / part for part in PARTS]
    for part in parts:
        if part.is_symlink():
            raise OSError(
                f"{printable(part)} is a link, and a run writes nothing outside its folder: put a folder in "
                "its place, or all runs elsewhere with --runs_path"
            )
    has_checkpoint = bool(checkpoint_files(folder / "checkpoints"))
    if resume is False and ((folder / "metrics.csv").exists() or has_checkpoint):
        raise FileExistsError(
            f"{shown} already holds a run: continue it with --resume {'true' if has_checkpoint else 'auto'}"
            ", or give this one another --exp_name"
        )
    if resume is False and (names := _of_no_run(config)):
        use = ", and give it by --config if its options are to count" if "config.yaml" in names else ""
        raise FileExistsError(
            f"{printable(folder / names[0])} is of no run that could be continued, and this one would write "
            f"over it: move it elsewhere{use}; or start with --resume auto, which keeps it aside"
        )
    if resume is True and not has_checkpoint:
        raise FileNotFoundError(
            f"{shown} holds no checkpoint to continue from; --resume auto starts anew where there is none"
        )
    try:
        for part in parts:
            part.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.unlink(missing_ok=True)
        with probe.open("xb") as file:
            file.write(os.urandom(1024))
        probe.unlink()
    except OSError as error:
        raise OSError(f"the run's folder {shown} cannot be written: {error}") from error
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise OSError(
            f"only {free / 2**20:.0f} MiB are free for {shown}; "
            f"a run needs at least {NEEDED_BYTES / 2**20:.0f} MiB"
        )


def _of_no_run(config: TrainingConfig) -> list[str]:
    """Which of OVERWRITTEN are there and of no run.

    A config.yaml of the run's own options was left by a start that was killed, and all of them beside samples
    by a run whose tables and checkpoints are gone.
    """
    if any((config.folder / "samples").glob("step-*.png")):
        return []
    there = [name for name in OVERWRITTEN if (config.folder / name).exists()]
    if "config.yaml" in there:
        try:
            options = read_options(config.folder / "config.yaml")
        except (OSError, ValueError):
            return there
        own = to_plain(config)
        if all(options.get(name) == own[name] for name in own if name not in OF_THE_START):
            there.remove("config.yaml")
    return there


def take_over(config: TrainingConfig, folder: Path, start: int | None) -> str | None:
    """Makes the folder that of a run which goes on after `start` steps, or which begins (None).

    Rows of steps that will be done again are removed, and what a process was writing when it was killed. What
    a run wrote that left no checkpoint is kept in a folder of its own; returns what to tell the user of it.
    """
    remove_incomplete(folder)
    if start is not None:
        write_config(config, folder / "config.yaml")
        for table in TABLES:
            drop_rows_after(folder / table, start)
        return None
    left = [table for table in TABLES if (folder / table).exists()]
    # Else no run's: what lies here is the user's, and stays unless it would be written over.
    if not left and not any((folder / "samples").glob("step-*.png")) and not _of_no_run(config):
        write_config(config, folder / "config.yaml")
        return None
    left += [path.name for kind in MADE for path in folder.glob(kind)]
    number = 1
    while (aside := folder / f"without-checkpoint-{number}").exists():
        number += 1
    aside.mkdir()
    for name in left:
        (folder / name).rename(aside / name)
    (folder / "samples").mkdir(exist_ok=True)
    write_config(config, folder / "config.yaml")
    return (
        f"no checkpoint in {printable(folder)}: started anew; what was written before is kept in "
        f"{printable(aside)}"
    )


def remove_unused(folder: Path, folder_too: bool) -> None:
    """Removes what a start that failed has made in a run's folder; nothing where there is anything else.

    Args:
        folder_too: and the folder itself, and that of all runs if it holds nothing else.
    """
    with contextlib.suppress(OSError):
        parts = [folder / part for part in PARTS]
        if {path.name for path in folder.iterdir()} - {LOCK, *PARTS} or any(
            part.is_symlink() or (part.is_dir() and any(part.iterdir())) for part in parts
        ):
            return
        for part in parts:
            if part.is_dir():
                part.rmdir()
        (folder / LOCK).unlink(missing_ok=True)
        if folder_too:
            folder.rmdir()
            folder.parent.rmdir()


def remove_incomplete(folder: Path) -> None:
    """Removes what processes that were killed have left half written; only the holder of the lock may."""
    for pattern in TORN:
        for torn in folder.glob(pattern):
            if torn.is_dir() and not torn.is_symlink():
                shutil.rmtree(torn, ignore_errors=True)
            else:
                torn.unlink()


def drop_rows_after(path: Path, step: int) -> None:
    """Removes rows of steps that a resumed run will do again, and a last one that was cut off."""
    if not path.exists():
        path.unlink(missing_ok=True)  # a link to nothing
        return
    header, *rows = read_rows(path) or [[]]
    if "step" not in header:  # killed within its first line, or damaged
        path.replace(path.with_name(path.name + DAMAGED))
        return
    kept = [header, *(row for row in rows if _is_of_step_until(step, row, len(header)))]
    with replacing(path) as file:
        csv.writer(file).writerows(kept)


def _is_of_step_until(step: int, row: list[str], columns: int) -> bool:
    whole = len(row) == columns and row[0].isdecimal() and len(row[0]) < 19
    return whole and int(row[0]) <= step
