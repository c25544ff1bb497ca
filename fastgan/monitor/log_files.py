"""Text files of logs, tables and lines, as rows of numbers."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

from fastgan._names import printable
from fastgan.monitor.log_lines import rows_of_json, rows_of_messages
from fastgan.monitor.log_names import Row, listed


def read_text(path: Path, notes: list[str]) -> tuple[list[str], list[Row]]:
    """The names of a text file's figures, and its rows without what is not given there.

    It may be a table (CSV, TSV), JSON, an object a line, or lines with figures after their names.

    Raises:
        FileNotFoundError, ValueError: see :func:`fastgan.monitor.logs.read_log`.
    """
    shown = printable(path)
    if path.is_dir():
        raise ValueError(f"{shown} is a folder with neither metrics.csv nor TensorBoard's event files in it")
    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{shown} is empty")
    for rows in (rows_of_json(text, lines, notes), rows_of_messages(lines, notes)):
        if rows is not None and not any(rows):
            raise ValueError(f"{shown} has no figures")
        if rows is not None:
            return list(dict.fromkeys(name for row in rows for name in row)), [row for row in rows if row]
    return _read_table(shown, text, lines, notes)


def _read_table(shown: str, text: str, lines: list[str], notes: list[str]) -> tuple[list[str], list[Row]]:
    try:
        delimiter = max(",;\t", key=lambda mark: len(next(csv.reader([lines[0]], delimiter=mark))))
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{shown} cannot be read as a table: {error}") from error
    filled = [[cell.strip() for cell in row] for row in table if any(cell.strip() for cell in row)]
    if not filled:
        raise ValueError(f"{shown} has empty cells alone")
    header, *cells = filled
    header[0] = header[0].lstrip("# ")
    if all(_number(cell) is not None for cell in header if cell):
        raise ValueError(f"{shown} has no names of columns: its first row is {listed(header)}")
    again = [row for row in cells if row == header]
    if again:
        notes.append(f"the header stands in {len(again)} further rows, which are left out")
        cells = [row for row in cells if row != header]
    if not cells:
        raise ValueError(f"{shown} has names of columns, but no rows")
    names = _distinct(header, notes)
    width = len(names)
    whole = [row[:width] for row in cells if len(row) >= width and not any(row[width:])]
    if len(whole) < len(cells):
        notes.append(
            f"{len(cells) - len(whole)} of {len(cells)} rows do not have {width} cells and are left out"
        )
    numbers = [[_number(cell, delimiter != ",") if cell else None for cell in row] for row in whole]
    named = _columns_of_numbers(names, whole, numbers, notes)
    if whole and not named:
        raise ValueError(f"{shown} has no column of numbers; it has {listed(names)}")
    rows = [
        {name: value for name, value in zip(names, values, strict=True) if value is not None and name}
        for values in numbers
    ]
    return named, [row for row in rows if row]


def _columns_of_numbers(
    names: list[str], cells: list[list[str]], numbers: list[list[float | None]], notes: list[str]
) -> list[str]:
    """The names of the columns that hold numbers; tells of other cells."""
    found, left_out = [], []
    for place, name in enumerate(names):
        count = sum(row[place] is not None for row in numbers)
        texts = sum(row[place] != "" for row in cells) - count
        if texts and count:
            notes.append(f"{name}: {texts} of {len(cells)} cells are no numbers and count as empty")
        elif texts:
            left_out.append(name)
        if name and count:
            found.append(name)
    if left_out:
        notes.append(f"left out, since they hold no numbers: {', '.join(left_out)}")
    return found


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell redirects output
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:4096]:
        raise ValueError(
            f"{printable(path)} is neither text nor one of TensorBoard's event files, whose names contain "
            "'tfevents'"
        )
    return content.decode("utf-8-sig", errors="replace")


def _distinct(header: list[str], notes: list[str]) -> list[str]:
    """The names, those that were there before with a number."""
    seen: Counter[str] = Counter()
    names = []
    for name in header:
        seen[name] += 1
        names.append(f"{name} ({seen[name]})" if name and seen[name] > 1 else name)
    for name, count in seen.items():
        if name and count > 1:
            notes.append(f"{count} columns are named {name}: the later ones are called {name} (2) and so on")
    return names


def _number(cell: str, has_decimal_commas: bool = False) -> float | None:
    """A cell's number, NaN and infinity included; None for other text."""
    if has_decimal_commas and re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", cell, re.IGNORECASE):
        cell = cell.replace(",", ".")
    try:
        return float(cell.replace("_", "x"))  # Python's 1_000 is no number in a table
    except ValueError:
        return None
