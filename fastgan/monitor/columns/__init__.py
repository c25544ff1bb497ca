"""What each column of a run's tables is: its question, its explanation, its value without skill."""

from __future__ import annotations

import re
from typing import NamedTuple

from fastgan.monitor.columns import collapse, drive, game, steps, task
from fastgan.monitor.columns._column import OTHER as OTHER
from fastgan.monitor.columns._column import QUESTIONS as QUESTIONS
from fastgan.monitor.columns._column import TASK, Column
from fastgan.monitor.curve import Curve, number
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import Facts

# Terms of D's loss and G's are whatever ends in _loss and is nothing else: `task` is one of the last.
COLUMNS: tuple[Column, ...] = (
    *drive.COLUMNS,
    *game.COLUMNS,
    *collapse.COLUMNS,
    *task.COLUMNS,
    *steps.COLUMNS,
    Column(r"images_per_second|seconds_per_step", OTHER, "The speed of training alone, without evaluations."),
)
"""The first one that matches a name counts."""


class Explanation(NamedTuple):
    """What a curve is, and what its values say in this run."""

    question: str
    """One of QUESTIONS, or OTHER."""
    says: str
    """Plain text: what it is, in the run's own numbers, what is normal, what it would be without skill."""


def explain(column: str, diagnosis: Diagnosis) -> Explanation:
    """Explains a column of metrics.csv or evaluation.csv in the run's own numbers."""
    facts = diagnosis.facts
    curve = Curve(column, diagnosis.history, facts)
    known, match = _known(column, facts)
    parts = [
        match.expand(known.what),
        _chance(facts.chance.get(column, known.chance)),
        known.in_run(match, curve) if known.in_run else "",
        curve.course(),
    ]
    return Explanation(known.question, " ".join(filter(None, parts)))


def describe(column: str) -> str:
    """What a column is in any run: what it measures, its value without skill, what is normal."""
    known, match = _known(column, Facts())
    return " ".join(filter(None, (match.expand(known.what), _chance(known.chance), known.in_general)))


def question_of(column: str, facts: Facts) -> str:
    """The question that a column answers: one of QUESTIONS, or OTHER."""
    return _known(column, facts)[0].question


def is_known(column: str) -> bool:
    """Whether there is an explanation of its own for a column."""
    return _known(column, Facts())[0] is not UNKNOWN


UNKNOWN = Column(r"(?s:.*)", OTHER, "")


def _known(name: str, facts: Facts) -> tuple[Column, re.Match[str]]:
    for column in (*COLUMNS, UNKNOWN):
        match = re.fullmatch(column.pattern, name)
        if match:
            if name == facts.generator_loss and column.question == TASK:
                column = game.GENERATOR_LOSS
            return column, match
    raise AssertionError(f"UNKNOWN does not match {name!r}")


def _chance(value: float | None) -> str:
    return "" if value is None else f"Without any skill it is {number(value)}."
