"""Tables that Weights & Biases exports: "RUN - FIGURE" beside "RUN - FIGURE__MIN" and "RUN - FIGURE__MAX"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fastgan._names import printable
from fastgan.monitor.log_names import Row, listed

_COLUMN = re.compile(r"(?P<run>.+) - (?P<figure>.+?)(?P<bound>__MIN|__MAX)?", re.DOTALL)
_COUNTERS = re.compile(r"(global_)?step|relative time.*|wall time|_?(runtime|timestamp)", re.IGNORECASE)


def without_runs(
    path: Path, header: list[str], rows: list[Row], columns: Mapping[str, str], notes: list[str]
) -> tuple[list[str], list[Row], dict[str, str]]:
    """The table of one run without its name, and what is asked for likewise; another table as it is.

    Args:
        columns: names in the file by the names that rules know, as the user asks for them; of several runs,
            the one that they name is taken.

    Raises:
        ValueError: it has several runs, and none is asked for.
    """
    parts = {name: found for name in header if (found := _COLUMN.fullmatch(name))}
    if not parts or any(name not in parts and not _COUNTERS.fullmatch(name) for name in header):
        return header, rows, dict(columns)
    runs = list(dict.fromkeys(found["run"] for found in parts.values()))
    asked = list(dict.fromkeys(parts[name]["run"] for name in columns.values() if name in parts))
    if len(asked or runs) > 1:
        raise ValueError(
            f"{printable(path)} holds {len(runs)} runs, and one at a time is judged: name its figures by "
            f"--columns, as {printable(f'D_loss={next(iter(parts))}')}; it has {listed(runs)}"
        )
    (run,) = asked or runs
    plain = {name: name for name in header if name not in parts}
    bounds = 0
    for name, found in parts.items():
        is_bound = found["bound"] is not None and f"{run} - {found['figure']}" in parts
        bounds += is_bound
        # `_step` and others of that kind are the run's own counters.
        if found["run"] == run and not is_bound and not found["figure"].startswith("_"):
            plain[name] = found["figure"] + (found["bound"] or "")
    others = f", not {listed([each for each in runs if each != run])}" if len(runs) > 1 else ""
    notes.append(f"figures are those of the run {run}{others}")
    if bounds:
        notes.append(f"{bounds} columns of lowest and highest values (__MIN, __MAX) are left out")
    return (
        list(plain.values()),
        [{plain[name]: value for name, value in row.items() if name in plain} for row in rows],
        {ours: plain.get(theirs, theirs) for ours, theirs in columns.items()},
    )
