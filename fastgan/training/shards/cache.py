"""Shards of URLs, kept on this machine's disk up to a limit, for all of its processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from fastgan._files import alone
from fastgan.training.shards.index import Shard

FOLDER, LIMIT = "FASTGAN_SHARD_CACHE", "FASTGAN_SHARD_CACHE_GB"
DEFAULT_GB = 16.0
# The names of the cache's own files. Whatever else lies in its folder is not touched.
COMPLETE = re.compile(r"[0-9a-f]{64}\.tar")
INCOMPLETE = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.incomplete")
# Seconds after which an incomplete shard is taken for a left-over where the file system has no locks.
LEFT_OVER = 24 * 3600


class DamagedShard(ValueError):
    """A shard that is not what the index says; the message says why, but not of which shard."""


class ShardCache:
    """Shards by their checksum, so that equal ones of several URLs are kept once.

    A shard gets its name once it is complete. Beyond the limit, those that were not read for longest are
    deleted.

    Args:
        folder: default: `$FASTGAN_SHARD_CACHE`, or `fastgan/shards` in `~/.cache` or `$XDG_CACHE_HOME`.
        limit: in bytes; default: `$FASTGAN_SHARD_CACHE_GB`, or 16 GB.

    Raises:
        ValueError: the limit is no number above 0.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or _default_folder()
        self.limit = limit or _default_limit()

    def path(self, shard: Shard) -> Path:
        """Where a shard is, if it is kept."""
        return self.folder / f"{shard.sha256}.tar"

    def open(self, shard: Shard) -> BinaryIO | None:
        """A shard as an open file; None if it is not kept, or has another size than the index says."""
        try:
            file = self.path(shard).open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != shard.size:
            file.close()
            return None
        with contextlib.suppress(OSError):  # the file may be another user's, who alone may touch it
            os.utime(file.fileno())  # the limit keeps those read last
        return file

    def add(self, shard: Shard, fetch: Callable[[Path], None]) -> BinaryIO:
        """A shard as an open file, which `fetch` writes unless it is kept.

        Args:
            fetch: writes the shard to a file, and raises unless :func:`check_shard` accepts it.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self._lock(shard.sha256)):
            if file := self.open(shard):  # another process has fetched it
                return file
            incomplete = self.folder / f"{shard.sha256}.{uuid.uuid4().hex}.incomplete"
            try:
                fetch(incomplete)
                # Open before it has its name: from then on, other processes may delete it for the limit.
                file = incomplete.open("rb")
                os.replace(incomplete, self.path(shard))
            finally:
                incomplete.unlink(missing_ok=True)
        self.tidy(keep=self.path(shard))
        return file

    def tidy(self, keep: Path | None = None) -> None:
        """Deletes what interrupted transfers have left, and shards beyond the limit, except `keep`."""
        kept, total = [], 0
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            is_complete = COMPLETE.fullmatch(path.name)
            if not is_complete and not INCOMPLETE.fullmatch(path.name):
                continue
            # Another process may have deleted it, and another user's may not be ours to delete.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                status = path.stat()
                total += status.st_size
                if is_complete:
                    kept.append((status.st_mtime, path, status.st_size))
                elif self._delete_left_over(path, status.st_mtime):
                    total -= status.st_size
        for _, path, size in sorted(kept):
            if total <= self.limit:
                break
            if path != keep:
                with contextlib.suppress(PermissionError):
                    path.unlink(missing_ok=True)
                    total -= size

    def _delete_left_over(self, incomplete: Path, changed: float) -> bool:
        """Deletes an incomplete shard if nobody is writing it, who would hold its lock."""
        with self._lock(incomplete.name).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:  # no locks here
                if time.time() - changed <= LEFT_OVER:
                    return False
            incomplete.unlink(missing_ok=True)
        return True

    def _lock(self, sha256: str) -> Path:
        return self.folder / f".{sha256[:2]}.lock"


def wrong_size(size: int, shard: Shard) -> str:
    """What is wrong with a shard of this size."""
    return f"it has {size} bytes, where the index says {shard.size}"


def check_shard(path: Path, shard: Shard) -> None:
    """Raises a DamagedShard unless a file has the shard's size and checksum."""
    size = path.stat().st_size
    if size != shard.size:
        raise DamagedShard(wrong_size(size, shard))
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != shard.sha256:
        raise DamagedShard("its checksum is not that of the index")


def _default_folder() -> Path:
    if chosen := os.environ.get(FOLDER):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastgan" / "shards"


def _default_limit() -> int:
    text = os.environ.get(LIMIT) or str(DEFAULT_GB)
    try:
        limit = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ValueError(f"{LIMIT} must be a number of gigabytes above 0, got {text!r}")
    return limit
