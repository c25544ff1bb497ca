"""Warnings that name the line of the caller's program, however deep inside fastgan or torch they are raised."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

import torch

# Frames of these packages are not the caller's. `contextlib` stands between a decorated function and its caller.
_PASSED_OVER = ("fastgan", "torch", "contextlib")


def warn(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """`warnings.warn`, attributed to the innermost line outside of fastgan and torch.

    A fixed `stacklevel` would name a line of torch or of fastgan, since the number of calls between a warning and
    the user's line depends on how a loss is used: called, as a module, compiled, through another loss.
    """
    if torch.compiler.is_compiling():  # frames cannot be traced
        warnings.warn(message, category, stacklevel=2)
        return
    frame = _callers_frame(sys._getframe(1))
    module = frame.f_globals.get("__name__", "<unknown>")
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _callers_frame(frame: FrameType) -> FrameType:
    """The innermost frame outside of fastgan and torch, or the outermost of all where there is none."""
    while _is_passed_over(frame) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_passed_over(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return any(name == package or name.startswith(package + ".") for package in _PASSED_OVER)
