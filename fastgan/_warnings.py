"""Warnings attributed to a line of the user's program, however deep in fastgan or torch they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from fastgan._torch_internals import mark_constant_for_dynamo

# Packages whose frames are not the user's. `contextlib` stands between a decorated function and its caller;
# the stack of a worker thread has only `threading` or `concurrent` below fastgan.
_SKIPPED = ("fastgan", "torch", "contextlib", "threading", "concurrent")


# Dynamo can trace neither frames nor `warnings.warn`, so it calls this while tracing: the innermost line
# outside torch is then the one that called the compiled function.
@mark_constant_for_dynamo
def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """`warnings.warn`, attributed to the innermost line outside of fastgan and torch.

    A fixed `stacklevel` would name a line of torch or of fastgan, since the number of calls between a warning
    and the user's line depends on how a loss is used: called, as a module, compiled, through another loss. A
    thread without a frame of the user's, as of autograd or data loading, names the line that warns.
    """
    current = sys._getframe(1)
    frame = _users_frame(current) or current
    module = frame.f_globals.get("__name__", "<unknown>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame outside the packages in `_SKIPPED`."""
    while frame is not None and _is_skipped(frame):
        frame = frame.f_back
    return frame


def _is_skipped(frame: FrameType) -> bool:
    # Code that torch generates has no module name.
    name = frame.f_globals.get("__name__")
    return name is None or any(name == package or name.startswith(package + ".") for package in _SKIPPED)
