"""What a rule is, and what its checks return."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.verdict import Evidence, Severity

LOOKS = 3
"""Consecutive looks, log lines with new figures, after which a verdict is said or taken back."""
RUN_SHARE = 0.2
"""Part of the steps so far through which a verdict on the game or on the terms must hold. GANs pass through
states in their first steps that would be faults later."""

MOST_LOOKS = 20
"""Looks after which no longer share of the run is asked for: a fault late in a long run is one, too."""

HELD_STEPS = 60
"""Steps through which it must hold at least, so that an untrained pair is given time to begin to play."""


@dataclass(frozen=True)
class Sign:
    """What one look at the figures says of a rule's condition."""

    holds: bool | None
    """None: near the bound, so that neither a verdict is said nor one that was said is taken back."""
    says: str
    """The verdict's sentence, if the condition holds."""
    evidence: tuple[Evidence, ...] = ()
    subject: str = ""


@dataclass(frozen=True)
class Rule:
    """When a verdict is said and taken back."""

    name: str
    severity: Severity
    check: Callable[[History, Facts], Iterable[Sign]]
    """Looks at the newest row; yields a sign for each subject about which it has something new."""
    advice: str
    source: str
    looks: int = LOOKS
    run_share: float = 0.0
    """Part of the steps so far, in [0, 1], through which it must have held without a break, if these are
    fewer than MOST_LOOKS looks."""
    held: int = 0
    """Steps through which it must have held without a break."""
    unless: tuple[str, ...] = ()
    """Verdicts that it would contradict, each NAME or "NAME SUBJECT": it is not said beside them."""
    columns: tuple[str, ...] = field(default=())
    """The measures that it reads, for documentation."""


def above(what: str, value: float, bound: float) -> Evidence:
    return Evidence(what, value, bound, True)


def below(what: str, value: float, bound: float) -> Evidence:
    return Evidence(what, value, bound, False)


def crossed(*evidence: Evidence, slack: float = 0.1) -> bool | None:
    """Whether all bounds are crossed; None where only a slack, relative to each bound, is missing."""
    if all((e.value > e.bound) if e.is_above else (e.value < e.bound) for e in evidence):
        return True
    near = all(
        e.value > e.bound - slack * abs(e.bound) if e.is_above else e.value < e.bound + slack * abs(e.bound)
        for e in evidence
    )
    return None if near else False
