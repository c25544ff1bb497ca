"""What can be declared of a library: its names that have an equal here, and those that have none."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Probe = Callable[[Any], Iterable[Tensor]]
"""Calls an original or what stands in for it, with the same small inputs each time, and gives its results."""


@dataclass(frozen=True)
class Replacement:
    """A function, class or method of a library, and its equal."""

    module: str
    """The module that defines it, by the name under which the library's own code imports it."""
    name: str
    """Its name in the module; `Class.method` for an attribute of a class."""
    ours: Any = None
    """A function or class with the same signature, perhaps with more arguments behind."""
    adapt: Callable[[Any], Any] | None = None
    """In place of `ours`: makes the function from the original, which serves the other cases."""
    probe: Probe | None = None
    """Its results must be the same with both. None: no other code has this name, so nothing is compared."""
    serves: str = ""
    """The cases that are served, if not all."""

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Extension:
    """CUDA code that a module compiles while it is imported, by `torch.utils.cpp_extension.load`."""

    module: str
    """The module whose own code calls `load`."""
    name: str
    """The module's global variable that holds the compiled extension."""
    build: str
    """The name that the extension is built under: the first argument of `load`."""
    ours: Any
    """What the variable holds instead: an object that has the extension's functions."""
    environment: tuple[str, str] | None = None
    """The environment variable, and its value, with which the module compiles it; None: it always does."""

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def serves(self) -> str:
        """What is said of it in lists of what is replaced."""
        condition = "" if self.environment is None else f" with {'='.join(self.environment)}"
        return f"the extension, which is not compiled{condition}"

    @property
    def is_wanted(self) -> bool:
        """Whether an import of the module would compile it now."""
        return self.environment is None or os.environ.get(self.environment[0]) == self.environment[1]


@dataclass(frozen=True)
class Kept:
    """What a user might expect to be replaced, and why it is not."""

    path: str
    because: str


@dataclass(frozen=True)
class Target:
    """All that is declared of one library."""

    name: str
    """As given to `fastgan.patch`."""
    replacements: tuple[Replacement, ...]
    kept: tuple[Kept, ...] = ()
    registries: tuple[str, ...] = field(default=())
    """Dicts of names to classes, as "module:object.attribute"."""
    extensions: tuple[Extension, ...] = ()
    """Of modules that define a replacement, too."""


def names() -> list[str]:
    """Of all declared libraries."""
    return sorted(_load(module).name for module in _files())


def target_of(name: str) -> Target | None:
    """What is declared of a library, or None of an unknown name."""
    module = name.replace(".", "_") if isinstance(name, str) else ""
    target = _load(module) if module in _files() else None
    return target if target is not None and target.name == name else None


def _load(module: str) -> Target:
    target: Target = importlib.import_module(f"fastgan.patching.targets.{module}").TARGET
    return target


def _files() -> list[str]:
    targets = importlib.import_module("fastgan.patching.targets")
    return [module.name for module in pkgutil.iter_modules(targets.__path__)]
