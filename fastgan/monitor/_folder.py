"""The folder of a monitor: metrics.csv and facts.json, which one monitor at a time writes."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from fastgan._folder_lock import FolderInUse, FolderLock, acquire
from fastgan._names import printable
from fastgan._tables import CsvTable, drop_rows_after, read_rows, rows_of
from fastgan.monitor.facts import FACTS, Facts, read_facts, write_facts

TABLE = "metrics.csv"


class MonitorLock(FolderLock):
    """The lock of a monitor's folder."""

    advice = (
        "close() the Monitor that has it, or end that run, or give this one another folder (of several "
        "processes of a training, the first alone writes, if torch.distributed is initialized before)"
    )
    end = "this monitor writes no more"


class MonitorFolder:
    """What a folder holds, and, in the process that writes there, its lock.

    Args:
        facts: replace those in the folder; None: they are read.
        writes: whether this process writes. Others only read.

    Attributes:
        facts: those of the folder, or None if there are none.
        rows: those of metrics.csv, by step.

    Raises:
        FileExistsError: metrics.csv is of another program; nothing in the folder is changed.
        FolderInUse, OSError, ValueError: see :class:`fastgan.monitor.Monitor`.
    """

    def __init__(self, path: Path, facts: Facts | None, writes: bool) -> None:
        self.path = path
        _check_is_ours(path)
        self._lock = _locked(path) if writes else None
        # Also at the end of the process, and once nothing refers to this any more.
        self._release = weakref.finalize(self, self._lock.release) if self._lock else None
        try:
            kept = read_facts(path)
            self.facts = facts or kept
            has_line = (path / TABLE).exists() and b"\n" in (path / TABLE).read_bytes()
            self.rows = rows_of(path / TABLE) if has_line else []
            if writes:
                self._table = CsvTable(path.absolute() / TABLE)  # wherever the process works later
                if facts or not kept:
                    write_facts(path, facts or Facts())
        except BaseException:
            self.close()
            raise

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row, if this process writes.

        Raises:
            FolderInUse: this process was forked from the one that writes, the folder was removed, or another
                process has taken it, which is possible where a disk has no locks.
        """
        if self._lock:
            self._lock.check()
            self._table.write(step, row)

    def drop_rows_from(self, step: int) -> None:
        """Removes the rows from this step on, if this process writes."""
        if self._lock:
            self._lock.check()
            drop_rows_after(self._table.path, step - 1)

    def close(self) -> None:
        """Lets others write to the folder."""
        if self._release:
            self._release()


def _locked(path: Path) -> MonitorLock:
    try:
        lock = acquire(path, MonitorLock)
    except FolderInUse:
        gc.collect()  # a monitor in a cycle, which nobody can use any more, may hold it
        lock = acquire(path, MonitorLock)
    lock.touch_regularly()
    return lock


def _check_is_ours(folder: Path) -> None:
    """Raises FileExistsError for a metrics.csv that no monitor and no run of fastgan has written.

    Theirs begin with the column "step" and have facts.json beside them, or, in older runs, config.yaml or
    checkpoints.
    """
    path = folder / TABLE
    if not path.exists():
        return
    first = read_rows(path)[:1] or [[]]
    if b"\n" not in path.read_bytes():  # killed within the first line
        text = path.read_bytes()[:5]
        problem = "" if b"step,".startswith(text) else "does not begin with the column 'step'"
    elif first[0][:1] != ["step"]:
        problem = f"begins with the column {', '.join(first[0][:1])!r}, not 'step'"
    elif not any((folder / name).exists() for name in (FACTS, "config.yaml", "checkpoints")):
        problem = f"has no {FACTS} beside it"
    else:
        return
    if problem:
        raise FileExistsError(
            f"{printable(path)} is of another program, since it {printable(problem)}: give the monitor "
            "another folder; this one is as it was"
        )
