"""Verdicts as cards, and their marks in the curves."""

from __future__ import annotations

import fnmatch
from collections import Counter
from pathlib import Path
from typing import Any

from fastgan._names import printable
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.verdict import SEVERITIES, Verdict
from fastgan.training.diagnose import diagnose_run
from fastgan.training.markup import Html, element
from fastgan.training.report.curves import Plot


def diagnosis_of(folder: Path, problems: list[str]) -> Diagnosis:
    """The diagnosis of a run's folder; one without verdicts, and a problem, where it cannot be made."""
    try:
        # Whoever reads the tables for the curves says what is wrong with one.
        return diagnose_run(folder, skip_unreadable=True)
    except (OSError, ValueError, ArithmeticError) as error:
        problems.append(f"there are no verdicts: {printable(error)}")
        return Diagnosis()


def verdict_parts(diagnosis: Diagnosis, plots: list[Plot]) -> list[Html]:
    """The section: a card for each verdict that holds, gravest first, and the others in a folded list."""
    verdicts = diagnosis.verdicts()
    counts: Counter[str] = Counter(verdict.severity for verdict in verdicts)
    summary = ", ".join(
        f"{counts[severity]} {severity}{'s' * (counts[severity] > 1)}"
        for severity in SEVERITIES
        if severity in counts
    )
    parts = [element("h2", "Verdicts", *([" ", element("small", summary)] if summary else []))]
    if verdicts:
        cards = [
            _card(verdict, number, _about(verdict, diagnosis, plots))
            for number, verdict in enumerate(verdicts, 1)
        ]
        parts.append(element("div", *cards, class_="verdicts"))
    else:
        none = "no rule finds anything" if diagnosis.has_judged else "no rule could judge anything"
        parts.append(element("p", f"None: {none} in the figures so far.", class_="none"))
    if diagnosis.past:
        items = [element("li", _past(verdict)) for verdict in diagnosis.past]
        summary = f"{len(items)} that no longer hold{'s' * (len(items) == 1)}"
        parts.append(element("details", element("summary", summary), element("ul", *items)))
    return parts


def marks(diagnosis: Diagnosis, plots: list[Plot]) -> list[dict[str, Any]]:
    """Where the verdicts that hold begin, with the numbers of their cards."""
    return [
        {
            "number": number,
            "step": verdict.step,
            "severity": verdict.severity,
            "plots": [plot.id for plot in _about(verdict, diagnosis, plots)],
        }
        for number, verdict in enumerate(diagnosis.verdicts(), 1)
    ]


def _about(verdict: Verdict, diagnosis: Diagnosis, plots: list[Plot]) -> list[Plot]:
    """The plots of the columns that its rule reads."""
    patterns = [column for rule in diagnosis.rules if rule.name == verdict.name for column in rule.columns]
    measured = {evidence.what for evidence in verdict.evidence}
    return [
        plot
        for plot in plots
        if any(
            column in measured or any(fnmatch.fnmatchcase(column, pattern) for pattern in patterns)
            for column in plot.curves
        )
    ]


def _card(verdict: Verdict, number: int, plots: list[Plot]) -> Html:
    advice = (
        [element("p", element("b", "First: "), verdict.advice, class_="advice")] if verdict.advice else []
    )
    links = [element("a", plot.title, href=f"#{plot.id}") for plot in plots]
    curves = [element("p", "Curves: ", *links, class_="links")] if links else []
    return element(
        "article",
        element(
            "h3",
            element("span", number, class_="number"),
            element("span", verdict.severity, class_="severity"),
            verdict.title,
            element("span", f"since step {verdict.step}", class_="since"),
        ),
        element("p", verdict.says),
        element("ul", *(element("li", evidence) for evidence in verdict.evidence)),
        *advice,
        *curves,
        element("p", verdict.source, class_="source"),
        class_=f"verdict {verdict.severity}",
        id=f"verdict-{number}",
    )


def _past(verdict: Verdict) -> str:
    return (
        f"{verdict.severity} {verdict.title}, from step {verdict.step} to {verdict.ended}: {verdict.says} "
        f"({'; '.join(map(str, verdict.evidence))})"
    )
