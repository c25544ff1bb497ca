"""Objects that stand in for a library's: our functions and classes under the original's name."""

from __future__ import annotations

import abc
import copyreg
import inspect
import sys
import types
from typing import Any


class _StandInClass(abc.ABCMeta):
    """Of a class of ours that has a library's name: instances of the original are instances of it, too.

    It derives from ABCMeta, so that a class may derive from an abstract class and from one of these.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        original = cls.__dict__.get("_stands_in_for")
        return (original is not None and isinstance(instance, original)) or super().__instancecheck__(
            instance
        )

    def __subclasscheck__(cls, subclass: type) -> bool:
        original = cls.__dict__.get("_stands_in_for")
        return (original is not None and issubclass(subclass, original)) or super().__subclasscheck__(
            subclass
        )


def _reduced(cls: _StandInClass) -> str | tuple[Any, ...]:
    """How pickle finds a class again, also after the patch, and where there is none.

    By its name alone it would refuse after the patch, when the name means the original, and would give the
    original's class ours' state in a process without a patch.
    """
    if "_stands_in_for" not in cls.__dict__:  # a class of the trainer that derives from one
        return cls.__qualname__
    return _class_now, (cls.__module__, cls.__qualname__, cls.__bases__[0])


def _class_now(module: str, name: str, ours: type) -> type:
    """What stands in for that name now, or else ours itself."""
    found = getattr(sys.modules.get(module), name, None)
    return found if type(found) is _StandInClass and found.__bases__[0] is ours else ours


copyreg.pickle(_StandInClass, _reduced)  # type: ignore[arg-type]


def stand_in(ours: Any, original: Any) -> Any:
    """A new object that does what ours does, so that it can be told from ours and put back.

    Functions have ours' code. Classes derive from ours. Both have the original's name and module.
    """
    if isinstance(ours, type):
        namespace = {
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
            "__doc__": ours.__doc__,
            "_stands_in_for": original,
        }
        return _StandInClass(original.__name__, (ours,), namespace)
    function = types.FunctionType(
        ours.__code__, ours.__globals__, original.__name__, ours.__defaults__, ours.__closure__
    )
    function.__kwdefaults__ = ours.__kwdefaults__
    function.__annotations__ = ours.__annotations__
    function.__doc__ = ours.__doc__
    function.__module__, function.__qualname__ = original.__module__, original.__qualname__
    function._stands_in_for = original  # type: ignore[attr-defined]
    return function


def signature_difference(original: Any, ours: Any) -> str | None:
    """Why a call of the original might be no call of ours, or None.

    Ours must begin with the original's arguments, of the same names and defaults; what it has behind them
    must be optional. A wrapper that takes anything says nothing.
    """
    try:
        theirs = list(inspect.signature(original).parameters.values())
        own = inspect.signature(ours).parameters
    except (TypeError, ValueError):
        return "its signature cannot be read"
    named = [p for p in theirs if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        return None
    positional = [p.name for p in own.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    same_order = [p.name for p in named if p.kind is not p.KEYWORD_ONLY] == positional[: len(named)]
    same = same_order and all(p.name in own and _same(own[p.name].default, p.default) for p in named)
    known = {p.name for p in named}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    is_optional = all(p.name in known or p.kind in kinds or p.default is not p.empty for p in own.values())
    takes_any = {p.kind for p in theirs if p.kind in kinds} <= {p.kind for p in own.values()}
    if same and is_optional and takes_any:
        return None
    return f"its signature differs: {inspect.signature(original)}"


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is not type and bool(one == other)
    except Exception:  # such as of tensors, which have no single truth
        return False


def calls_itself(original: Any) -> bool:
    """Whether methods of a class look the class up by its name, as in `super(GANLoss, self)`."""
    if not isinstance(original, type):
        return False
    functions = (getattr(value, "__func__", value) for value in vars(original).values())
    codes = (getattr(function, "__code__", None) for function in functions)
    return any(code is not None and original.__name__ in code.co_names for code in codes)
