"""Every place where modules have an object, given another one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any


def rebind(swaps: dict[int, Any], others: Iterable[ModuleType] = ()) -> list[ModuleType]:
    """Puts another object wherever modules have one of these, by its id, and says which modules had any.

    Places are names of modules, items of lists and values of dicts among them, and attributes of the classes
    that a module defines; of torch, names of modules alone. fastgan's own modules keep what they have.

    Types are asked for, and no methods of the objects called: a proxy at a module's level may raise at a look
    at its `__class__`.

    Args:
        swaps: what to put in the place of the object with each id.
        others: modules to go through that may have left `sys.modules`.
    """
    rebound = []
    for module in {id(module): module for module in (*sys.modules.values(), *others)}.values():
        namespace = namespace_of(module)
        name = namespace.get("__name__")
        package = name.partition(".")[0] if isinstance(name, str) else ""
        if package in ("fastgan", "builtins", "sys"):
            continue
        found = False
        for key, value in list(namespace.items()):
            if id(value) in swaps:
                namespace[key] = swaps[id(value)]
                found = True
            elif package != "torch" and not (isinstance(key, str) and key.startswith("__")):
                found |= _rebind_inside(value, name, swaps)
        if found:
            rebound.append(module)
    return rebound


def namespace_of(module: Any) -> dict[str, Any]:
    """Its names, without running a lazy module; none of what has taken a module's place."""
    is_module = issubclass(type(module), ModuleType)
    return object.__getattribute__(module, "__dict__") if is_module else {}


def _rebind_inside(value: Any, module: Any, swaps: dict[int, Any]) -> bool:
    kind = type(value)
    if issubclass(kind, dict):
        return rebind_in_dict(value, swaps)
    if issubclass(kind, list):
        numbers = [number for number, item in enumerate(list.__iter__(value)) if id(item) in swaps]
        for number in numbers:
            list.__setitem__(value, number, swaps[id(list.__getitem__(value, number))])
        return bool(numbers)
    return issubclass(kind, type) and _rebind_in_class(value, module, swaps)


def _rebind_in_class(cls: type, module: Any, swaps: dict[int, Any]) -> bool:
    attributes, found = type.__getattribute__(cls, "__dict__"), False
    if attributes.get("__module__") != module:
        return False
    for key, attribute in list(attributes.items()):
        is_wrapped = type(attribute) in (staticmethod, classmethod)
        ours = swaps.get(id(attribute.__func__ if is_wrapped else attribute))
        if ours is not None:
            type.__setattr__(cls, key, type(attribute)(ours) if is_wrapped else ours)
            found = True
    return found


def rebind_in_dict(values: dict[Any, Any], swaps: dict[int, Any]) -> bool:
    """The same for the values of a dict; whether there were any."""
    found = [(key, value) for key, value in list(dict.items(values)) if id(value) in swaps]
    for key, value in found:
        dict.__setitem__(values, key, swaps[id(value)])
    return bool(found)
