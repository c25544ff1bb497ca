"""Files that are written completely or not at all, and errors that name the file."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": ""}
DAMAGED = ".damaged"
"""Suffix of files that are kept, but that nothing reads."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Opens a text file in UTF-8 that replaces `path`, even if it is a link, once it is complete."""
    with _replacing(path, "x", TEXT) as file:
        yield cast(TextIO, file)


@contextlib.contextmanager
def replacing_binary(path: Path) -> Iterator[BinaryIO]:
    """The same for a binary file."""
    with _replacing(path, "xb", {}) as file:
        yield cast(BinaryIO, file)


@contextlib.contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Opens a text file in UTF-8 to append to, created if missing. A link is an error and not followed."""
    with naming(path), open(path, "a", opener=_without_links, **TEXT) as file:
        yield file


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


@contextlib.contextmanager
def _replacing(path: Path, mode: str, options: dict[str, Any]) -> Iterator[Any]:
    temporary = path.with_name(path.name + ".incomplete")
    with naming(path):
        temporary.unlink(missing_ok=True)
        try:
            # Exclusive creation: a link of that name is never followed.
            with temporary.open(mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds this path to an OSError within the block that names no file, as those of failed writes do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Within the block no other thread or process of this machine is in it, if the file system has locks.

    Args:
        path: the file that is locked; it is created, and stays.
    """
    with path.open("ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
