"""Tables of logs, CSV and TSV of any writer, as rows of numbers."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator

from fastgan.monitor.log_names import Row, listed

DELIMITERS = ",;\t"
SAMPLE = 20
"""First rows, which show what separates cells."""
_COMMENT = re.compile(r"\s*#[^\r\n]*")
_LINE = re.compile(r"\s*([^\r\n]*)")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


def read_table(shown: str, text: str, notes: list[str]) -> tuple[list[str], list[Row]]:
    """The names of a table's columns of numbers, and its rows without empty cells.

    Raises:
        ValueError: it is no table with names of columns and with numbers.
    """
    text = _without_comments(text, notes)
    try:
        delimiter = max(DELIMITERS, key=lambda mark: _fit(text, mark))
        filled = list(_filled(text, delimiter))
    except csv.Error as error:
        raise ValueError(f"{shown} cannot be read as a table: {error}") from error
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
    whole = [row[:width] for row in cells if _has_width(row, width)]
    if len(whole) < len(cells):
        notes.append(
            f"{len(cells) - len(whole)} of {len(cells)} rows do not have {width} cells and are left out"
        )
    comma = None if delimiter == "," else _meaning_of_commas(whole, notes)
    numbers = [[_number(cell, comma) if cell else None for cell in row] for row in whole]
    named = _columns_of_numbers(names, whole, numbers, notes)
    if whole and not named:
        raise ValueError(f"{shown} has no column of numbers; it has {listed(names)}")
    rows = [
        {name: value for name, value in zip(names, values, strict=True) if value is not None and name}
        for values in numbers
    ]
    return named, [row for row in rows if row]


# --- rows -------------------------------------------------------------------------------------------------


def _without_comments(text: str, notes: list[str]) -> str:
    """The text from its header on, which may itself be a comment, above numbers."""
    place, left_out = 0, []
    while found := _COMMENT.match(text, place):
        line = _LINE.match(text, found.end())
        cells = [cell.strip(' "') for cell in re.split(f"[{DELIMITERS}]", line[1])] if line else []
        filled = [cell for cell in cells if cell]
        if not filled or 2 * sum(_number(cell) is not None for cell in filled) >= len(filled):
            break
        place = found.end()
        left_out.append(found[0].strip())
    if left_out:
        notes.append(f"left out, as comments above the header: {listed(left_out, '; ')}")
    return text[place:]


def _filled(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows that are not empty, of cells without spaces around them."""
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True):
        if any(cell.strip() for cell in row):
            yield [cell.strip() for cell in row]


def _fit(text: str, delimiter: str) -> tuple[int, int]:
    """How well a delimiter fits: how many numbers the first rows have that are as wide as the header."""
    try:
        header, *cells = [*itertools.islice(_filled(text, delimiter), SAMPLE)] or [[]]
    except csv.Error:  # cells of the longest size and more, as without their delimiter
        return 0, 0
    if len(header) == 1 and any(mark in header[0] for mark in DELIMITERS):
        return 0, 1
    fitting = (cell for row in cells if _has_width(row, len(header)) for cell in row)
    numbers = [
        cell for cell in fitting if _number(cell) is not None or (delimiter != "," and _has_comma(cell))
    ]
    return len(numbers), len(header)


def _has_width(row: list[str], width: int) -> bool:
    return len(row) >= width and not any(row[width:])


# --- columns ----------------------------------------------------------------------------------------------


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


def _distinct(header: list[str], notes: list[str]) -> list[str]:
    """The names, those that were there before with a number."""
    taken, later = set(header), dict[str, list[str]]()
    names = []
    for place, name in enumerate(header):
        if name and name in header[:place]:
            number = next(n for n in itertools.count(2) if f"{name} ({n})" not in taken)
            later.setdefault(name, []).append(f"{name} ({number})")
            taken.add(later[name][-1])
            names.append(later[name][-1])
        else:
            names.append(name)
    for name, count in Counter(header).items():
        if name in later:
            notes.append(
                f"{count} columns are named {name}: the later ones are called {', '.join(later[name])}"
            )
    return names


# --- cells ------------------------------------------------------------------------------------------------


def _meaning_of_commas(cells: list[list[str]], notes: list[str]) -> str | None:
    """What commas in numbers stand for: ".", or "" where all may separate thousands; None: there are none."""
    found = [cell for row in cells for cell in row if _has_comma(cell)]
    if not found:
        return None
    decimal = next((cell for cell in found if not _THOUSANDS.fullmatch(cell)), None)
    if decimal is not None:
        notes.append(f"commas are decimal: {decimal} is {decimal.replace(',', '.')}")
        return "."
    notes.append(f"commas separate thousands: {found[0]} is {found[0].replace(',', '')}")
    return ""


def _has_comma(cell: str) -> bool:
    """Whether a cell is a number with commas of one or the other kind."""
    return bool(_DECIMAL_COMMA.fullmatch(cell) or _THOUSANDS.fullmatch(cell))


def _number(cell: str, comma: str | None = None) -> float | None:
    """A cell's number, NaN and infinity included; None for other text."""
    if comma is not None and (_DECIMAL_COMMA if comma else _THOUSANDS).fullmatch(cell):
        cell = cell.replace(",", comma)
    try:
        return float(cell.replace("_", "x"))  # Python's 1_000 is no number in a table
    except ValueError:
        return None
