"""Logs of any trainer: tables, JSON, messages and TensorBoard's event files become rows as rules read them.

Trainers name, number and write their figures in many ways. Whatever is decided about a file here is told in
its notes: which figure was taken for what, where steps come from, which cells and rows were left out.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastgan._arguments import near_name
from fastgan._names import printable
from fastgan._tables import as_figure
from fastgan.monitor.history import ROWS
from fastgan.monitor.log_events import is_events, read_events
from fastgan.monitor.log_exports import without_runs
from fastgan.monitor.log_files import read_text
from fastgan.monitor.log_names import (
    NOT_OF_THE_GAME,
    PART_FAKE,
    PART_REAL,
    SIGNS,
    Row,
    listed,
    plain_name,
    recognized,
)
from fastgan.monitor.log_steps import by_step, steps_of

MOST_ROWS = 200
"""Longer logs are averaged: rules were made for log lines that are means over many steps."""


@dataclass
class Log:
    """What was read of a log."""

    rows: list[tuple[int, Row]]
    """Steps, ascending, and figures, by the names that rules know where there is one."""
    names: dict[str, str]
    """Names in the file by the names that rules know."""
    notes: list[str] = field(default_factory=list)
    """What was decided about the file, a sentence each."""
    has_probabilities: bool = False
    """Whether D_real and D_fake are means of D(x) and D(G(z)), probabilities of being real."""
    has_parts: bool = False
    """Whether D_loss is the sum of two columns, D's losses of real and of fake samples."""


def read_log(path: Path, columns: Mapping[str, str] | None = None) -> Log:
    """Reads a table, JSON lines, lines of named figures, a TensorBoard event file, or a folder with some.

    Args:
        columns: names in the file by the names that rules know, "step" too; further ones are recognized.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read as any of these, has fewer than three rows, or those of several runs, or
            lacks a column that is asked for; the message names the file and what is wrong.
        ModuleNotFoundError: event files need tensorboard.
    """
    columns = dict(columns or {})
    notes: list[str] = []
    if is_events(path):
        table = read_events(path, notes)
        header = list(dict.fromkeys(name for row in table.values() for name in row))
        _check_columns(path, columns, header)
        steps, rows = list(table), list(table.values())
    else:
        header, rows = read_text(path, notes)
        header, rows, columns = without_runs(path, header, rows, columns, notes)
        _check_columns(path, columns, header)
        steps = steps_of(path, header, rows, columns, notes)
    log = Log(by_step(steps, rows, notes), recognized(header, columns, notes), notes)
    if rows and not any(rows):
        raise ValueError(f"{printable(path)} has no figures beside its steps; it has {listed(header)}")
    if len(log.rows) < ROWS:
        raise ValueError(
            f"{printable(path)} has {len(log.rows)} row{'s' if len(log.rows) != 1 else ''}: verdicts follow "
            f"figures over steps, and need {ROWS} rows at least"
            + (f" ({listed(notes, '; ')})" if notes else "")
        )
    _bound(log)
    _leave_gaps(log)
    _rename(log)
    _scale_accuracies(log)
    _average(log)
    return log


def _check_columns(path: Path, columns: Mapping[str, str], header: Sequence[str]) -> None:
    for ours, theirs in columns.items():
        if theirs not in header:
            near = near_name(theirs, header)
            raise ValueError(
                f"--columns {printable(f'{ours}={theirs}')}: {printable(path)} has no column "
                f"{printable(theirs)!r}"
                + (f"; did you mean {printable(near)!r}?" if near else "")
                + f"; it has {listed(header)}"
            )


# --- names ----------------------------------------------------------------------------------------------


def _rename(log: Log) -> None:
    """Gives the figures the names that rules know, and puts D's loss together where only its parts are."""
    ours = {theirs: name for name, theirs in log.names.items()}
    log.rows = [
        (step, {ours.get(name, _kept(name, ours)): value for name, value in row.items()})
        for step, row in log.rows
    ]
    if taken := [f"{name} is {theirs}" for name, theirs in log.names.items() if name != theirs]:
        log.notes.append(f"taken for what rules know: {', '.join(taken)}")
    if not log.names.keys() - NOT_OF_THE_GAME:
        known = listed(list(dict.fromkeys(name for _, row in log.rows for name in row)))
        log.notes.append(
            f"no figure was recognized; say which is what by --columns, as D_loss=NAME, among: {known}"
        )
    if {PART_REAL, PART_FAKE} <= log.names.keys() and "D_loss" not in log.names:
        log.has_parts = True
        for _, row in log.rows:
            if PART_REAL in row and PART_FAKE in row:
                row["D_loss"] = row[PART_REAL] + row[PART_FAKE]
        parts = f"{log.names[PART_REAL]} and {log.names[PART_FAKE]}"
        log.notes.append(f"D_loss is the sum of {parts}, D's losses of real and of fake samples")
    log.has_probabilities = _are_probabilities(log)
    if log.has_probabilities:
        log.notes.append(
            f"{log.names['D_real']} and {log.names['D_fake']} lie in [0, 1]: probabilities of being real"
        )


def _kept(name: str, ours: Mapping[str, str]) -> str:
    """The name of a figure that is none that rules know, other than that of one that has been renamed."""
    return f"{name} (of the file)" if name in ours.values() else name


def _are_probabilities(log: Log) -> bool:
    """Whether D_real and D_fake are called D(x) and D(G(z)), as probabilities are, and lie in [0, 1]."""
    names = [log.names.get(name, "") for name in ("D_real", "D_fake")]
    values = [row[name] for _, row in log.rows for name in ("D_real", "D_fake") if name in row]
    finite = [value for value in values if math.isfinite(value)]
    is_named = all(re.match(r"d_(x|g_z)|dg?[xz]", plain_name(name)) for name in names)
    return is_named and bool(finite) and min(finite) >= 0 and max(finite) <= 1


def _scale_accuracies(log: Log) -> None:
    """Brings percent, and means of signs, to parts of 1."""
    for ours, pattern in SIGNS.items():
        theirs = log.names.get(ours, "")
        if re.fullmatch(pattern, plain_name(theirs)):
            sign = 1 if ours == "D_accuracy_real" else -1
            for _, row in log.rows:
                if ours in row:
                    row[ours] = (1 + sign * row[ours]) / 2
            formula = "(1 + x)" if sign == 1 else "(1 - x)"
            log.notes.append(f"{ours} is {formula} / 2 of {theirs}, a mean of signs")
    for pattern in (r"D_accuracy_.+", r"D_probability_.+", r"D_auc", r"(bit|str)_acc(_.*)?"):
        names = dict.fromkeys(name for _, row in log.rows for name in row if re.fullmatch(pattern, name))
        values = [row[name] for _, row in log.rows for name in names if name in row]
        finite = [value for value in values if math.isfinite(value)]
        if finite and min(finite) >= 0 and 1 + 1e-3 < max(finite) <= 100:
            for _, row in log.rows:
                row.update({name: row[name] / 100 for name in names if name in row})
            told = ", ".join(log.names.get(name, name) for name in names)
            log.notes.append(f"{told} beyond 1 and up to 100: taken for percent")


# --- rows ---------------------------------------------------------------------------------------------------


def _bound(log: Log) -> None:
    """Takes numbers that float32 does not have for infinite ones, as what they were computed as would be."""
    counts: Counter[str] = Counter()
    for _, row in log.rows:
        for name, value in row.items():
            row[name] = as_figure(value)
            counts[name] += row[name] != value and not math.isnan(value)
    for name, count in counts.items():
        if count:
            log.notes.append(f"{name}: {count} values beyond float32's range (3.4e38) count as infinite")


def _leave_gaps(log: Log) -> None:
    """Takes NaN between numbers for cells that were left empty, as some trainers write what they skip."""
    for name in dict.fromkeys(name for _, row in log.rows for name in row):
        given = [(row, math.isnan(row[name])) for _, row in log.rows if name in row]
        ends = sum(1 for (_, is_nan), (_, next_is) in itertools.pairwise(given) if is_nan and not next_is)
        if ends >= 2:
            gaps = [row for row, is_nan in given if is_nan]
            for row in gaps:
                del row[name]
            log.notes.append(
                f"{name}: nan in {len(gaps)} of {len(given)} rows, between numbers, counts as not measured"
            )


def _average(log: Log) -> None:
    """Averages neighbouring rows of a long log, but none in which a figure stops being finite."""
    count = len(log.rows)
    if count <= MOST_ROWS:
        return
    size = math.ceil(count / MOST_ROWS)
    parts: list[list[tuple[int, Row]]] = [[]]
    broken: set[str] = set()
    for step, row in log.rows:
        stops = {name for name, value in row.items() if not math.isfinite(value)} - broken
        if stops or len(parts[-1]) == size:
            parts.append([])
        broken |= stops
        parts[-1].append((step, row))
        if stops:
            parts.append([])
    log.rows = [(part[-1][0], _means(row for _, row in part)) for part in parts if part]
    log.notes.append(f"its {count} rows are averaged by {size}")


def _means(rows: Iterable[Row]) -> Row:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}
