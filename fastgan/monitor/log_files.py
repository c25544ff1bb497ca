"""Text files of logs, tables, JSON and lines, as rows of numbers."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from fastgan._names import printable
from fastgan.monitor.log_json import FORMS, is_json, rows_of_json
from fastgan.monitor.log_lines import rows_of_messages
from fastgan.monitor.log_names import Row
from fastgan.monitor.log_tables import read_table

# The BOM of UTF-32 in little-endian order begins with that of UTF-16.
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),  # as PowerShell redirects output
)  # fmt: skip
_REPLACED = "\N{REPLACEMENT CHARACTER}"


def read_text(path: Path, notes: list[str]) -> tuple[list[str], list[Row]]:
    """The names of a text file's figures, and its rows without what is not given there.

    It may be a table (CSV, TSV), JSON, or lines with figures after their names.

    Raises:
        FileNotFoundError, ValueError: see :func:`fastgan.monitor.logs.read_log`.
    """
    shown = printable(path)
    if path.is_dir():
        raise ValueError(f"{shown} is a folder with neither metrics.csv nor TensorBoard's event files in it")
    text = _text(path, notes)
    # `splitlines` would also split at U+2028 and others, which JSON has within its strings.
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines:
        raise ValueError(f"{shown} is empty")
    for rows in (rows_of_json(text, lines, notes), rows_of_messages(lines, notes)):
        if rows is not None and not any(rows):
            raise ValueError(f"{shown} has no figures")
        if rows is not None:
            return list(dict.fromkeys(name for row in rows for name in row)), [row for row in rows if row]
    if is_json(text):
        raise ValueError(f"{shown} is JSON that is damaged, or not of a form that is read: {FORMS}")
    return read_table(shown, text, notes)


def _text(path: Path, notes: list[str]) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in content[:4096]:
        raise ValueError(
            f"{printable(path)} is neither text nor one of TensorBoard's event files, whose names contain "
            "'tfevents'"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, errors="replace")
        name = encoding.removesuffix("-sig").upper()
        notes.append(f"{text.count(_REPLACED)} characters are no {name} and are read as {_REPLACED}")
        return text
