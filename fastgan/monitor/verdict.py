"""Verdicts: what is wrong with a training or only looks wrong, the evidence, and what to change first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
"""From the gravest on."""


class Evidence(NamedTuple):
    """One measurement beside the bound that it crossed."""

    what: str
    """The measure: a column of metrics.csv or evaluation.csv, or what was computed from some."""
    value: float
    bound: float
    is_above: bool
    """Whether the value lies above the bound, or below it."""

    def __str__(self) -> str:
        # Three digits, or as many as tell the two apart.
        texts = [(f"{self.value:.{digits}g}", f"{self.bound:.{digits}g}") for digits in (3, 4, 5, 6)]
        value, bound = next((pair for pair in texts if pair[0] != pair[1]), texts[0])
        return f"{self.what} {value} {'>' if self.is_above else '<'} {bound}"


@dataclass(frozen=True)
class Verdict:
    """One finding on a training run; printed, it is a paragraph."""

    name: str
    """Fixed, such as "critic_dead"; all are in :data:`fastgan.monitor.VERDICTS`."""
    severity: Severity
    """fault: training cannot succeed like this. warning: it is likely to suffer. note: nothing is wrong."""
    subject: str
    """The network, term or pair of terms that it is about; "" where there is only one."""
    step: int
    """The step from which on it holds."""
    says: str
    """One sentence."""
    evidence: tuple[Evidence, ...]
    """As measured at the last log line at which the condition held."""
    advice: str
    """What to change first; "" for a note."""
    source: str
    """Where the rule comes from: a paper, or the calibration of its bounds."""
    ended: int | None = None
    """The step at which it was taken back; None: it holds."""

    @property
    def title(self) -> str:
        """Its name, and its subject if it has one."""
        return f"{self.name} ({self.subject})" if self.subject else self.name

    def __str__(self) -> str:
        measured = "; ".join(map(str, self.evidence))
        end = "" if self.ended is None else f" to {self.ended}"
        lines = [
            f"{self.severity} {self.name}, from step {self.step}{end}: {self.says}",
            f"  measured: {measured}",
        ]
        if self.advice:
            lines.append(f"  first: {self.advice}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; evidence as dicts of what, value, bound and is_above."""
        return {**vars(self), "evidence": [item._asdict() for item in self.evidence]}
