"""What each column of a run's tables is: its question, its explanation, its value without skill."""

from __future__ import annotations

from typing import NamedTuple

from fastgan.monitor.diagnosis import Diagnosis

QUESTIONS = (
    "Who is winning?",
    "What drives G?",
    "Does it learn the task?",
    "Is it collapsing?",
    "Are the steps sane?",
)
OTHER = "Other figures"


class Explanation(NamedTuple):
    """What a curve is, and what its values say in this run."""

    question: str
    """One of QUESTIONS, or OTHER."""
    says: str
    """Plain text: what it is, in the run's own numbers, what is normal, what it would be without skill."""


def explain(column: str, diagnosis: Diagnosis) -> Explanation:
    """Explains a column of metrics.csv or evaluation.csv."""
    return Explanation(OTHER, "")
