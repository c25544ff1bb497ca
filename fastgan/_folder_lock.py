"""The lock of a folder: only one run, or one monitor, writes there, and the lock file names it.

Where the file system has it, the kernel's lock (`flock`) decides: it ends with its process, however that
ends. On shared disks it may be missing, or not reach other machines. There the lock's text decides: it names
machine, process and start time, and the holder touches the file regularly, so that others see whether it is
alive. Of two processes that start at once, the last to write holds the lock; the other notices that at once
or at its next touch, and ends.
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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, TypeVar

from fastgan._names import printable

NAME = ".lock"
# Seconds between the holder's touches, and without a touch until a holder on another machine counts as dead.
# The latter exceeds the time for which file systems cache modification times (NFS: a minute).
HEARTBEAT, PATIENCE = 10.0, 90.0
# Longest time between taking the kernel's lock and writing the text, or between the last text and release.
HANDOVER = 2.0
# Seconds to wait after writing the text, without the kernel's lock, for another process to overwrite it.
SETTLING = 1.0
# Errors of a file whose folder was removed.
REMOVED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
# Errors of file systems without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class FolderInUse(OSError):
    """Another process, or another object of this one, writes to the folder."""


@dataclass
class Holder:
    """The process that took the lock last, as the lock file describes it."""

    pid: int
    host: str
    since: str
    ticks: int = 0
    """Start time of the process, in ticks since boot: another process may have its pid by now."""
    held: bool = True
    boot: str = ""
    """Boot id of its machine, which distinguishes machines of the same name; "": unknown."""
    pids: str = ""
    """Its pid namespace: containers on one machine number their processes independently."""
    token: str = ""
    """Random, new each time the lock is taken."""
    job: str | None = None
    """The torchrun job that began the run in the folder."""

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
        """Whether it runs on this machine: not on another of the same name, nor before the last reboot."""
        return self.boot == _boot() if self.boot and _boot() else self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool | None:
        """Whether the process exists; None if that cannot be determined from here."""
        if not self.is_of_this_machine or self.pids != _pids():
            return None
        return _ticks(self.pid) == self.ticks


class FolderLock:
    """A lock that is held; made by :func:`acquire`."""

    advice: ClassVar[str] = "wait for it, stop it, or take another folder"
    """What to do if the folder is in use."""
    end: ClassVar[str] = "this one ends"
    """What follows if another process takes the lock."""

    def __init__(self, path: Path, descriptor: int, before: Holder | None, is_kernels: bool) -> None:
        self.is_kernels = is_kernels
        self._path = path.absolute()  # the process may change its working directory
        self._shown = printable(path.parent)
        self._descriptor = descriptor
        self._lost_to: Holder | None = None
        self._released = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self.holder = Holder.myself()
        self._follow(before)
        self._write()

    def _follow(self, before: Holder | None) -> None:
        """Keeps what the next start of the last holder's run needs."""
        if before is not None:
            self.holder.job = before.job

    def check(self) -> None:
        """Raises FolderInUse unless this process may write to the folder.

        It may not if it was forked from the holder, if the folder was removed, even if one of its name is
        there again, or if another process took the lock, as it can without the kernel's lock.
        """
        if os.getpid() != self.holder.pid:
            raise FolderInUse(
                f"{self._shown} is in use by {self.holder}, and process {os.getpid()}, which was forked from "
                "it, may not write there: write in the process that took the folder, or take another one here"
            )
        if self._lost_to is not None:
            raise FolderInUse(
                f"{self._shown} was taken over by {self._lost_to}: {self.end}, so that "
                "not both write there. Start one at a time where the file system has no locks"
            )
        if not self.is_in_place():
            raise FolderInUse(
                f"{self._shown} was removed while {self.holder} had it: {self.end}, since a folder of that "
                "name may be another's by now"
            )

    def is_in_place(self) -> bool:
        """Whether the folder is still the one that was locked, neither removed nor replaced."""
        return _is_at(self._path, self._descriptor)

    def touch_regularly(self) -> None:
        """Starts a thread that keeps the lock until it is released."""
        self._heartbeat = threading.Thread(target=self._touch, name="fastgan-lock", daemon=True)
        self._heartbeat.start()

    def _touch(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                if not self.keep():
                    return

    def keep(self) -> bool:
        """Touches the lock if this process still holds it; returns whether it does."""
        holder_on_disk = _read(self._path)
        if holder_on_disk is not None and holder_on_disk.token != self.holder.token:
            self._lost_to = holder_on_disk
        if self._lost_to is None:
            os.utime(self._descriptor)
        return self._lost_to is None

    def let_go(self) -> None:
        """Records that the folder is not held any more."""
        with contextlib.suppress(OSError):  # a full disk: the lock becomes stale anyway
            if self.keep():
                self.holder.held = False
                self._write()

    def stop_touching(self) -> None:
        self._released.set()
        # Garbage collection may release the lock within its own thread.
        if self._heartbeat not in (None, threading.current_thread()):
            self._heartbeat.join()

    def release(self) -> None:
        """Lets the folder go; in a process that was forked from the holder, only closes the copy there."""
        if os.getpid() == self.holder.pid:
            self.stop_touching()
            self.let_go()
            # Closing alone would leave it locked while a forked child lives, such as a DataLoader's worker.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def _write(self) -> None:
        text = json.dumps(asdict(self.holder)).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)  # so that other machines see it


Kind = TypeVar("Kind", bound=FolderLock)


def acquire(folder: Path, kind: type[Kind]) -> Kind:
    """Locks a folder, which is created if missing.

    Raises:
        FolderInUse: it is held already; the message names the folder and the holder.
        NotADirectoryError: it, or what it would be in, is a file.
        OSError: the folder cannot be written.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            taken = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
            raise NotADirectoryError(
                f"{printable(folder)} cannot be a folder, since {printable(taken)} is none"
            ) from None
        path = folder / NAME
        # O_NOFOLLOW: a link could lead out of the folder.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            has_locks = _lock(path, descriptor, kind.advice)
            if not has_locks or _is_at(path, descriptor):
                return _settled(path, descriptor, has_locks, kind)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed the folder


def _settled(path: Path, descriptor: int, has_locks: bool, kind: type[Kind]) -> Kind:
    lock = kind(path, descriptor, _last_holder(path, has_locks, kind.advice), has_locks)
    if not has_locks:
        time.sleep(SETTLING)
        if not lock.keep():
            raise FolderInUse(_in_use(path.parent, str(lock._lost_to), kind.advice))
    return lock


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError as error:
        if error.errno in REMOVED:
            return False
        raise


def _lock(path: Path, descriptor: int, advice: str) -> bool:
    """Takes the kernel's lock; returns False if the file system has no locks.

    Raises:
        FolderInUse: another process has it.
    """
    deadline = time.monotonic() + HANDOVER
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = _read(path)
            held = holder is not None and holder.held
            # Otherwise the holder has not written its text yet, or is about to end.
            if (held and holder.is_alive) or time.monotonic() > deadline:  # type: ignore[union-attr]
                raise FolderInUse(
                    _in_use(path.parent, str(holder) if held else "another process", advice)
                ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        time.sleep(0.05)


def _last_holder(path: Path, has_locks: bool, advice: str) -> Holder | None:
    """The previous holder of the folder, once it is certain that it does not hold it any more."""
    holder = _read(path)
    if holder is None or not holder.held:
        return holder
    if has_locks and holder.is_of_this_machine:
        return holder
    alive = holder.is_alive
    if _is_touched(path, holder) if alive is None else alive:
        hint = f" (if there is no such process, delete {printable(path)})"
        raise FolderInUse(_in_use(path.parent, str(holder), advice) + hint)
    return holder


def _in_use(folder: Path, by: str, advice: str) -> str:
    return f"{printable(folder)} is in use by {by}: {advice}"


def _is_touched(path: Path, holder: Holder) -> bool:
    """Whether a process on another machine still touches its lock; waits up to PATIENCE seconds."""
    last_touch = path.stat().st_mtime_ns
    print(
        f"{printable(path.parent)} was held by {holder}: waiting up to {PATIENCE:.0f} s for a sign of life",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, HEARTBEAT))
        with path.open("rb") as fresh:  # NFS asks the server again at every open
            if os.fstat(fresh.fileno()).st_mtime_ns != last_touch:
                return True
    return False


def _read(path: Path) -> Holder | None:
    """The holder that the lock file names; None if it is empty or incomplete."""
    try:
        content = json.loads(path.read_bytes())
        holder = Holder(
            **{field.name: content[field.name] for field in fields(Holder) if field.name in content}
        )
        types = {name: type(value) for name, value in asdict(Holder(1, "", "")).items()}
        types["job"] = str if holder.job is not None else type(None)
        invalid = [name for name, expected in types.items() if type(getattr(holder, name)) is not expected]
        return None if invalid else holder
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
    """Start time of a process; -1 if there is none, 0 if only its existence can be determined."""
    try:
        # Fields after the name, which stands in parentheses and may contain anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):  # ProcessLookupError: it ended while it was read
        if Path("/proc/self/stat").exists():
            return -1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except PermissionError:
        pass
    return 0
