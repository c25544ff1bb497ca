"""A patch that is in force: what it has replaced, and how to put it back."""

from __future__ import annotations

import operator
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

from fastgan.patching._declare import Extension, Replacement, Target
from fastgan.patching._probe import disagreement, first_line
from fastgan.patching._rebind import namespace_of, rebind, rebind_in_dict
from fastgan.patching._stand_in import calls_itself, signature_difference, stand_in


@dataclass
class _Swap:
    """An object of the library, and what stands in for it."""

    original: Any
    replacement: Any
    owner: type | None = None
    """The class whose attribute it is; None of what a module has."""
    attribute: str = ""


class Patch:
    """What :func:`fastgan.patch` has replaced; a context manager that puts it back at its end.

    Attributes:
        names: of the libraries.
        replaced: paths of what is replaced, such as "core.solver.adv_loss".
        kept: reasons by the paths of what is not.
        waiting: paths of what will be looked at when its module is imported.
    """

    def __init__(self, targets: Sequence[Target], quiet: bool, undo: Callable[[Patch], None]) -> None:
        self.names = tuple(target.name for target in targets)
        self.replaced: list[str] = []
        self.kept = {kept.path: kept.because for target in targets for kept in target.kept}
        self._replacements = list({r.path: r for target in targets for r in target.replacements}.values())
        self._registries = [registry for target in targets for registry in target.registries]
        self._extensions = list({e.path: e for target in targets for e in target.extensions}.values())
        self._quiet, self._undo = quiet, undo
        self._swaps: list[_Swap] = []
        # By id. A module may leave sys.modules, to be imported anew, while a trainer still has it.
        self._rebound: weakref.WeakValueDictionary[int, ModuleType] = weakref.WeakValueDictionary()
        self._is_reported = self._has_ended = False

    @property
    def modules(self) -> list[str]:
        """Of the libraries, that define what is replaced."""
        return list(dict.fromkeys(replacement.module for replacement in self._replacements))

    @property
    def waiting(self) -> list[str]:
        if self._has_ended:
            return []
        done = {*self.replaced, *self.kept}
        paths = [r.path for r in self._replacements if r.module != "__main__"]
        paths += [extension.path for extension in self._extensions if extension.is_wanted]
        return [path for path in paths if path not in done]

    def unpatch(self) -> None:
        """Puts back what this patch has replaced, in modules imported since, too; once is enough."""
        self._undo(self)

    def __enter__(self) -> Patch:
        if self._has_ended:
            raise ValueError(f"this patch has ended: call {self._call} again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unpatch()

    def __str__(self) -> str:
        self._is_reported = True
        declared: list[Replacement | Extension] = [*self._replacements, *self._extensions]
        serves = {each.path: f" ({each.serves})" for each in declared if each.serves}
        lines = [f"{self._call}: ended, all is put back" if self._has_ended else self._call]
        lines += [f"  replaced: {path}{serves.get(path, '')}" for path in self.replaced]
        lines += [f"  not imported yet: {path}{serves.get(path, '')}" for path in self.waiting]
        lines += [f"  not replaced: {path}: {because}" for path, because in self.kept.items()]
        return "\n".join(lines)

    @property
    def _call(self) -> str:
        return f"fastgan.patch({', '.join(map(repr, self.names))})"

    # --- for fastgan.patching ---------------------------------------------------------------------------

    def extensions_of(self, module: str) -> list[Extension]:
        """That a module would compile, were it imported now."""
        return [e for e in self._extensions if e.module == module and e.is_wanted]

    def apply(self, module: str) -> None:
        """Replaces what a module defines, if it has been imported."""
        namespace = namespace_of(sys.modules.get(module))
        if not namespace or module not in self.modules:
            return
        swaps = []
        for replacement in self._replacements:
            # A script has what it has; nothing of it is imported later.
            owner = replacement.name.partition(".")[0]
            if replacement.module == module and (module != "__main__" or owner in namespace):
                found = _said_of(self._found, replacement, namespace)
                if isinstance(found, _Swap):
                    swaps.append((replacement.path, found))
                elif found:
                    self._keep(replacement.path, found)
        originals = [swap.original for _, swap in swaps]
        for path, swap in list(swaps):
            heir = _said_of(_heir, swap.original, originals)
            if heir is not None:
                swaps.remove((path, swap))
                self._keep(path, heir)
        self._put([swap for _, swap in swaps])
        paths = [path for path, _ in swaps]
        for extension in self._extensions:
            if extension.module == module and namespace.get(extension.name) is extension.ours:
                paths.append(extension.path)
            elif extension.module == module and extension.name in namespace:
                self._keep(extension.path, "it is compiled already")
        for path in paths:
            self.kept.pop(path, None)
            if path not in self.replaced:
                self.replaced.append(path)

    def put_back(self) -> None:
        """Gives modules and classes the originals again, also those that were imported meanwhile."""
        self._has_ended = True
        swaps = {id(swap.replacement): swap.original for swap in self._swaps if swap.owner is None}
        self._rebind(swaps)
        for swap in reversed(self._swaps):
            if swap.owner is not None and swap.owner.__dict__.get(swap.attribute) is swap.replacement:
                type.__setattr__(swap.owner, swap.attribute, swap.original)
        self._swaps.clear()
        self.replaced.clear()

    def _put(self, swaps: list[_Swap]) -> None:
        self._swaps += swaps  # before any is put in, so that what is interrupted can be put back
        for swap in swaps:
            if swap.owner is not None:
                type.__setattr__(swap.owner, swap.attribute, swap.replacement)
        self._rebind({id(swap.original): swap.replacement for swap in swaps if swap.owner is None})

    def _rebind(self, swaps: dict[int, Any]) -> None:
        if not swaps:
            return
        for module in rebind(swaps, self._rebound.values()):
            self._rebound[id(module)] = module
        for registry in self._registries:
            name, _, path = registry.partition(":")
            if name in sys.modules:
                try:
                    rebind_in_dict(operator.attrgetter(path)(sys.modules[name]), swaps)
                except Exception:  # a fork has another registry, or none
                    continue

    def _keep(self, path: str, because: str) -> None:
        self.kept[path] = because
        if path in self.replaced:  # after a reload
            self.replaced.remove(path)
        if self._is_reported and not self._quiet:
            print(f"fastgan.patch: not replaced: {path}: {because}", flush=True)

    def _found(self, replacement: Replacement, namespace: dict[str, Any]) -> _Swap | str | None:
        """What to swap; or why not; or None of what has been swapped already."""
        owner_name, _, attribute = replacement.name.rpartition(".")
        owner = namespace.get(owner_name) if owner_name else None
        holder = (owner.__dict__ if isinstance(owner, type) else {}) if owner_name else namespace
        if attribute not in holder:
            return f"{replacement.module} has no {replacement.name}"
        raw = holder[attribute]
        if any(raw is swap.replacement for swap in self._swaps):
            return None
        original = getattr(raw, "__func__", raw)
        if not callable(original) or not hasattr(original, "__qualname__"):
            return f"it is neither a function nor a class, but a {type(original).__name__}"
        if str(getattr(original, "__module__", "")).partition(".")[0] == "fastgan":
            return "it is fastgan's already"
        if "_stands_in_for" in getattr(original, "__dict__", {}):
            return "another patch has replaced it"
        ours = replacement.ours if replacement.adapt is None else replacement.adapt(original)
        if isinstance(original, type) is not isinstance(ours, type):
            return f"it is no {'class' if isinstance(ours, type) else 'function'}"
        difference = signature_difference(original, ours)
        if difference is not None:
            return difference
        new = stand_in(ours, original)
        new_raw = type(raw)(new) if isinstance(raw, (staticmethod, classmethod)) else new
        if replacement.probe is not None:
            sides = [original, new]
            if isinstance(owner, type):
                sides = [type(owner)(owner.__name__, (owner,), {attribute: x}) for x in (raw, new_raw)]
            difference = disagreement(replacement.probe, *sides)
            if difference is not None:
                return difference
        return _Swap(raw, new_raw, owner if owner_name else None, attribute)


def _said_of(check: Callable[..., Any], *arguments: Any) -> Any:
    """What a check returns, or that it failed: no object of a fork may make the user's import raise."""
    try:
        return check(*arguments)
    except Exception as error:
        return f"it cannot be compared: {first_line(error)}"


def _heir(original: Any, replaced: list[Any]) -> str | None:
    """Says that a class derives from an original, and would break if the original's name meant another."""
    if not calls_itself(original):
        return None
    for heir in type.__subclasses__(original):
        is_ours = "_stands_in_for" in heir.__dict__ or heir.__module__.startswith("fastgan.")
        if not is_ours and not any(heir is each for each in replaced):
            path = f"{heir.__module__}.{heir.__qualname__}"
            return f"{path} derives from it, and its methods call it by its name"
    return None
