"""Shards of URLs, kept on this machine's disk up to a limit, for all of its processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from fastgan._files import alone
from fastgan.training.shards.index import Shard

FOLDER, LIMIT = "FASTGAN_SHARD_CACHE", "FASTGAN_SHARD_CACHE_GB"
DEFAULT_GB = 16.0
SUFFIX, INCOMPLETE = ".tar", ".incomplete"
LEFT_OVER = 24 * 3600  # seconds after which nobody is taken to be still writing an incomplete shard


class DamagedShard(ValueError):
    """A shard that is not what the index says; the message says why, but not of which shard."""


class ShardCache:
    """Shards by their checksum, so that equal ones of several URLs are kept once.

    A shard gets its name once it is complete and has its checksum. Beyond the limit, those that were not
    read for longest are deleted.

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
        return self.folder / (shard.sha256 + SUFFIX)

    def add(self, shard: Shard, fetch: Callable[[Path], None]) -> None:
        """Has `fetch` write a shard to a file, unless it is kept already or another process has written it.

        Raises:
            DamagedShard: what was fetched is not this shard.
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(shard)
        with alone(self.folder / f".{shard.sha256[:2]}.lock"):
            if path.exists():
                return
            incomplete = self.folder / f"{shard.sha256}.{uuid.uuid4().hex}{INCOMPLETE}"
            try:
                fetch(incomplete)
                _check(incomplete, shard)
                os.replace(incomplete, path)
            finally:
                incomplete.unlink(missing_ok=True)
        self._delete_beyond_limit(keep=path)

    def drop(self, shard: Shard) -> None:
        """Deletes a shard that turned out to be damaged."""
        self.path(shard).unlink(missing_ok=True)

    def _delete_beyond_limit(self, keep: Path) -> None:
        kept, total = [], 0
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                if path.suffix == INCOMPLETE and time.time() - status.st_mtime > LEFT_OVER:
                    path.unlink()
                elif path.suffix == SUFFIX:
                    kept.append((status.st_mtime, path, status.st_size))
                    total += status.st_size
        for _, path, size in sorted(kept):
            if total <= self.limit:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def wrong_size(size: int, shard: Shard) -> str:
    """What is wrong with a shard of this size."""
    return f"it has {size} bytes, where the index says {shard.size}"


def _check(path: Path, shard: Shard) -> None:
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
