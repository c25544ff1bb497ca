"""The folder of a run: runs/NAME with config.yaml, metrics.csv, samples/, checkpoints/, report.html."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from fastgan._folder_lock import NAME as LOCK
from fastgan._names import printable
from fastgan._tables import drop_rows_after
from fastgan.training.checkpoint_files import checkpoint_files
from fastgan.training.config import Resume, TrainingConfig, to_plain, write_config
from fastgan.training.model_files import FILE_NAME, OLDER_NAME
from fastgan.training.run_options import START_OPTIONS
from fastgan.training.yaml_files import read_options

PARTS = ("checkpoints", "samples")
# Enough for the first checkpoints and logs; with less, a run would fail midway.
NEEDED_BYTES = 256 * 2**20
TABLES = ("metrics.csv", "evaluation.csv", "warnings.csv")
# What else a run writes to its folder: TensorBoard's files, the report, weights for use.
OUTPUTS = (
    "config.yaml", "facts.json", "report.html", "events.out.tfevents*", FILE_NAME, OLDER_NAME, "samples"
)  # fmt: skip
# Those of them that a user may have put there before the run, and that a run overwrites.
OVERWRITTEN = ("config.yaml", "facts.json", "report.html", FILE_NAME)
# Remains of files that were being written when a process was killed.
TORN = (
    "config.yaml.incomplete", "facts.json.incomplete", *(f"{table}.incomplete" for table in TABLES),
    "report.html.incomplete", f"{FILE_NAME}.incomplete", "checkpoints/step-*.incomplete",
    "samples/step-*.incomplete*", "samples/rows.txt.incomplete",
)  # fmt: skip


def prepare_run_folder(config: TrainingConfig, resume: Resume) -> None:
    """Creates the run's folder and checks, before anything is computed, that it can be written.

    Args:
        resume: as the option of that name; "auto" accepts any folder.

    Raises:
        FileExistsError: `resume` is false, and the folder holds another run, or files not of a run that this
            one would overwrite, such as a config.yaml with other options.
        FileNotFoundError: `resume` is true, and the folder holds no checkpoint.
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
    if resume is False and (names := _foreign_files(config)):
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


def _foreign_files(config: TrainingConfig) -> list[str]:
    """The existing files of OVERWRITTEN that do not come from a run.

    A config.yaml with this run's options comes from a start that was killed, as does facts.json beside it. If
    there are samples, all of the files come from a run whose tables and checkpoints are gone.
    """
    if any((config.folder / "samples").glob("step-*.png")):
        return []
    existing = [name for name in OVERWRITTEN if (config.folder / name).exists()]
    if "config.yaml" in existing:
        try:
            options = read_options(config.folder / "config.yaml")
        except (OSError, ValueError):
            return existing
        expected = to_plain(config)
        if all(options.get(name) == expected[name] for name in expected if name not in START_OPTIONS):
            existing = [name for name in existing if name not in ("config.yaml", "facts.json")]
    return existing


def take_over(config: TrainingConfig, folder: Path, start: int | None) -> str | None:
    """Prepares the folder for a run that resumes after `start` steps, or that begins (None).

    Rows of steps that will be repeated are removed, as are files that were incomplete when a process was
    killed. The files of a run that left no checkpoint are moved to a folder of their own; then a text that
    tells the user so is returned.
    """
    remove_incomplete(folder)
    if start is not None:
        write_config(config, folder / "config.yaml")
        for table in TABLES:
            drop_rows_after(folder / table, start)
        return None
    leftovers = [table for table in TABLES if (folder / table).exists()]
    # Without them the files are the user's, and stay unless they would be overwritten.
    if not leftovers and not any((folder / "samples").glob("step-*.png")) and not _foreign_files(config):
        write_config(config, folder / "config.yaml")
        return None
    leftovers += [path.name for pattern in OUTPUTS for path in folder.glob(pattern)]
    number = 1
    while (aside := folder / f"without-checkpoint-{number}").exists():
        number += 1
    aside.mkdir()
    for name in leftovers:
        (folder / name).rename(aside / name)
    (folder / "samples").mkdir(exist_ok=True)
    write_config(config, folder / "config.yaml")
    return (
        f"no checkpoint in {printable(folder)}: started anew; what was written before is kept in "
        f"{printable(aside)}"
    )


def remove_unused(folder: Path, folder_too: bool) -> None:
    """Removes what a failed start has created in a run's folder, unless the folder holds anything else.

    Args:
        folder_too: also remove the folder itself, and the folder of all runs if it is then empty.
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
    """Removes files that killed processes left incomplete; only the holder of the lock may call it."""
    for pattern in TORN:
        for torn in folder.glob(pattern):
            if torn.is_dir() and not torn.is_symlink():
                shutil.rmtree(torn, ignore_errors=True)
            else:
                torn.unlink()
