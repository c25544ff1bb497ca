"""Logs whose lines name their figures: JSON, an object a line, and messages as "epoch: 1, D_real: 0.5"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastgan.monitor.log_names import Row

FEWEST_FIGURES = 2
"""Of a line; one with fewer is text that happens to have a number."""
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_WORD = r"[a-z][\w()/.\-]{0,100}"
# The name may have two words, "D loss", and parentheses, "D(G(z))".
_FIGURE = re.compile(rf"(?<![\w.])({_WORD}(?: {_WORD})?)\s*[:=]\s*({_NUMBER})(?![\w:]|\.\d)", re.IGNORECASE)
# "[Epoch 1/200] [Batch 3/938]", and "[1/200][3/938]" as PyTorch's example of DCGAN prints them.
_COUNTER = re.compile(r"\b(epoch|batch|iter|iteration|step)\s+(\d+)\s*/\s*\d+", re.IGNORECASE)
_TWO_COUNTERS = re.compile(r"^\s*\[(\d+)/\d+\]\s*\[(\d+)/\d+\]")


# --- JSON ---------------------------------------------------------------------------------------------------


def rows_of_json(text: str, lines: list[str], notes: list[str]) -> list[Row] | None:
    """The objects as rows, of lines or of one list; None if this is no JSON.

    Objects within an object give their "mean", as those of StyleGAN, or else each of their figures.
    """
    first = text.lstrip()[:1]
    objects: list[Any] = []
    if first == "[":
        try:
            objects = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return [_row(each) for each in objects] if all(isinstance(each, dict) for each in objects) else None
    if first != "{":
        return None
    torn = 0
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        torn += not isinstance(found, dict)
        objects += [found] if isinstance(found, dict) else []
    if len(objects) <= torn:
        return None
    if torn:
        notes.append(f"{torn} of {len(lines)} lines are no JSON objects and are left out")
    return [_row(each) for each in objects]


def _row(found: Mapping[str, Any]) -> Row:
    return dict(_figures(found, ""))


def _figures(found: Mapping[str, Any], before: str) -> Iterator[tuple[str, float]]:
    for name, value in found.items():
        if isinstance(value, dict):
            if _is_number(value.get("mean")):
                yield before + name, _as_float(value["mean"])
            else:
                yield from _figures(value, f"{before}{name}/")
        elif _is_number(value):
            yield before + name, _as_float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


# --- messages -----------------------------------------------------------------------------------------------


def rows_of_messages(lines: list[str], notes: list[str]) -> list[Row] | None:
    """The figures that most lines name, "name: number"; None if most lines do not."""
    rows = [_named(line) for line in lines]
    kept = [row for row in rows if len(row) >= FEWEST_FIGURES]
    if 2 * len(kept) < len(lines):
        return None
    if len(kept) < len(lines):
        notes.append(
            f"{len(lines) - len(kept)} of {len(lines)} lines do not name {FEWEST_FIGURES} figures and are "
            "left out"
        )
    return kept


def _named(line: str) -> Row:
    counters = [(name.casefold(), number) for name, number in _COUNTER.findall(line)]
    if found := _TWO_COUNTERS.match(line):
        counters += [("epoch", found[1]), ("batch", found[2])]
    # Of a name that is there several times, the first figure counts, as the one before a repetition.
    return {name: float(number) for name, number in reversed([*counters, *_FIGURE.findall(line)])}
