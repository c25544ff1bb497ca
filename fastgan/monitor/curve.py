"""One column of a run, read in words: where it stands, where it is going, its weight and its share."""

from __future__ import annotations

import math
import re
import statistics

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History


class Curve:
    """A column's values, read by tenths of the log lines that have it."""

    def __init__(self, name: str, history: History, facts: Facts) -> None:
        self.name, self.history, self.facts = name, history, facts
        self.values = history.values(name)
        self.now = self.latest(name)

    def latest(self, name: str) -> float | None:
        """The mean of the last tenth of a column's values; None if it has none."""
        return latest(self.history, name)

    def course(self) -> str:
        """The newest value, the first one, and where it is going."""
        broken = self.history.not_finite(self.name)
        gone = f"It has been NaN or infinite since step {broken[0]}." if broken else ""
        if self.now is None:
            return gone or "It has no value yet."
        first = statistics.fmean(self.values[: math.ceil(len(self.values) / 10)])
        if min(self.values) == max(self.values):
            return f"It is {number(self.now)} throughout. {gone}".rstrip()
        begins = f"It is {number(self.now)} now" if not gone else f"It was {number(self.now)}"
        if len(self.values) < 4:
            return f"{begins}, {number(first)} at first. {gone}".rstrip()
        return f"{begins}, {number(first)} at first, and {self.trend()} of late. {gone}".rstrip()

    def trend(self) -> str:
        """Whether the last quarter of the values lies above or below the one before, beyond their scatter."""
        quarter = max(len(self.values) // 4, 2)
        before, late = self.values[-2 * quarter : -quarter], self.values[-quarter:]
        change = statistics.fmean(late) - statistics.fmean(before)
        scatter = (statistics.pstdev(before) + statistics.pstdev(late)) / 2
        size = max(map(abs, (*before, *late)))
        if abs(change) <= max(0.5 * scatter, 0.02 * size):
            return "level"
        return "rising" if change > 0 else "falling"

    def weighted(self) -> str:
        """The weight of a term, and its share of G's gradient."""
        weight = self.latest(f"{self.name}_weight")
        terms = (self.name, self.name.removesuffix("_loss"), re.sub(r"_(ref|lat)_loss$", "", self.name))
        share = next((value for term in terms if (value := self.latest(f"share_{term}")) is not None), None)
        if weight == 0:
            return "Its weight is 0 now."
        parts = [
            "" if weight is None else f"weight {number(weight)}",
            "" if share is None else f"share {share:.1%} of G's gradient",
        ]
        known = ", ".join(filter(None, parts))
        return f"In G's loss: {known}." if known else ""


def latest(history: History, name: str) -> float | None:
    """The mean of the last tenth of a column's finite values; None if it has none."""
    values = history.values(name)
    return statistics.fmean(values[-math.ceil(len(values) / 10) :]) if values else None


def number(value: float) -> str:
    return f"{value:.3g}"


def reads(text: str, *cases: tuple[bool, str]) -> str:
    """The text, and what the first case that holds says of it."""
    return " ".join(filter(None, (text, next((says for holds, says in cases if holds), ""))))
