"""Every place where modules have an object, given another one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def rebind(swaps: dict[int, Any]) -> list[str]:
    """Puts another object wherever modules have one of these, by its id, and says where.

    Places are names of modules, values of dicts among them, and attributes of the classes that a module
    defines; of torch, names of modules alone. fastgan's own modules keep what they have.
    """
    places = []
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package in ("fastgan", "builtins", "sys") or not isinstance(module, ModuleType):
            continue
        namespace = namespace_of(module)
        for key, value in list(namespace.items()):
            if id(value) in swaps:
                namespace[key] = swaps[id(value)]
                places.append(f"{name}.{key}")
            elif package != "torch" and not key.startswith("__"):
                places += [f"{name}.{key}{part}" for part in _rebind_inside(value, name, swaps)]
    return places


def namespace_of(module: ModuleType) -> dict[str, Any]:
    """Its names, without running a lazy module."""
    namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return namespace


def _rebind_inside(value: Any, module: str, swaps: dict[int, Any]) -> Iterator[str]:
    if type(value) is dict:
        yield from rebind_in_dict(value, swaps)
    elif isinstance(value, type) and value.__dict__.get("__module__") == module:
        for key, attribute in list(value.__dict__.items()):
            if id(attribute) in swaps:
                type.__setattr__(value, key, swaps[id(attribute)])
                yield f".{key}"


def rebind_in_dict(values: dict[Any, Any], swaps: dict[int, Any]) -> Iterator[str]:
    """The same for the values of a dict."""
    for key, value in list(values.items()):
        if id(value) in swaps:
            values[key] = swaps[id(value)]
            yield f"[{key!r}]"
