"""Checks that apply to the values of every configuration: types, finite numbers, 64 bits."""

from __future__ import annotations

import functools
import math
import reprlib
import types
import typing
from dataclasses import fields
from typing import Any

from fastgan.ops._checks import check_one_of

INTEGERS = range(-(2**63), 2**63)
SEEDS = range(2**63)  # what both torch's and NumPy's generators take

Kind = Any
"""A type, or a construct of typing."""


def check_values(config: Any) -> None:
    """Checks each field of a dataclass against its annotation, and that numbers are usable.

    Supports bool, int, float, str, None, literals, unions, and tuples of them.

    Raises:
        TypeError: a field's value has another type.
        ValueError: not one of a literal's values; a number that is not finite or needs more than 64 bits; a
            string with a zero byte.
    """
    kinds = _kinds(config.__class__)
    for field in fields(config):
        _check_value(field.name, getattr(config, field.name), kinds[field.name])


def check_seed(option: str, seed: int) -> None:
    """Raises a ValueError for a seed that a generator does not take."""
    if seed not in SEEDS:
        raise ValueError(f"{option} must lie in [0, 2**63), got {_shown(seed)}")


@functools.cache
def _kinds(config_class: type) -> dict[str, Kind]:
    return typing.get_type_hints(config_class)


def _check_value(name: str, value: Any, kind: Kind) -> None:
    if typing.get_origin(kind) is tuple and isinstance(value, tuple):
        literal = typing.get_args(kind)[0]
    else:
        literal = kind
    if typing.get_origin(literal) is typing.Literal:
        for item in value if isinstance(value, tuple) else (value,):
            check_one_of(name, item, typing.get_args(literal))
    if not _matches(value, kind):
        raise TypeError(f"{name} must be of type {_type_name(kind)}, got {_shown(value)}")
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, int) and item not in INTEGERS:
            raise ValueError(f"{name} must fit in 64 bits, got {_shown(item)}")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{name} must be finite, got {_shown(item)}")
        if isinstance(item, str) and "\0" in item:
            raise ValueError(f"{name} must not have a zero byte, got {_shown(item)}")


def _matches(value: Any, kind: Kind) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, item) for item in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(item) and value == item for item in arguments)
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        if not isinstance(value, tuple) or not (several or len(value) == len(arguments)):
            return False
        kinds = arguments[:1] * len(value) if several else arguments
        return all(map(_matches, value, kinds))
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _type_name(kind: Kind) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _shown(value: object) -> str:
    """A text of bounded length: a value from a file may be of any size and depth."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer with more digits than Python converts to text
        return "an integer of thousands of digits"
