"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file to write, which takes the place of what `path` names, be it a link, once it is complete."""
    temporary = path.with_name(path.name + ".incomplete")
    temporary.unlink(missing_ok=True)
    with temporary.open("x", newline="") as file:  # made here: not what a link of that name leads to
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
