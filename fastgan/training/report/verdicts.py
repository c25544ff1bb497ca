"""Verdicts as cards, and their marks in the curves."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.verdict import SEVERITIES, Evidence, Verdict
from fastgan.training.markup import Html, element
from fastgan.training.names import printable
from fastgan.training.report.curves import Plot
from fastgan.training.run_files import read_table


def diagnosis_of(folder: Path, problems: list[str]) -> Diagnosis:
    """The verdicts on a run's tables; a table whose values no rule can compute with has none."""
    rows: list[tuple[float, int, dict[str, float]]] = []
    for place, name in enumerate(("metrics.csv", "evaluation.csv")):
        try:
            table = read_table(folder / name, lambda problem: None)
        except (OSError, ValueError):
            continue  # whoever reads it for the curves says so
        columns = {column: values for column, values in table.items() if column != "step"}
        for row, step in enumerate(table.get("step", [])):
            figures = {column: values[row] for column, values in columns.items()}
            rows.append((step, place, {k: v for k, v in figures.items() if not math.isnan(v)}))
    diagnosis = Diagnosis()
    try:
        for step, _, figures in sorted(rows, key=lambda row: row[:2]):
            diagnosis.add(int(step), figures)
    except (ValueError, ArithmeticError) as error:
        problems.append(f"there are no verdicts: {printable(error)}")
        return Diagnosis()
    return diagnosis


def verdict_parts(diagnosis: Diagnosis, plots: list[Plot]) -> list[Html]:
    """The section: a card for each verdict that holds, gravest first, and the others in a folded list."""
    verdicts = diagnosis.verdicts()
    counts = Counter(verdict.severity for verdict in verdicts)
    summary = ", ".join(
        f"{counts[severity]} {severity}{'s' * (counts[severity] > 1)}"
        for severity in SEVERITIES
        if severity in counts
    )
    anchors = {column: plot.id for plot in plots for column in plot.curves}
    parts = [element("h2", "Verdicts", *([" ", element("small", summary)] if summary else []))]
    if verdicts:
        cards = [_card(verdict, number, anchors) for number, verdict in enumerate(verdicts, 1)]
        parts.append(element("div", *cards, class_="verdicts"))
    else:
        parts.append(element("p", "None: no rule finds anything in the figures so far.", class_="none"))
    if diagnosis.past:
        items = [element("li", _past(verdict)) for verdict in diagnosis.past]
        summary = f"{len(items)} that no longer hold{'s' * (len(items) == 1)}"
        parts.append(element("details", element("summary", summary), element("ul", *items)))
    return parts


def marks(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Where the verdicts that hold begin, with the numbers of their cards."""
    return [
        {
            "number": number,
            "step": verdict.step,
            "severity": verdict.severity,
            "name": printable(_name(verdict)),
            "columns": [printable(evidence.what) for evidence in verdict.evidence],
        }
        for number, verdict in enumerate(diagnosis.verdicts(), 1)
    ]


def _card(verdict: Verdict, number: int, anchors: dict[str, str]) -> Html:
    advice = [element("p", element("b", "First: "), verdict.advice, class_="advice")] if verdict.advice else []
    return element(
        "article",
        element(
            "h3",
            element("span", number, class_="number"),
            element("span", verdict.severity, class_="severity"),
            _name(verdict),
            element("span", f"since step {verdict.step}", class_="since"),
        ),
        element("p", verdict.says),
        element("ul", *(element("li", _measured(item, anchors)) for item in verdict.evidence)),
        *advice,
        element("p", verdict.source, class_="source"),
        class_=f"verdict {verdict.severity}",
        id=f"verdict-{number}",
    )


def _measured(evidence: Evidence, anchors: dict[str, str]) -> Html:
    """The measurement, linked to the plot of its column."""
    anchor = anchors.get(evidence.what)
    return element("a", evidence, href=f"#{anchor}") if anchor else element("span", evidence)


def _past(verdict: Verdict) -> str:
    return (
        f"{verdict.severity} {_name(verdict)}, from step {verdict.step} to {verdict.ended}: {verdict.says} "
        f"({'; '.join(map(str, verdict.evidence))})"
    )


def _name(verdict: Verdict) -> str:
    return f"{verdict.name} ({verdict.subject})" if verdict.subject else verdict.name
