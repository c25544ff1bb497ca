"""Imports of modules that compile CUDA code, without the compiler."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastgan.patching._declare import Extension
from fastgan.patching._rebind import rebind

Served = dict[tuple[str, str], Any]
"""What stands in for extensions, by the module that asks for one and the name it is built under."""

_lock = threading.Lock()
# Of the imports that run now, in any thread.
_served: list[Served] = []
# (ours, torch's) while such an import runs, else empty.
_exchanged: list[tuple[Callable[..., Any], Callable[..., Any]]] = []


@contextmanager
def without_compiling(extensions: Sequence[Extension]) -> Iterator[None]:
    """Has `torch.utils.cpp_extension.load` give fastgan's equals to the modules of these extensions.

    The function is exchanged for all threads, once for all imports that overlap, and the last to end puts
    torch's back, also in modules that have taken it by `from ... import load`. Only the code of a declared
    module that is being imported gets an equal; every other caller gets what torch's function returns, so
    that a module imported meanwhile compiles its own extension, whatever its name.

    Not served, and compiled as before, is an extension that a declared module loads by a helper in another
    module. Ours stays where :func:`rebind` does not reach, such as in a tuple, a closure or a decorator that
    another thread put around it meanwhile; there it goes on calling torch's.
    """
    if not extensions:
        yield
        return
    served = {(extension.module, extension.build): extension.ours for extension in extensions}
    cpp_extension: Any = importlib.import_module("torch.utils.cpp_extension")  # before the lock: it may wait
    try:
        with _lock:
            _served.append(served)
            if not _exchanged:
                _exchanged.append((_instead_of(cpp_extension.load), cpp_extension.load))
                cpp_extension.load = _exchanged[0][0]
        yield
    finally:
        with _lock:
            _served[:] = [each for each in _served if each is not served]
            if not _served and _exchanged:
                ours, compiles = _exchanged.pop()
                rebind({id(ours): compiles})


def _instead_of(compiles: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compiles)
    def load(name: str, *args: Any, **options: Any) -> Any:
        asked = sys._getframe(1).f_globals.get("__name__"), name
        for served in list(_served):
            if asked in served:
                return served[asked]
        return compiles(name, *args, **options)

    return load
