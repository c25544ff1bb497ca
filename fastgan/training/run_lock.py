"""The lock of a run's folder: one run writes there, and who it is stands in the lock.

The kernel's lock (`flock`) decides, where the file system has it: it ends with its process, however that
ends. On shared disks it may be missing, or not reach other machines. There the lock's text decides: it names
machine, process and start, and the holder touches the file from time to time, so that whoever waits sees
whether it lives. Of two that start at once the last to write has it; the other finds that out, at once or
at its next touch, and ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fastgan.training.names import printable
from fastgan.training.run_folder import LOCK as NAME
from fastgan.training.run_folder import remove_unused
from fastgan.training.world import AT_LEAVING, restarts, torchrun_job

# Seconds between the holder's touches, and without one until a holder on another machine counts as dead.
# Longer than file systems keep the times of files in their caches (NFS: a minute).
HEARTBEAT, PATIENCE = 10.0, 90.0
# Seconds that a process takes from the kernel's lock to its text, or from its last text to the lock's end.
HANDOVER = 2.0
# Seconds from finding the folder free to one's own text, where the kernel's lock does not keep others out.
SETTLING = 1.0
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
    boot: str = ""
    """The start of the machine that it runs on, which tells machines of one name apart; "": unknown."""
    pids: str = ""
    """Where its number is its own: containers of one machine number their processes each for themselves."""
    token: str = ""
    """Random, of each taking of the lock."""
    job: str | None = None
    """torchrun's that began the run in the folder, see :func:`fastgan.training.world.torchrun_job`."""

    def __str__(self) -> str:
        return printable(f"process {self.pid} on host {self.host} since {self.since}")

    @classmethod
    def myself(cls) -> Holder:
        return cls(
            os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"), _ticks(os.getpid()),
            boot=_boot(), pids=_pids(), token=secrets.token_hex(8),
        )  # fmt: skip

    @property
    def is_of_this_machine(self) -> bool:
        """Not of one of its name, or of this one before it was started again."""
        return self.boot == _boot() if self.boot and _boot() else self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool | None:
        """Whether the process is there; None if that cannot be seen from here."""
        if not self.is_of_this_machine or self.pids != _pids():
            return None
        return _ticks(self.pid) == self.ticks


class RunLock:
    """A taken lock; :func:`run_lock` makes it."""

    def __init__(self, path: Path, descriptor: int, before: Holder | None, is_kernels: bool) -> None:
        self.is_kernels = is_kernels
        self._path = path
        self._descriptor = descriptor
        self._lost_to: Holder | None = None
        self._job = torchrun_job()
        self.holder = Holder.myself()
        began_here = before is not None and before.job is not None and before.job == self._job
        self.restarts_own_run = began_here and restarts() > 0
        """Whether torchrun starts again what this very job began in the folder."""
        # One that ends before it begins, as while it loads, leaves the run to the restarts of the job that
        # began it; but not to its own, where it is a new job of the same name.
        if before is not None and (self.restarts_own_run or not began_here):
            self.holder.job = before.job
        self._write()

    def begin(self) -> None:
        """Notes that the run in this folder is this process's from now on."""
        self.holder.job = self._job
        self.keep()
        self.check()
        self._write()

    def check(self) -> None:
        """Raises RunInUse if another process took the lock, which can happen where the kernel has none."""
        if self._lost_to is not None:
            raise RunInUse(
                f"{printable(self._path.parent)} was taken over by {self._lost_to}: this run ends, so that "
                "not both write there. Start one at a time where the file system has no locks"
            )

    def keep(self) -> bool:
        """Touches the lock if it still is this process's; whether it is."""
        found = _read(self._path)
        if found is not None and found.token != self.holder.token:
            self._lost_to = found
        if self._lost_to is None:
            os.utime(self._descriptor)
        return self._lost_to is None

    def let_go(self) -> None:
        """Says that nobody holds the folder any more."""
        with contextlib.suppress(OSError):  # a full disk: a lock that nobody holds is stale all the same
            if self.keep():
                self.holder.held = False
                self._write()

    def release(self) -> None:
        self.let_go()
        os.close(self._descriptor)

    def _write(self) -> None:
        text = json.dumps(asdict(self.holder)).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)  # other machines see it


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[RunLock]:
    """Holds a run's folder, which is created if it is not there, and removed if nothing was written there.

    Raises:
        RunInUse: another process holds it; the message names it.
        OSError: the folder cannot be written.
    """
    made = not folder.exists()
    try:
        lock = _take(folder)
    except RunInUse:
        raise
    except OSError as error:
        raise OSError(f"the run's folder {printable(folder)} cannot be written: {error}") from error
    over = threading.Event()
    heart = threading.Thread(target=_keep, args=(lock, over), name="fastgan-lock", daemon=True)
    heart.start()
    AT_LEAVING.append(lock.let_go)
    try:
        yield lock
    finally:
        AT_LEAVING.remove(lock.let_go)
        over.set()
        heart.join()
        if lock.is_kernels:  # or another process might take what is not there any more
            remove_unused(folder, made)
        lock.release()


def _take(folder: Path) -> RunLock:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    # A link out of the folder is refused.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        has_locks = _lock(path, descriptor)
        if has_locks and not _is_at(path, descriptor):  # whoever had it has removed it, with the folder
            os.close(descriptor)
            return _take(folder)
        lock = RunLock(path, descriptor, _last_holder(path, has_locks), has_locks)
        if not has_locks:
            time.sleep(SETTLING)
            if not lock.keep():
                raise RunInUse(_in_use(folder, str(lock._lost_to)))
        return lock
    except BaseException:
        os.close(descriptor)
        raise


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(path: Path, descriptor: int) -> bool:
    """Takes the kernel's lock; False where there are none.

    Raises:
        RunInUse: another process has it.
    """
    deadline = time.monotonic() + HANDOVER
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = _read(path)
            held = holder is not None and holder.held
            # Otherwise the text is not yet that of the process that has the lock, or it is about to end.
            if (held and holder.is_alive) or time.monotonic() > deadline:  # type: ignore[union-attr]
                raise RunInUse(_in_use(path.parent, str(holder) if held else "another process")) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        time.sleep(0.05)


def _last_holder(path: Path, has_locks: bool) -> Holder | None:
    """Who held the folder before, once it is sure that it holds it no more."""
    holder = _read(path)
    if holder is None or not holder.held:
        return holder
    if has_locks and holder.is_of_this_machine:
        return holder
    alive = holder.is_alive
    if _is_touched(path, holder) if alive is None else alive:
        hint = f" (if there is no such process, delete {printable(path)})"
        raise RunInUse(_in_use(path.parent, str(holder)) + hint)
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


def _keep(lock: RunLock, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            if not lock.keep():
                return


def _read(path: Path) -> Holder | None:
    """What the lock says; None if that is nothing, or cut off."""
    try:
        said = json.loads(path.read_bytes())
        holder = Holder(**{field.name: said[field.name] for field in fields(Holder) if field.name in said})
        kinds = {name: type(value) for name, value in asdict(Holder(1, "", "")).items()}
        kinds["job"] = str if holder.job is not None else type(None)
        wrong = [name for name, kind in kinds.items() if type(getattr(holder, name)) is not kind]
        return None if wrong else holder
    except (OSError, ValueError, TypeError, RecursionError):
        return None


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def _pids() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _ticks(pid: int) -> int:
    """When a process started; -1 if there is none, 0 where only that it is there can be known."""
    try:
        # After the name, which may hold anything, in parentheses.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended while it was read
        if Path("/proc/self/stat").exists():
            return -1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0
