"""The tables of a run's folder, read as well as it can be: a run may have been killed while it wrote."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

from fastgan._warnings import warn
from fastgan.training.names import printable

TORN = "\N{REPLACEMENT CHARACTER}"


def read_table(path: Path, complain: Callable[[str], None] = warn) -> dict[str, list[float]]:
    """A CSV file as columns of numbers, NaN for empty cells; rows that are torn or no numbers are left out.

    Args:
        complain: gets a text that names the file and how many rows were left out, if any were.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no row can be read.
    """
    shown = printable(path)
    if not path.exists():
        raise FileNotFoundError(f"{shown} does not exist: is this a run's folder?")
    header, *rows = read_rows(path) or [[]]
    numbers = [row for row in map(_numbers, rows) if row is not None and len(row) == len(header)]
    steps = header.index("step") if "step" in header else None
    kept = [row for row in numbers if steps is None or 0 <= row[steps] < 2**63]
    if len(kept) < len(rows):
        complain(f"{len(rows) - len(kept)} of {len(rows)} rows of {shown} are torn and are left out")
    if not kept or len(set(header)) < len(header):
        raise ValueError(f"{shown} holds no rows yet" if not rows else f"{shown} cannot be read as a table")
    return {name: [row[place] for row in kept] for place, name in enumerate(header)}


def read_texts(path: Path) -> list[tuple[str, str]]:
    """The whole rows of a CSV file of two columns, without its header; none where there is no such file."""
    return [(row[0], row[1]) for row in read_rows(path)[1:] if len(row) == 2] if path.exists() else []


def read_rows(path: Path) -> list[list[str]]:
    """A file's rows, with TORN for what is not text.

    A last one without an end of line was torn, even if what is left looks like a row.

    Raises:
        ValueError: a row longer than any that is written here.
    """
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\0", TORN)
    whole, end, torn = text.rpartition("\n")
    try:
        rows = [row for row in csv.reader(io.StringIO(whole + end, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"{printable(path)} cannot be read as a table: {error}") from error
    return [*rows, [TORN]] if torn else rows


def _numbers(row: list[str]) -> list[float] | None:
    try:
        return [float(value) if value else math.nan for value in row]
    except ValueError:
        return None
