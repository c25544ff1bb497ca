"""The figures of a run over its steps, read through windows of log lines."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

ROWS = 3
"""Log lines that a window averages."""
STALE = 3.0
"""A figure that has not been measured for so many of its usual intervals says nothing any more."""
LARGEST = 1e39
"""Larger values, beyond float32's range, count as infinite."""


class History:
    """All figures of a run so far by column, in the order of steps.

    Columns may be sparse: a row gives values for some of them.
    """

    def __init__(self) -> None:
        self.step = 0
        """That of the newest row."""
        self.row: Mapping[str, float] = {}
        """The newest row."""
        self.columns: dict[str, list[tuple[int, float]]] = {}
        """Pairs of step and value by column; NaN stands for a value that was NaN or infinite."""
        self._finite: dict[str, list[float]] = {}
        # For `lowest`, `highest` and `usual_size`, which rules ask for at every row.
        self._bounds: dict[str, tuple[float, float]] = {}
        self._sorted_sizes: dict[str, list[float]] = {}

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Adds a row; its steps must not fall.

        A value that is NaN, infinite, or beyond float32's range is none.

        Raises:
            ValueError: a step before the newest one.
        """
        if step < self.step:
            raise ValueError(f"step must not fall, got {step} after {self.step}")
        self.step, self.row = step, row
        for name, value in row.items():
            is_finite = abs(value) < LARGEST
            self.columns.setdefault(name, []).append((step, value if is_finite else math.nan))
            if is_finite:
                self._finite.setdefault(name, []).append(value)
                low, high = self._bounds.get(name, (value, value))
                self._bounds[name] = min(low, value), max(high, value)

    def is_new(self, *names: str) -> bool:
        """Whether the newest row has one of these columns."""
        return any(name in self.row for name in names)

    def is_stale(self, name: str) -> bool:
        """Whether a column is measured no longer; False for one that never was."""
        values = self.columns.get(name, [])
        return bool(values) and is_overdue(self.step, values[0][0], values[-1][0], len(values))

    def values(self, name: str) -> Sequence[float]:
        """All finite values of a column."""
        return self._finite.get(name, [])

    def lowest(self, name: str) -> float | None:
        """The lowest finite value of a column, or None."""
        return self._bounds[name][0] if name in self._bounds else None

    def highest(self, name: str) -> float | None:
        """The highest finite value of a column, or None."""
        return self._bounds[name][1] if name in self._bounds else None

    def usual_size(self, name: str, but_last: int) -> float | None:
        """The median absolute value of a column without its last values, or None."""
        values, sizes = self.values(name), self._sorted_sizes.setdefault(name, [])
        for value in values[len(sizes) : max(0, len(values) - but_last)]:
            bisect.insort(sizes, abs(value))
        middle = len(sizes) // 2
        return (sizes[middle] + sizes[~middle]) / 2 if sizes else None

    def mean(self, name: str, rows: int = ROWS) -> float | None:
        """The mean of a column's last values; None where it has fewer than `rows`, or is stale."""
        values = self.columns.get(name, [])[-rows:]
        if len(values) < rows or self.is_stale(name) or any(math.isnan(value) for _, value in values):
            return None
        return statistics.fmean(value for _, value in values)

    def last(self, name: str) -> float | None:
        """The newest value of a column, or None if it has none, or is stale."""
        values = self.columns.get(name)
        return None if not values or math.isnan(values[-1][1]) or self.is_stale(name) else values[-1][1]

    def first(self, name: str) -> float | None:
        """The first value of a column, or None."""
        return next(iter(self.values(name)), None)

    def at(self, name: str, step: int) -> float | None:
        """The newest finite value of a column up to a step, or None."""
        values = self.columns.get(name, [])
        until = bisect.bisect_right(values, step, key=lambda pair: pair[0])
        return next((value for _, value in reversed(values[:until]) if not math.isnan(value)), None)

    def not_finite(self, name: str) -> list[int]:
        """The steps, up to the newest, at which a column has only been NaN or infinite."""
        steps = []
        for step, value in reversed(self.columns.get(name, [])):
            if not math.isnan(value):
                break
            steps.append(step)
        return steps[::-1]

    def is_rising(self, name: str, rows: int = ROWS) -> bool:
        """Whether a column, such as a weight, has risen with each of its last values."""
        values = [value for _, value in self.columns.get(name, [])[-rows:]]
        return len(values) == rows and all(a < b for a, b in itertools.pairwise(values))

    def names(self, prefix: str, suffix: str = "") -> list[str]:
        """What stands between prefix and suffix in the newest row's columns."""
        return [
            name[len(prefix) : len(name) - len(suffix)]
            for name in self.row
            if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix)
        ]


def is_overdue(now: int, first: int, last: int, count: int) -> bool:
    """Whether something that has come `count` times, in steps, should have come again by now."""
    usual = (last - first) / (count - 1) if count > 1 else last
    return now - last > STALE * max(usual, 1)
