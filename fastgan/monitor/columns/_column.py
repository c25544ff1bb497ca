"""What a column of a run's tables is, and the questions that columns answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fastgan.monitor.curve import Curve

QUESTIONS = (
    "Who is winning?",
    "What drives G?",
    "Does it learn the task?",
    "Is it collapsing?",
    "Are the steps sane?",
)
OTHER = "Other figures"
GAME, DRIVE, TASK, COLLAPSE, STEPS = QUESTIONS
STYLES = {"ref": "reference images", "lat": "noise"}
"""Where styles come from, by the infix of the column."""


class Column(NamedTuple):
    """A column, or all columns whose names have a pattern. Texts are sentences in plain text."""

    pattern: str
    """Of whole names."""
    question: str
    """One of QUESTIONS, or OTHER."""
    what: str
    """What it is, as a template of :meth:`re.Match.expand`."""
    in_run: Callable[[re.Match[str], Curve], str] | None = None
    """What is to be said of it in a run."""
    in_general: str = ""
    """What is normal, where no run is known; `in_run` says it with the run's own numbers."""
    chance: float | None = None
    """Its value without any skill, where the facts of a run say no other."""
