"""Steps of a log's rows: which column counts them, and how."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastgan._names import printable
from fastgan.monitor.history import ROWS
from fastgan.monitor.log_names import Row

STEPS = ("step", "global_step", "steps", "iteration", "iterations", "iter", "iters", "it", "i", "niter",
         "batch", "batches_done", "kimg", "tick", "epoch", "epochs")  # fmt: skip
"""Names of columns of steps; the first that is there and that counts rows is taken."""
EPOCHS = ("epoch", "epochs")
EXACT = 2.0**53
"""Up to here, numbers that are read tell all whole numbers apart."""
FRACTIONS, TOO_LARGE = "has fractions", "has numbers too large to be read exactly (beyond 2^53)"


def steps_of(
    path: Path, header: Sequence[str], rows: Sequence[Row], columns: Mapping[str, str], notes: list[str]
) -> list[int]:
    """The step of each row, -1 where it has none. Takes counters of all kinds out of the rows."""
    kinds = {re.sub(r".*/", "", name.casefold()).strip().replace(" ", "_"): name for name in reversed(header)}
    counters = [kinds[kind] for kind in STEPS if kind in kinds]
    chosen = columns.get("step")
    for ours, theirs in columns.items():
        if ours != "step" and theirs in counters:
            raise ValueError(
                f"--columns {printable(f'{ours}={theirs}')}: {printable(theirs)} counts the steps of "
                f"{printable(path)} and is no figure"
            )
    epoch = next((kinds[kind] for kind in EPOCHS if kind in kinds), None)
    steps, problems = None, []
    if chosen is not None:
        steps, problem = _column(rows, chosen)
        if problem in (FRACTIONS, TOO_LARGE):
            raise ValueError(
                f"--columns step={printable(chosen)}: {printable(path)} {problem} in that column"
            )
        steps = _counted_on(rows, chosen, epoch, steps, notes) or steps
        if len(rows) >= ROWS > len(set(steps)):
            raise ValueError(
                f"--columns step={printable(chosen)}: {printable(path)} has fewer than {ROWS} different "
                "steps in that column"
            )
    for name in counters if steps is None else ():
        found, problem = _column(rows, name)
        if problem not in (FRACTIONS, TOO_LARGE):
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


def _column(rows: Sequence[Row], name: str) -> tuple[list[int], str]:
    """A column as steps, -1 where it has none, and why it cannot count them, or ""."""
    values = [row.get(name, math.nan) for row in rows]
    whole = [value for value in values if math.isfinite(value)]
    if any(value != int(value) for value in whole):
        return [], FRACTIONS
    steps = [int(value) if 0 <= value < 2**63 else -1 for value in values]
    are_few = len({step for step in steps if step >= 0}) < len(rows) / 2
    # A single one beyond all steps is a torn row, and has no step.
    if any(EXACT < value < 2**63 for value in whole) or (are_few and max(whole, default=0) > EXACT):
        return steps, TOO_LARGE
    if are_few:
        return steps, "does not tell rows apart"
    return steps, ""


def _counted_on(
    rows: Sequence[Row], name: str, epoch: str | None, counts: Sequence[int], notes: list[str]
) -> list[int] | None:
    """Steps of a counter that begins again with each epoch, counted on; None if it is no such counter."""
    if epoch is None or epoch == name:
        return None
    epochs, problem = _column(rows, epoch)
    if problem in (FRACTIONS, TOO_LARGE) or min(epochs) < 0 or min(counts) < 0:
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


def by_step(steps: Sequence[int], rows: Sequence[Row], notes: list[str]) -> list[tuple[int, Row]]:
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
