"""Logs in JSON: objects in lines, in a list or one after another, or a list for each figure."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastgan.monitor.log_names import Row, listed

FORMS = (
    "objects, one a line, one after another, in a list, or in a list within an object, as Hugging Face's "
    "log_history; or an object that has a list of numbers for each figure"
)
_BEGIN = re.compile(r'\s*(\{\s*(["}]|$)|\[\s*([\[\]{"]|$))')
_BETWEEN = re.compile(r"[\s,]*")


def is_json(text: str) -> bool:
    """Whether a text begins as JSON does."""
    return _BEGIN.match(text) is not None


def rows_of_json(text: str, lines: list[str], notes: list[str]) -> list[Row] | None:
    """The objects as rows; None if this is no JSON of one of the FORMS.

    Objects within an object give their "mean", as those of StyleGAN, or else each of their figures.
    """
    if not is_json(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return _rows_of_object(found, notes)
    if found is not None:
        return [_row(each) for each in found] if _are_objects(found) else None
    return _rows_of_lines(lines, notes) or _rows_one_after_another(text, notes)


def _rows_of_lines(lines: list[str], notes: list[str]) -> list[Row] | None:
    """Of an object a line, if most lines are one."""
    objects = []
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        objects += [found] if isinstance(found, dict) else []
    torn = len(lines) - len(objects)
    if len(objects) <= torn:
        return None
    if torn:
        notes.append(f"{torn} of {len(lines)} lines are no JSON objects and are left out")
    return [_row(each) for each in objects]


def _rows_one_after_another(text: str, notes: list[str]) -> list[Row] | None:
    """Of objects over several lines or none, also those of a list that is cut off."""
    objects: list[dict[str, Any]] = []
    place = len(text) - len(text.lstrip().removeprefix("["))
    decoder = json.JSONDecoder()
    while (place := _BETWEEN.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        try:
            found, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            if objects:
                notes.append(f"what follows the first {len(objects)} objects of JSON is none and is left out")
            break
        objects.append(found)
    return [_row(each) for each in objects] if objects else None


def _rows_of_object(found: dict[str, Any], notes: list[str]) -> list[Row]:
    """Of a file that is one object: those of a list of objects in it, or of its lists of numbers."""
    histories = {name: value for name, value in found.items() if _are_objects(value)}
    if histories:
        longest = max(histories, key=lambda name: (name == "log_history", len(histories[name])))
        others = [name for name in histories if name != longest]
        notes.append(f"rows are the objects of {longest}{f', not of {listed(others)}' if others else ''}")
        return [_row(each) for each in histories[longest]]
    columns = dict(_lists(found, ""))
    if not columns:
        return [_row(found)]
    lengths = sorted({len(values) for values in columns.values()})
    spread = "" if len(lengths) == 1 else f", which have {lengths[0]} to {lengths[-1]} values"
    notes.append(f"rows are the places in the lists of figures{spread}")
    return [
        {name: _as_float(value) for name, value in zip(columns, values, strict=True) if value is not None}
        for values in itertools.zip_longest(*columns.values())
    ]


def _lists(found: Mapping[str, Any], before: str) -> Iterator[tuple[str, list[Any]]]:
    for name, value in found.items():
        if isinstance(value, dict) and value and all(key.isdecimal() for key in value):  # as pandas writes
            value = list(value.values())
        if isinstance(value, dict):
            yield from _lists(value, f"{before}{name}/")
        elif isinstance(value, list) and _are_numbers(value):
            yield before + name, value


def _are_objects(found: object) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(each, dict) for each in found)


def _are_numbers(values: list[Any]) -> bool:
    """Whether these are numbers, of which some may be missing, but not all."""
    return any(map(_is_number, values)) and all(each is None or _is_number(each) for each in values)


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
