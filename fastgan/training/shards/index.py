"""The index of a dataset in shards: which file lies where, and what each shard's content must be.

A shard is a plain tar file, which `tar` and webdataset read as well. The index names the place of each
file's bytes in it, so that a single file is read without the headers before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastgan._names import printable

INDEX = "fastgan-shards.json"
FORMAT = "fastgan shards 1"
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST = 2**63 - 1  # a file's size or offset, which the system takes as 64 bits


class Entry(NamedTuple):
    """A file in a shard."""

    shard: int
    """The shard's number in the index."""
    offset: int
    """The place of the file's first byte in the shard."""
    size: int
    """Number of bytes."""


@dataclass(frozen=True)
class Shard:
    """A shard's file."""

    name: str
    size: int
    """Number of bytes."""
    sha256: str
    """Checksum, in hexadecimal digits."""


@dataclass(frozen=True)
class Index:
    """The content of `fastgan-shards.json`."""

    shards: tuple[Shard, ...]
    files: Mapping[str, Entry]
    """By name, with "/" between folders, sorted as paths are."""
    window: int
    """Bytes of the shards that an epoch's order mixes at a time, see :class:`ShardOrder`."""
    sha256: str
    """Checksum of the index itself, equal only for equal files in the same order."""

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


def index_text(shards: Sequence[Shard], files: Mapping[str, Entry], window: int) -> str:
    """The content of an index, see :class:`Index`."""
    # Names only with ASCII: those of Linux may have bytes that are no text.
    by_shard: list[list[list[Any]]] = [[] for _ in shards]
    for name, entry in files.items():
        by_shard[entry.shard].append([name, entry.offset, entry.size])
    plain = [
        {"name": shard.name, "size": shard.size, "sha256": shard.sha256, "files": by_shard[number]}
        for number, shard in enumerate(shards)
    ]
    return json.dumps({"format": FORMAT, "window": window, "shards": plain}, ensure_ascii=True)


def parse_index(content: bytes, origin: str) -> Index:
    """The index that a file contains.

    Raises:
        ValueError: it is none, or not complete; the message names `origin`.
    """
    shown = printable(origin)
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown} is not in JSON: {printable(error)}") from error
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise ValueError(f"{shown} must have the format {FORMAT!r}, got {printable(repr(found))[:80]}")
    try:
        return _index(plain, hashlib.sha256(content).hexdigest())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{shown} is not as `fastgan data shard` writes it: {printable(error)}") from error


def _index(plain: dict[str, Any], sha256: str) -> Index:
    shards: list[Shard] = []
    files: dict[str, Entry] = {}
    for number, each in enumerate(plain["shards"]):
        # Names and checksums become paths, of which none may lead out of their folder.
        if not _is_path(each["name"]) or "/" in each["name"]:
            raise ValueError(f"a shard cannot be named {_shown(each['name'])}")
        shard = Shard(each["name"], _count(each["size"], f"the size of {each['name']}"), each["sha256"])
        if not isinstance(shard.sha256, str) or not SHA256.fullmatch(shard.sha256):
            raise ValueError(f"shard {shard.name} has no checksum")
        shards.append(shard)
        for name, offset, size in each["files"]:
            if not _is_path(name):
                raise ValueError(f"a file of {shard.name} cannot be named {_shown(name)}")
            if name in files:
                raise ValueError(f"two files are named {name!r}")
            end = _count(offset, f"the place of {name!r}") + _count(size, f"the size of {name!r}")
            if end > shard.size:
                raise ValueError(f"{name!r} lies behind the end of {shard.name}")
            files[name] = Entry(number, offset, size)
    if not files:
        raise ValueError("it lists no file")
    for shard in shards:
        if shard.size == 0:  # a tar file has blocks even without content
            raise ValueError(f"the size of {shard.name} must be above 0")
    ordered = dict(sorted(files.items(), key=lambda item: item[0].split("/")))
    return Index(tuple(shards), ordered, _count(plain["window"], "window"), sha256)


def _is_path(name: Any) -> bool:
    """Whether it is the name of a file below a folder, spelled as `pathlib` does."""
    return (
        isinstance(name, str) and "\0" not in name and all(p not in ("", ".", "..") for p in name.split("/"))
    )


def _count(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"{what} must be a number of bytes, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
