"""What an entry is, and how one is declared."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import fastgan


@dataclass(frozen=True)
class Entry:
    """A public callable and a valid call of it."""

    name: str
    """Its path below `fastgan`, as "losses.R1.__call__"; for a class, its constructor."""
    make: Callable[[], dict[str, Any]]
    """Fresh arguments, by name: those without a default, and those whose default is not the case to test."""
    run: Callable[..., Any]
    """Calls it. What a constructor makes is also used once, since an argument may be looked at no earlier."""
    raises: tuple[type[Exception], ...] = ()
    """What its documentation promises to raise beside TypeError and ValueError."""

    def arguments(self) -> dict[str, Any]:
        """All arguments of the valid call, the signature's defaults among them."""
        parameters = inspect.signature(resolve(self.name)).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return {**defaults, **self.make()}


ENTRIES: dict[str, Entry] = {}


def entry(
    name: str,
    make: Callable[[], dict[str, Any]] = dict,
    run: Callable[..., Any] | None = None,
    raises: tuple[type[Exception], ...] = (),
) -> None:
    """A function, or what `run` does with it."""
    ENTRIES[name] = Entry(name, make, run or resolve(name), raises)


def constructor(
    name: str,
    make: Callable[[], dict[str, Any]],
    use: Callable[[Any], Any],
    raises: tuple[type[Exception], ...] = (),
) -> None:
    """What makes an object, which is then used."""
    entry(name, make, lambda **arguments: use(resolve(name)(**arguments)), raises)


def method(
    name: str,
    make: Callable[[], dict[str, Any]],
    owner: Callable[[], Any],
    raises: tuple[type[Exception], ...] = (),
) -> None:
    """A method of the object that `owner` makes."""
    called = name.rsplit(".", 1)[1]
    entry(name, make, lambda **arguments: getattr(owner(), called)(**arguments), raises)


def resolve(name: str) -> Any:
    """What is found under a path below `fastgan`."""
    found: Any = fastgan
    for part in name.split("."):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found
