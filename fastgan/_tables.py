"""A run's tables: written row by row, and read with tolerance, as the run may have been killed meanwhile."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

from fastgan._files import DAMAGED, TEXT, appending, replacing, replacing_binary
from fastgan._names import printable
from fastgan._warnings import warn

TORN = "\N{REPLACEMENT CHARACTER}"
LARGEST = (2 - 2**-23) * 2.0**127
"""Of float32's finite numbers, as which figures are computed: larger ones are read as infinite."""


class CsvTable:
    """A CSV file of rows with a step, each flushed to the disk at once.

    A column is added when a row first has it. Rows without a value for a column have an empty cell. A last
    row without an end of line, as a killed process leaves it, is cut off before anything is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        if path.exists():
            _cut_torn_row(path)
            with path.open(**TEXT) as file:
                self.columns = next(csv.reader(file), None)

    def write(self, step: int, values: dict[str, float]) -> None:
        row = {"step": step, **values}
        self._add_columns([name for name in row if name not in (self.columns or [])])
        with appending(self.path) as file:
            writer = csv.DictWriter(file, self.columns or [])
            writer.writerow({key: _short(value) for key, value in row.items()})
            file.flush()
            os.fsync(file.fileno())

    def _add_columns(self, names: list[str]) -> None:
        if not names:
            return
        rows = []
        if self.columns is not None:
            with self.path.open(**TEXT) as file:
                rows = list(csv.reader(file))[1:]
        self.columns = [*(self.columns or []), *names]
        with replacing(self.path) as file:
            csv.writer(file).writerows([self.columns, *(row + [""] * len(names) for row in rows)])


def rounded(row: dict[str, float]) -> dict[str, float]:
    """The figures as they will be read from a table."""
    return {name: as_figure(float(_short(value))) for name, value in row.items()}


def as_figure(value: float) -> float:
    """The number, or infinity with its sign where float32 has none that large."""
    return value if abs(value) <= LARGEST or math.isnan(value) else math.copysign(math.inf, value)


def _cut_torn_row(path: Path) -> None:
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) < len(content):
        with replacing_binary(path) as file:
            file.write(complete)


def drop_rows_after(path: Path, step: int) -> None:
    """Removes rows of steps that a resumed training will repeat, and an incomplete last row.

    A file without a column "step" is renamed, with the suffix DAMAGED.
    """
    if not path.exists():
        path.unlink(missing_ok=True)  # a dangling link
        return
    header, *rows = read_rows(path) or [[]]
    if "step" not in header:  # killed while writing the first line, or damaged
        path.replace(path.with_name(path.name + DAMAGED))
        return
    place = header.index("step")
    kept = [row for row in rows if len(row) == len(header) and _is_up_to_step(step, row[place])]
    with replacing(path) as file:
        csv.writer(file).writerows([header, *kept])


def _is_up_to_step(step: int, cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 19 and int(cell) <= step


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"


def read_table(path: Path, complain: Callable[[str], None] = warn) -> dict[str, list[float]]:
    """A CSV file as columns of numbers, NaN for empty cells; rows that are torn or not numeric are left out.

    Args:
        complain: called, if rows were left out, with a text that gives the file and their number.

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
    valid = [row for row in numbers if steps is None or 0 <= row[steps] < 2**63]
    if len(valid) < len(rows):
        complain(f"{len(rows) - len(valid)} of {len(rows)} rows of {shown} are torn and are left out")
    if not valid or len(set(header)) < len(header):
        raise ValueError(f"{shown} holds no rows yet" if not rows else f"{shown} cannot be read as a table")
    return {name: [row[place] for row in valid] for place, name in enumerate(header)}


def rows_of(path: Path) -> list[tuple[int, dict[str, float]]]:
    """The rows of a table by step: steps and figures. Empty cells are left out; torn rows too.

    Where a step is there again after others, as when a training has been resumed, the later rows count.

    Raises:
        ValueError: the file has no column "step".
    """
    header, *rows = read_rows(path) or [[]]
    if "step" not in header:
        raise ValueError(f"{path} has no column 'step'")
    place = header.index("step")
    by_step: dict[int, list[dict[str, float]]] = {}
    last = -1
    for cells in rows:
        try:
            values = {name: as_figure(float(cell)) for name, cell in zip(header, cells, strict=True) if cell}
            step = int(cells[place])
        except (ValueError, IndexError, OverflowError):
            continue
        values.pop("step", None)
        if 0 <= step < 2**63:
            if step != last:
                by_step[step] = []
            by_step[step].append(values)
            last = step
    return [(step, row) for step in sorted(by_step) for row in by_step[step]]


def read_texts(path: Path) -> list[tuple[str, str]]:
    """The complete rows of a CSV file of two columns, without its header; empty if there is no such file."""
    return [(row[0], row[1]) for row in read_rows(path)[1:] if len(row) == 2] if path.exists() else []


def read_rows(path: Path) -> list[list[str]]:
    """A file's rows, with TORN for bytes that are not text.

    A last row without an end of line counts as torn, even if it looks like a complete one.

    Raises:
        ValueError: a row longer than any that fastgan writes.
    """
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\0", TORN)
    complete, end, torn = text.rpartition("\n")
    try:
        rows = [row for row in csv.reader(io.StringIO(complete + end, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"{printable(path)} cannot be read as a table: {error}") from error
    return [*rows, [TORN]] if torn else rows


def _numbers(row: list[str]) -> list[float] | None:
    try:
        return [as_figure(float(value)) if value else math.nan for value in row]
    except ValueError:
        return None
