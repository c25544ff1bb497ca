"""The lock of a run's folder: one run writes there, and who it is stands in the lock.

The kernel's lock (`flock`) decides, where the file system has it: it ends with its process, however that
ends. On shared disks it may be missing, or not reach other machines. There the lock's text decides: it names
machine, process and start, and the holder touches the file from time to time, so that whoever waits sees
whether it lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fastgan.training.names import printable
from fastgan.training.world import restarts, torchrun_job

NAME = ".lock"
# Seconds between the holder's touches, and without one until a holder on another machine counts as dead.
# Longer than file systems keep the times of files in their caches (NFS: a minute).
HEARTBEAT, PATIENCE = 10.0, 90.0
# What file systems without locks answer.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class RunInUse(OSError):
    """Another process writes to the run's folder."""


@dataclass
class Holder:
    """What a lock says of the process that took it last."""

    pid: int
    host: str
    since: str
    ticks: int = 0
    """When the process started, in ticks since the machine did: another one may have its number by now."""
    held: bool = True
    job: str | None = None
    """torchrun's, see :func:`fastgan.training.world.torchrun_job`."""
    begun: bool = False
    """Whether the process was let into the folder: it began or continued the run there, or restarts it."""

    def __str__(self) -> str:
        return printable(f"process {self.pid} on host {self.host} since {self.since}")


class RunLock:
    """A taken lock; :func:`run_lock` makes it."""

    def __init__(self, descriptor: int, before: Holder | None) -> None:
        self._descriptor = descriptor
        self.holder = Holder(
            os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"), _ticks(os.getpid()),
            job=torchrun_job(),
        )  # fmt: skip
        same_job = before is not None and before.begun and before.job is not None
        self.restarts_own_run = restarts() > 0 and same_job and before.job == self.holder.job  # type: ignore[union-attr]
        """Whether torchrun starts again what this very job began in the folder."""
        # One that ends before it begins, as while it loads, leaves the run to the restart that follows.
        self.holder.begun = self.restarts_own_run
        self._write()

    def begin(self) -> None:
        """Notes that the run in this folder is this process's from now on."""
        self.holder.begun = True
        self._write()

    def touch(self) -> None:
        os.utime(self._descriptor)

    def release(self) -> None:
        self.holder.held = False
        with contextlib.suppress(OSError):  # a full disk: a lock that nobody holds is stale all the same
            self._write()
        os.close(self._descriptor)

    def _write(self) -> None:
        text = json.dumps(asdict(self.holder)).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Holds a run's folder, which is created if it is not there.

    Raises:
        RunInUse: another process holds it; the message names it.
        OSError: the folder cannot be written.
    """
    try:
        lock = _take(folder)
    except RunInUse:
        raise
    except OSError as error:
        raise OSError(f"the run's folder {printable(folder)} cannot be written: {error}") from error
    over = threading.Event()
    heart = threading.Thread(target=_keep_touching, args=(lock, over), name="fastgan-lock", daemon=True)
    heart.start()
    try:
        yield lock
    finally:
        over.set()
        heart.join()
        lock.release()


def _take(folder: Path) -> RunLock:
    folder.mkdir(parents=True, exist_ok=True)
    # A link out of the folder is refused.
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        return RunLock(descriptor, _last_holder(folder, descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _last_holder(folder: Path, descriptor: int) -> Holder | None:
    """Who held the folder before, once it is sure that it holds it no more."""
    path = folder / NAME
    has_locks = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read(path)
        by = str(holder) if holder and holder.held else "another process"
        raise RunInUse(_in_use(folder, by)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        has_locks = False
    holder = _read(path)
    if holder is None or not holder.held:
        return holder
    if holder.host == socket.gethostname():
        alive = not has_locks and _ticks(holder.pid) == holder.ticks
    else:
        alive = _is_touched(path, holder)
    if alive:
        hint = f" (if there is no such process, delete {printable(path)})"
        raise RunInUse(_in_use(folder, str(holder)) + hint)
    return holder


def _in_use(folder: Path, by: str) -> str:
    return f"{printable(folder)} is in use by {by}: wait for it, stop it, or give this run another --exp_name"


def _is_touched(path: Path, holder: Holder) -> bool:
    """Whether a process on another machine still touches its lock; takes a while if it does not."""
    seen = path.stat().st_mtime_ns
    print(
        f"{printable(path.parent)} was held by {holder}: waiting up to {PATIENCE:.0f} s for a sign of life",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, HEARTBEAT))
        with path.open("rb") as fresh:  # NFS asks its server at every opening
            if os.fstat(fresh.fileno()).st_mtime_ns != seen:
                return True
    return False


def _keep_touching(lock: RunLock, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            lock.touch()


def _read(path: Path) -> Holder | None:
    """What the lock says; None if that is nothing, or cut off."""
    try:
        said = json.loads(path.read_bytes())
        return Holder(**{field.name: said[field.name] for field in fields(Holder)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _ticks(pid: int) -> int:
    """When a process started; -1 if there is none, 0 where only that it is there can be known."""
    try:
        # After the name, which may hold anything, in parentheses.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return -1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0
