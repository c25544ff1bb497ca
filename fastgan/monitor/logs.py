"""Logs of any trainer: CSV files, TSV files and TensorBoard's event files become rows as rules read them.

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
from fastgan.monitor.log_files import Row, is_events, listed, read_csv, read_events
from fastgan.monitor.log_names import NOT_OF_THE_GAME, PART_FAKE, PART_REAL, SIGNS, plain_name, recognized

MOST_ROWS = 200
"""Longer logs are averaged: rules were made for log lines that are means over many steps."""
STEPS = ("step", "global_step", "steps", "iteration", "iterations", "iter", "iters", "it", "i", "niter",
         "batch", "batches_done", "kimg", "epoch", "epochs")  # fmt: skip
"""Names of columns of steps; the first that is there and that counts rows is taken."""
EPOCHS = ("epoch", "epochs")


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
    """Reads a CSV or TSV file, a TensorBoard event file, or a folder with event files.

    Args:
        columns: names in the file by the names that rules know, "step" too; further ones are recognized.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read as any of these, has fewer than three rows, or lacks a column that is
            asked for; the message names the file and what is wrong.
        ModuleNotFoundError: event files need tensorboard.
    """
    columns = dict(columns or {})
    notes: list[str] = []
    if is_events(path):
        table = read_events(path)
        header = list(dict.fromkeys(name for row in table.values() for name in row))
        _check_columns(path, columns, header)
        steps, rows = list(table), list(table.values())
    else:
        header, rows = read_csv(path, notes)
        _check_columns(path, columns, header)
        steps = _steps(path, header, rows, columns.get("step"), notes)
    log = Log(_by_step(steps, rows, notes), recognized(header, columns, notes), notes)
    if rows and not any(rows):
        raise ValueError(f"{printable(path)} has no figures beside its steps; it has {listed(header)}")
    if len(log.rows) < ROWS:
        raise ValueError(
            f"{printable(path)} has {len(log.rows)} row{'s' if len(log.rows) != 1 else ''}: verdicts follow "
            f"figures over steps, and need {ROWS} rows at least"
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


# --- steps --------------------------------------------------------------------------------------------------


def _steps(
    path: Path, header: Sequence[str], rows: Sequence[Row], chosen: str | None, notes: list[str]
) -> list[int]:
    """The step of each row, -1 where it has none. Takes counters of all kinds out of the rows."""
    kinds = {re.sub(r".*/", "", name.casefold()).strip().replace(" ", "_"): name for name in reversed(header)}
    counters = [kinds[kind] for kind in STEPS if kind in kinds]
    epoch = next((kinds[kind] for kind in EPOCHS if kind in kinds), None)
    steps, problems = None, []
    if chosen is not None:
        steps, problem = _steps_of(rows, chosen)
        if problem == "has fractions":
            raise ValueError(
                f"--columns step={printable(chosen)}: {printable(path)} {problem} in that column"
            )
        steps = _counted_on(rows, chosen, epoch, steps, notes) or steps
    for name in counters if steps is None else ():
        found, problem = _steps_of(rows, name)
        if problem != "has fractions":
            steps = _counted_on(rows, name, epoch, found, notes)
            if steps is not None:
                break
        if not problem and _begins_again(found):
            problem = "begins again and again"
        if not problem:
            notes.append(f"steps are those of the column {name}")
            steps = found
            break
        problems.append(f"{name} {problem}")
    if steps is None:
        notes.append(f"steps are numbers of rows{': ' if problems else ''}{'; '.join(problems)}")
        steps = list(range(1, len(rows) + 1))
    for row in rows:
        for counter in (*counters, *([chosen] if chosen else [])):
            row.pop(counter, None)
    return steps


def _steps_of(rows: Sequence[Row], name: str) -> tuple[list[int], str]:
    """A column as steps, -1 where it has none, and why it cannot count them, or ""."""
    values = [row.get(name, math.nan) for row in rows]
    whole = [value for value in values if math.isfinite(value)]
    if any(value != int(value) for value in whole):
        return [], "has fractions"
    steps = [int(value) if 0 <= value < 2**63 else -1 for value in values]
    if len({step for step in steps if step >= 0}) < len(rows) / 2:
        return steps, "does not tell rows apart"
    return steps, ""


def _counted_on(
    rows: Sequence[Row], name: str, epoch: str | None, counts: Sequence[int], notes: list[str]
) -> list[int] | None:
    """Steps of a counter that begins again with each epoch, counted on; None if it is no such counter."""
    if epoch is None or epoch == name:
        return None
    epochs, problem = _steps_of(rows, epoch)
    if problem == "has fractions" or min(epochs) < 0 or min(counts) < 0:
        return None
    pairs = list(zip(itertools.pairwise(epochs), itertools.pairwise(counts), strict=True))
    falls = [epoch_before != epoch_after for (epoch_before, epoch_after), (n, m) in pairs if m < n]
    # Counters of the whole run go on where an epoch begins, and fall with it where a run is resumed.
    goes_on = any(epoch_after > epoch_before and m > n for (epoch_before, epoch_after), (n, m) in pairs)
    if not falls or not all(falls) or goes_on:
        return None
    apart = min(abs(after - before) for before, after in itertools.pairwise(counts) if after != before)
    per_epoch = max(counts) - min(counts) + apart
    notes.append(
        f"{name} begins again with each {epoch}: steps are {name} plus {per_epoch} for each {epoch} before"
    )
    return [count + per_epoch * (number - min(epochs)) for number, count in zip(epochs, counts, strict=True)]


def _begins_again(steps: Sequence[int]) -> bool:
    """Whether a counter falls to where it began, again and again or after a half: no log is resumed so."""
    given = [step for step in steps if step >= 0]
    starts = sum(after < before and after <= given[0] for before, after in itertools.pairwise(given))
    return starts > 0 and len(set(given)) <= 0.5 * len(given)


def _by_step(steps: Sequence[int], rows: Sequence[Row], notes: list[str]) -> list[tuple[int, Row]]:
    """Rows in the order of steps; of one step, later values replace earlier ones."""
    numbered = [(step, row) for step, row in zip(steps, rows, strict=True) if step >= 0]
    if len(numbered) < len(rows):
        notes.append(f"{len(rows) - len(numbered)} of {len(rows)} rows have no step and are left out")
    merged: dict[int, Row] = {}
    for step, row in numbered:
        merged.setdefault(step, {}).update(row)
    given = [step for step, _ in numbered]
    if len(merged) < len(given):
        notes.append(f"{len(given) - len(merged)} steps are there more than once: the last row counts")
    if given != sorted(given):
        notes.append("rows were not in the order of steps, and are sorted")
    return sorted(merged.items())


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
