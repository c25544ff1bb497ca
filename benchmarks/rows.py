"""Files of measured rows, and the message at the end of a measurement."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def merge_rows(
    rows: list[dict[str, Any]],
    folder: Path,
    kind: str,
    device: str,
    keys: tuple[str, ...],
    *,
    order: Callable[[dict[str, Any]], Any] | None = None,
) -> Path:
    """Writes rows to folder/KIND-DEVICE.json, where they replace those of equal `keys`; returns the path.

    They are sorted by the keys; with an `order` by the first key and then by it. Rows that are alike in both
    stay as they stood.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(kind, device)}.json"
    existing = json.loads(path.read_text()) if path.exists() else []

    def values(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[key] for key in keys)

    measured = {values(row) for row in rows}
    kept = [row for row in existing if values(row) not in measured]
    merged = sorted([*kept, *rows], key=lambda row: (row[keys[0]], order(row)) if order else values(row))
    path.write_text(json.dumps(merged, indent=1) + "\n")
    return path


def conclude(path: Path | None, failed: Iterable[str]) -> int:
    """Prints the file that was written and what failed, each once; returns the exit status."""
    failed = list(dict.fromkeys(failed))
    if path:
        print(f"\nwritten to {path}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


def file_name(kind: str, device: str) -> str:
    """The file's name without extension: KIND-DEVICE, or one of them where the other is empty."""
    name = "".join(c if c.isalnum() else "-" for c in device.lower()).strip("-")
    return "-".join(part for part in (kind, name) if part)


def said(rows: list[dict[str, Any]]) -> list[str]:
    """The verdicts said of runs of several seeds, as "NAME SUBJECT", with how many seeds where not of all."""
    by_seed = [{f"{v['name']} {v['subject']}".strip() for v in row["verdicts"]} for row in rows]
    counts = {name: sum(name in names for names in by_seed) for name in sorted(set().union(*by_seed))}
    return [
        name if count == len(rows) else f"{name} ({count} of {len(rows)})" for name, count in counts.items()
    ]


def mean_and_deviation(values: Sequence[float | None]) -> str:
    """The mean of the values that are numbers, "±" their deviation, and how many they are where not all."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    text = f"{statistics.fmean(numbers):.3g}"
    if len(numbers) > 1:
        text += f" ± {statistics.stdev(numbers):.2g}"
    return text if len(numbers) == len(values) else f"{text} ({len(numbers)} of {len(values)})"
