"""One line that puts fused functions in the places of a library's own: `fastgan.patch("basicsr")`.

What is replaced is declared in `fastgan/patching/targets`, a file for each library.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from fastgan.ops._checks import as_flag, shown
from fastgan.patching import _declare
from fastgan.patching._extensions import without_compiling
from fastgan.patching._imports import Context, Watch
from fastgan.patching._patch import Patch

__all__ = ["Patch", "patch", "unpatch"]

# Reentrant: a module that is imported under it may import a watched one.
_lock = threading.RLock()
_active: list[Patch] = []
# Names of modules that have been imported and not been looked at.
_imported: deque[str] = deque()


def patch(*names: str, quiet: bool = False) -> Patch:
    """Replaces what a library has and fastgan has an exact equal for; usable as a context manager.

    What is imported already is replaced wherever modules have it, as after `from x import y`; what is
    imported later, right after its module has run. The library itself is not imported. A name is replaced if
    its signature is the expected one, and if both give the same values, gradients and random draws for small
    inputs; what is not is listed with the reason, and nothing else changes. The list is printed once. CUDA
    code that a module compiles while it is imported, and that fastgan has an equal for, is not compiled.

    Instances made before keep their class, and so do classes derived from one. Out of reach are default
    arguments, closures, attributes of instances, tuples, containers within containers, and functions inside
    functools.partial.

    Args:
        names: of libraries, such as "torch.optim", "lpips" or "basicsr": docs/patch.md lists what each has.
        quiet: whether to print nothing.

    Returns:
        What was replaced and what was not; `print` it, or call its `unpatch`.

    Raises:
        TypeError, ValueError: no name, an unknown one, or one that is patched already.
    """
    quiet = as_flag("quiet", quiet)
    targets = []
    for name in names:
        target = _declare.target_of(name)
        if target is None:
            raise ValueError(f"names must be of {', '.join(_declare.names())}, got {shown(name)}")
        targets.append(target)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be one or several different ones, got {shown(names)}")
    with _alone():
        patched = [name for patch in _active for name in patch.names if name in names]
        if patched:
            raise ValueError(f"{patched[0]} is patched already; fastgan.unpatch() puts everything back")
        applied = Patch(targets, quiet, _undo)
        _active.append(applied)
        if _watch not in _started:
            _watch.start()
            _started.append(_watch)
        _watch.modules.update(applied.modules)
        try:
            for module in applied.modules:
                applied.apply(module)
        except BaseException:
            _undo(applied)
            raise
    if not quiet:
        print(applied, flush=True)
    return applied


def unpatch() -> None:
    """Puts back all that :func:`patch` has replaced, the last patch first; without one, it does nothing."""
    with _alone():
        for applied in reversed(list(_active)):
            _undo(applied)


def _undo(applied: Patch) -> None:
    with _alone():
        if applied not in _active:
            return
        _active.remove(applied)
        applied.put_back()
        _watch.modules = {module for patch in _active for module in patch.modules}
        if not _active:
            _watch.stop()
            _started.clear()


@contextmanager
def _alone() -> Iterator[None]:
    """Has the lock to itself, and then looks at what other threads have imported meanwhile."""
    try:
        with _lock:
            yield
    finally:
        _look_at_imported()


def _during_import(module: str) -> Context:
    """Without the lock, for which this thread must not wait: see `_look_at_imported`."""
    return without_compiling([e for patch in list(_active) for e in patch.extensions_of(module)])


def _after_import(module: str) -> None:
    _imported.append(module)
    _look_at_imported()


def _look_at_imported() -> None:
    """Leaves it to the thread that has the lock, if another has it.

    To wait for it could take forever: this thread holds its module's import lock, for which a comparison in
    the other thread may be waiting.
    """
    while _imported and _lock.acquire(blocking=False):
        try:
            while _imported:
                module = _imported.popleft()
                for applied in list(_active):
                    applied.apply(module)
        finally:
            _lock.release()


_watch = Watch(set(), _during_import, _after_import)
_started: list[Watch] = []
