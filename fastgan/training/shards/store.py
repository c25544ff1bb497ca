"""Files out of shards, in a folder or at a URL."""

from __future__ import annotations

import errno
import functools
import os
import queue
import threading
import time
import weakref
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

from fastgan._extras import how_to_install
from fastgan._names import printable
from fastgan.training.shards.cache import DamagedShard, ShardCache, check_shard, wrong_size
from fastgan.training.shards.index import INDEX, Index, Shard, parse_index

# Seconds before a failed transfer is tried again: servers of objects ask for patience now and then.
PAUSES = (1.0, 4.0)
# Seconds for a connection, and between two parts of a transfer, after which it counts as failed. A whole
# transfer takes as long as it takes: aiohttp's default would end each after 5 minutes.
CONNECT_SECONDS, READ_SECONDS = 30.0, 60.0
# Failures of this machine's disk, which another try does not mend.
OWN_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
# fsspec's file systems whose package is not part of it.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


class ShardError(OSError):
    """A shard or index that is missing, damaged or cannot be read; the message names it and its place."""


class Source(Protocol):
    """Where shards come from."""

    @property
    def identity(self) -> str:
        """The same for all spellings of a folder, or of a URL."""
        ...

    @property
    def cache(self) -> ShardCache | None:
        """Where shards are kept; None if they are read where they are."""
        ...

    def open(self, shard: Shard) -> BinaryIO:
        """A shard as an open file. Raises a ShardError."""
        ...

    def prefetch(self, shard: Shard) -> None:
        """Has a shard brought to this machine while others are read."""
        ...


class ShardStore:
    """Reads files out of shards; any number of threads may do so, and processes started by fork or spawn.

    Args:
        place: URL or folder, as errors name it.
        index: of the files.
        source: of the shards.
    """

    def __init__(self, place: str, index: Index, source: Source) -> None:
        self.place, self.index, self.source = place, index, source

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            ShardError: its shard is missing, truncated or cannot be read.
        """
        entry = self.index.files[name]
        shard = self.index.shards[entry.shard]
        with self.source.open(shard) as file:
            size = os.fstat(file.fileno()).st_size
            if size != shard.size:
                raise ShardError(_damaged(shard.name, self.place, wrong_size(size, shard)))
            content = _read_at(file.fileno(), entry.size, entry.offset)
        if len(content) != entry.size:
            raise ShardError(
                f"{printable(name)} in {shard.name} of {printable(self.place)} cannot be read: only "
                f"{len(content)} of its {entry.size} bytes are returned"
            )
        return content

    def prefetch(self, name: str) -> None:
        """Has a file's shard brought to this machine while others are read."""
        self.source.prefetch(self.index.shards[self.index.files[name].shard])


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    """A part of a file, or less of it if the file ends before."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):  # Linux returns 2 GiB at most
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def open_store(place: str | Path) -> ShardStore:
    """The shards in a folder, which are read where they are, or at a URL, which are kept in a cache.

    Raises:
        FileNotFoundError: there is no index.
        ShardError: it cannot be read.
        ValueError: it is not valid, or a package that such URLs need is missing.
    """
    if isinstance(place, str) and "://" in place:
        return _remote_store(place.rstrip("/"))
    return _local_store(Path(place))


def _local_store(folder: Path) -> ShardStore:
    return ShardStore(
        str(folder), parse_index((folder / INDEX).read_bytes(), str(folder / INDEX)), Folder(folder)
    )


class Folder:
    """Shards in a folder."""

    cache = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = str(folder.resolve())

    def open(self, shard: Shard) -> BinaryIO:
        try:
            return (self.folder / shard.name).open("rb")
        except OSError as error:
            reason = "it is not there" if isinstance(error, FileNotFoundError) else str(error.strerror)
            raise ShardError(_damaged(shard.name, self.folder, reason)) from error

    def prefetch(self, shard: Shard) -> None:
        """Nothing: the shard is here."""


@functools.lru_cache(maxsize=16)  # a run sees the data as it was when it began
def _remote_store(url: str) -> ShardStore:
    files, root = _file_system(url)
    if "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)):
        return _local_store(Path(root))
    source = Remote(url)
    index = parse_index(source.read_index(), f"{url}/{INDEX}")
    source.cache.tidy()
    return ShardStore(url, index, source)


def _file_system(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path in it."""
    scheme = url.partition("://")[0].rpartition("::")[2]
    try:
        import fsspec

        options = {}
        # Fsspec chains file systems, as in "simplecache::https://host/shards".
        for http in {part.partition("://")[0] for part in url.split("::")} & {"http", "https"}:
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
            options[http] = {"client_kwargs": {"timeout": timeout}}
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package = PACKAGES.get(scheme)
        how = f"pip install {package}" if package else how_to_install("stream")
        raise ValueError(
            f"{printable(url)} needs a package that is not installed ({printable(error)}): {how}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{printable(url)} is no URL that can be read: {printable(error)}") from error


class Remote:
    """Shards at a URL, which are brought to the cache whole, as they are needed.

    After a fork, and in another process that gets it by pickle, it begins anew with the same URL.

    Args:
        url: without "/" at its end.
    """

    def __init__(self, url: str) -> None:
        self.url = self.identity = url
        self.cache = ShardCache()
        self.root = _file_system(url)[1].rstrip("/")
        self._begin()
        _remotes.add(self)

    def _begin(self) -> None:
        """Sets up what belongs to one process: connections, which fsspec's thread serves, and our thread."""
        self._files: Any = None
        self._lock = threading.Lock()
        self._wanted: set[Shard] = set()
        self._queue: queue.SimpleQueue[Shard] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.url,)

    @property
    def files(self) -> Any:
        """Fsspec's file system."""
        # Made at first use: during a fork, fsspec's locks may be held by a thread that the child lacks.
        if self._files is None:
            self._files = _file_system(self.url)[0]
        return self._files

    def read_index(self) -> bytes:
        """The content of the index.

        Raises:
            FileNotFoundError: there is none.
            ShardError: it cannot be read.
        """
        return self._retried(INDEX, lambda: self.files.cat_file(f"{self.root}/{INDEX}"))

    def open(self, shard: Shard) -> BinaryIO:
        return self.cache.open(shard) or self._add(shard)

    def prefetch(self, shard: Shard) -> None:
        with self._lock:
            if shard in self._wanted or self.cache.path(shard).exists():
                return
            self._wanted.add(shard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._fetch_wanted, name="fastgan-shards", daemon=True)
                self._thread.start()
        self._queue.put(shard)

    def _fetch_wanted(self) -> None:
        while True:
            shard = self._queue.get()
            try:
                self._add(shard).close()
            except OSError:
                pass  # whoever reads the shard tries again, and tells why it fails
            finally:
                with self._lock:
                    self._wanted.discard(shard)

    def _add(self, shard: Shard) -> BinaryIO:
        return self.cache.add(
            shard, lambda path: self._retried(shard.name, lambda: self._transfer(shard, path))
        )

    def _transfer(self, shard: Shard, path: Path) -> None:
        try:
            self.files.get_file(f"{self.root}/{shard.name}", str(path))
        except OSError as error:
            if error.errno in OWN_DISK:
                raise DiskError(error.errno, error.strerror, str(path)) from error
            raise
        check_shard(path, shard)

    def _retried(self, name: str, transfer: Any) -> Any:
        for pause in (*PAUSES, None):
            try:
                return transfer()
            except FileNotFoundError as error:
                self._missing(name, error)
            except DiskError:
                raise
            except Exception as error:  # fsspec passes on whatever its libraries raise
                if pause is None and isinstance(error, DamagedShard):
                    raise ShardError(_damaged(name, self.url, str(error))) from error
                if pause is None:
                    reason = f"{type(error).__name__}: {error}"
                    raise ShardError(
                        f"{name} of {printable(self.url)} cannot be read: {printable(reason)}"
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last try neither returned nor raised")

    def _missing(self, name: str, error: FileNotFoundError) -> NoReturn:
        if name == INDEX:
            raise FileNotFoundError(
                f"{printable(self.url)} has no {INDEX}, which `fastgan data shard` writes with the shards"
            ) from error
        raise ShardError(f"{name} of {printable(self.url)} is not there") from error


class DiskError(OSError):
    """A shard that cannot be written to the cache."""


_remotes: weakref.WeakSet[Remote] = weakref.WeakSet()


def _begin_anew() -> None:
    for remote in _remotes:
        remote._begin()


os.register_at_fork(after_in_child=_begin_anew)


def _damaged(shard: str, place: object, reason: str) -> str:
    return f"{shard} of {printable(place)} is not the shard of the index: {reason}"
