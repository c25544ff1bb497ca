"""Files that are there as a whole or not at all, and errors that say which file it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, which takes the place of what `path` names, be it a link, once it is complete."""
    temporary = path.with_name(path.name + ".incomplete")
    with naming(path):
        temporary.unlink(missing_ok=True)
        try:
            # Made here: not what a link of that name leads to.
            with temporary.open("x", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError within tells of this path, if it tells of none: what fails to be written does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
