"""Calls a function after a module has been imported, and prepares what it needs while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Context = AbstractContextManager[None]


class Watch(MetaPathFinder):
    """A finder that finds what others find, and calls back after such a module has run.

    Args:
        modules: names to watch.
        during: gives a context that the module runs in, by its name.
        then: called with the name, in the thread that imports.
    """

    def __init__(
        self, modules: set[str], during: Callable[[str], Context], then: Callable[[str], None]
    ) -> None:
        self.modules, self._during, self._then = modules, during, then

    def start(self) -> None:
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.modules:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else []
        for finder in after:
            find_spec = getattr(finder, "find_spec", None)  # finders of the old kind have none
            spec: ModuleSpec | None = find_spec and find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._during, self._then)
                return spec
        return None


class _Loader(Loader):
    """Runs a module by its own loader, which the module then has as if nothing had been between."""

    def __init__(self, loader: Any, during: Callable[[str], Context], then: Callable[[str], None]) -> None:
        self._loader, self._during, self._then = loader, during, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        spec.loader = self._loader
        module: ModuleType | None = self._loader.create_module(spec)
        spec.loader = self
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        with self._during(module.__name__):
            self._loader.exec_module(module)
        self._then(module.__name__)
