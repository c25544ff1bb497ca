"""The index of a dataset in shards: which file lies where, and what each shard's content must be.

A shard is a plain tar file, which `tar` and webdataset read as well. The index names the place of each
file's bytes in it, so that a single file is read without the headers before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastgan._names import printable

INDEX = "fastgan-shards.json"
FORMAT = "fastgan shards 1"
SHA256 = re.compile(r"[0-9a-f]{64}")


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

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def to_json(self) -> str:
        # Names only with ASCII: those of Linux may have bytes that are no text.
        files: list[list[list[Any]]] = [[] for _ in self.shards]
        for name, entry in self.files.items():
            files[entry.shard].append([name, entry.offset, entry.size])
        shards = [
            {"name": shard.name, "size": shard.size, "sha256": shard.sha256, "files": files[number]}
            for number, shard in enumerate(self.shards)
        ]
        return json.dumps({"format": FORMAT, "window": self.window, "shards": shards}, ensure_ascii=True)


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
        return _index(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{shown} is not as `fastgan data shard` writes it: {printable(error)}") from error


def _index(plain: dict[str, Any]) -> Index:
    shards, files = [], {}
    for number, each in enumerate(plain["shards"]):
        shard = Shard(each["name"], _count(each["size"]), each["sha256"])
        # Names and checksums become paths, of which none may lead out of their folder.
        if not isinstance(shard.name, str) or "/" in shard.name or shard.name in ("", ".", ".."):
            raise ValueError(f"a shard cannot be named {shard.name!r}")
        if not SHA256.fullmatch(shard.sha256):
            raise ValueError(f"shard {shard.name} has no checksum")
        shards.append(shard)
        for name, offset, size in each["files"]:
            if name in files:
                raise ValueError(f"two files are named {name!r}")
            if _count(offset) + _count(size) > shard.size:
                raise ValueError(f"{name!r} lies behind the end of {shard.name}")
            files[str(name)] = Entry(number, offset, size)
    if not files:
        raise ValueError("it lists no file")
    ordered = dict(sorted(files.items(), key=lambda item: item[0].split("/")))
    return Index(tuple(shards), ordered, _count(plain["window"]))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value
