"""Files and folders in shards, used as those of a disk are."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from fastgan.training.built_in import data_folder
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.store import ShardStore, open_store


@functools.total_ordering
class ShardPath:
    """A file or folder in shards, with the part of `pathlib.Path` that datasets use.

    Paths are equal if they name the same file, however their shards' folder was spelled.

    Args:
        store: of the shards.
        name: of a file in them, or of a folder; "": all.
    """

    __slots__ = ("inner", "store")

    def __init__(self, store: ShardStore, name: str = "") -> None:
        self.store, self.inner = store, name

    @property
    def name(self) -> str:
        return self.inner.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.suffix)

    @property
    def suffix(self) -> str:
        name = self.name  # not by pathlib, which takes seconds for a million names
        dot = name.rfind(".")
        return name[dot:] if 0 < dot < len(name) - 1 else ""

    @property
    def parent(self) -> ShardPath:
        return ShardPath(self.store, self.inner.rpartition("/")[0])

    @property
    def shard(self) -> int:
        """The number of a file's shard."""
        return self.store.index.files[self.inner].shard

    def __truediv__(self, name: str) -> ShardPath:
        parts = f"{self.inner}/{name}".split("/")
        return ShardPath(self.store, "/".join(part for part in parts if part not in ("", ".")))  # as pathlib

    def relative_to(self, folder: ShardPath) -> PurePosixPath:
        return PurePosixPath(self.inner).relative_to(folder.inner)

    def resolve(self) -> ShardPath:
        return self

    def is_file(self) -> bool:
        return self.inner in self.store.index.files

    def is_dir(self) -> bool:
        return next(self.files(), None) is not None

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def files(self) -> Iterator[ShardPath]:
        """All files below a folder, sorted."""
        start = f"{self.inner}/" if self.inner else ""
        return (ShardPath(self.store, name) for name in self.store.index.files if name.startswith(start))

    def iterdir(self) -> Iterator[ShardPath]:
        """Files and folders in a folder, sorted."""
        names = (file.relative_to(self).parts[0] for file in self.files())
        return (self / name for name in dict.fromkeys(names))

    def read_bytes(self) -> bytes:
        """The file's content. Raises a ShardError."""
        return self.store.read(self.inner)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, newline: str | None = None, encoding: str = "utf-8") -> io.TextIOWrapper:
        """The file's text, to read."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding, newline=newline)

    def prefetch(self) -> None:
        """Has the file's shard brought to this machine while others are read."""
        self.store.prefetch(self.inner)

    @property
    def _identity(self) -> str:
        return self.store.source.identity

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ShardPath):
            return NotImplemented
        return self.inner == other.inner and self._identity == other._identity

    def __lt__(self, other: ShardPath) -> bool:
        if self._identity != other._identity:
            return self._identity < other._identity
        return self.inner.split("/") < other.inner.split("/")

    def __hash__(self) -> int:
        return hash(self.inner)

    def __str__(self) -> str:
        return f"{self.store.place.rstrip('/')}/{self.inner}".rstrip("/")

    def __repr__(self) -> str:
        return f"ShardPath({str(self)!r})"


File = Path | ShardPath
"""A file of a dataset, or a folder of one."""


def data_root(place: str | File) -> File:
    """Where a dataset lies: a folder, `builtin:NAME/PART`, a folder of shards, or a URL of shards.

    Raises:
        FileNotFoundError: the URL has no index of shards.
        OSError, ValueError: it cannot be read, or is not valid.
    """
    if isinstance(place, ShardPath):
        return place
    if isinstance(place, str) and "://" in place:
        return ShardPath(open_store(place))
    folder = data_folder(place)
    return ShardPath(open_store(folder)) if (folder / INDEX).is_file() else folder


def relative(file: File, folder: File) -> PurePath:
    """The file's path in a folder of the same dataset."""
    return file.relative_to(folder)  # type: ignore[arg-type]


@contextlib.contextmanager
def on_disk(file: File) -> Iterator[Path]:
    """The file on disk, for readers that take names alone; of one in a shard, a copy within the block."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.NamedTemporaryFile(suffix=file.suffix) as copy:
        copy.write(file.read_bytes())
        copy.flush()
        yield Path(copy.name)


def opened(file: File) -> Any:
    """What Pillow may open: the file itself, or the bytes of one in a shard. Raises a ShardError."""
    return file if isinstance(file, Path) else io.BytesIO(file.read_bytes())
