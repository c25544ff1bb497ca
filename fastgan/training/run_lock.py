"""The lock of a run's folder, see :mod:`fastgan._folder_lock`, and the torchrun job that began the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastgan._folder_lock import FolderInUse, FolderLock, Holder, acquire
from fastgan._names import printable
from fastgan.training.processes.children import AT_LEAVING
from fastgan.training.processes.world import restarts, torchrun_job
from fastgan.training.run_folder import remove_unused


class RunLock(FolderLock):
    """The lock of a run that is held; made by :func:`run_lock`."""

    advice = "wait for it, stop it, or give this run another --exp_name"
    end = "this run ends"
    restarts_own_run = False
    """Whether this is a torchrun restart of the run that the same job began in the folder."""

    def _follow(self, before: Holder | None) -> None:
        self._job = torchrun_job()
        began_here = before is not None and before.job is not None and before.job == self._job
        self.restarts_own_run = began_here and restarts() > 0
        # A process that ends before `begin`, as while loading, leaves the run to restarts of the job that
        # began it, but not to its own restarts if it is a new job of the same name.
        if before is not None and (self.restarts_own_run or not began_here):
            self.holder.job = before.job

    def begin(self) -> None:
        """Records that the run in this folder is this process's from now on."""
        self.holder.job = self._job
        self.keep()
        self.check()
        self._write()


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Locks a run's folder, which is created if missing, and removed if nothing was written to it.

    Raises:
        FolderInUse: another process holds it; the message names it.
        OSError: the folder cannot be written.
    """
    created = not folder.exists()
    try:
        lock = acquire(folder, RunLock)
    except FolderInUse:
        raise
    except OSError as error:
        raise OSError(f"the run's folder {printable(folder)} cannot be written: {error}") from error
    lock.touch_regularly()
    AT_LEAVING.append(lock.let_go)
    try:
        yield lock
    finally:
        AT_LEAVING.remove(lock.let_go)
        lock.stop_touching()
        # Without the kernel's lock, or in another folder of that name, another run might lose its lock.
        if lock.is_kernels and lock.is_in_place():
            remove_unused(folder, created)
        lock.release()
