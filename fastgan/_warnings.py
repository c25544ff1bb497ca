"""Warnings that name a line of the caller's program, however deep inside fastgan or torch they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from fastgan._torch_internals import mark_constant_for_dynamo

# Frames of these packages are not the caller's. `contextlib` stands between a decorated function and its
# caller; `threading` and `concurrent` are all that the stack of a worker thread has below us.
_PASSED_OVER = ("fastgan", "torch", "contextlib", "threading", "concurrent")


# Dynamo can trace neither frames nor `warnings.warn`, and so calls it while it traces: the innermost line
# outside of torch is then the one that called what is compiled.
@mark_constant_for_dynamo
def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """`warnings.warn`, attributed to the innermost line outside of fastgan and torch.

    A fixed `stacklevel` would name a line of torch or of fastgan, since the number of calls between a warning
    and the user's line depends on how a loss is used: called, as a module, compiled, through another loss. In
    a thread without a line of the user's, as those of autograd and of data loading, it is the one that warns.
    """
    warning = sys._getframe(1)
    frame = _callers_frame(warning) or warning
    module = frame.f_globals.get("__name__", "<unknown>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _callers_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame outside of `_PASSED_OVER`."""
    while frame is not None and _is_passed_over(frame):
        frame = frame.f_back
    return frame


def _is_passed_over(frame: FrameType) -> bool:
    # Code that torch generates has no module at all.
    name = frame.f_globals.get("__name__")
    return name is None or any(name == package or name.startswith(package + ".") for package in _PASSED_OVER)
