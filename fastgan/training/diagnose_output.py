"""What `fastgan diagnose` prints of a diagnosis, as text and as JSON."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastgan._names import LAYOUT, printable
from fastgan.monitor.columns import OTHER, QUESTIONS, explain
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.verdict import SEVERITIES, Verdict

if TYPE_CHECKING:
    from fastgan.training.diagnose import Diagnosed

WIDTH = 110


def describe(found: Diagnosed) -> str:
    """Verdicts, then every curve, by question."""
    diagnosis = found.diagnosis
    history, verdicts = diagnosis.history, diagnosis.verdicts()
    planned = f" of {diagnosis.facts.num_steps}" if diagnosis.facts.num_steps else ""
    kind = diagnosis.facts.adversarial
    count = len(history.columns)
    lines = [
        f"{printable(found.path)}: step {history.step}{planned}, {count} figure{'s' if count != 1 else ''}"
        + (f", adversarial loss {kind}" if kind else ""),
        *(_wrapped(f"note: {note}", "  ") for note in found.notes),
        "",
        *_wrapped(summary(diagnosis), "").splitlines(),
        *_wanted(found),
        *(_paragraph(verdict) for verdict in verdicts),
    ]
    if diagnosis.past:
        lines += [
            "",
            "no longer so:",
            *(_wrapped(printable(str(verdict).splitlines()[0]), "  ") for verdict in diagnosis.past),
        ]
    explained = {column: explain(column, diagnosis) for column in history.columns}
    for question in (*QUESTIONS, OTHER):
        columns = [column for column, each in explained.items() if each.question == question]
        if columns:
            lines += ["", question]
            lines += [
                _wrapped(f"{printable(column)}: {printable(explained[column].says)}", "  ")
                for column in columns
            ]
    return "\n".join(lines)


def summary(diagnosis: Diagnosis) -> str:
    """How many verdicts there are of each severity, or why there are none."""
    if not diagnosis.has_judged:
        if not diagnosis.history.columns:
            return "nothing could be judged: there are no figures yet"
        read = columns_of_rules(diagnosis)
        if not read:
            return "nothing could be judged: no rule reads any of these figures"
        return (
            f"nothing could be judged: of what rules read there is {', '.join(read)} alone, which needs more "
            "rows, other figures beside it, or the adversarial loss (--adversarial)"
        )
    severities: list[str] = [verdict.severity for verdict in diagnosis.verdicts()]
    if not severities:
        return "nothing is wrong, as far as rules can tell from these figures"
    counts = ((severity, severities.count(severity)) for severity in SEVERITIES)
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts if count)


def columns_of_rules(diagnosis: Diagnosis) -> list[str]:
    """The figures that rules read, of those that are there."""
    patterns = [pattern for rule in diagnosis.rules for pattern in rule.columns]
    return [
        column
        for column in diagnosis.history.columns
        if any(fnmatch.fnmatchcase(column, pattern) for pattern in patterns)
    ]


def _wanted(found: Diagnosed) -> list[str]:
    """Which figures rules read, where they read none of those that are there."""
    diagnosis = found.diagnosis
    if diagnosis.has_judged or not diagnosis.history.columns or columns_of_rules(diagnosis):
        return []
    names = dict.fromkeys(pattern for rule in diagnosis.rules for pattern in rule.columns)
    how = "name yours by --columns, as D_loss=NAME" if found.is_file else "report figures by these names"
    return [_wrapped(f"rules read {', '.join(names)} (* is any name); {how}", "  ")]


def _paragraph(verdict: Verdict) -> str:
    lines = printable(verdict, keep=LAYOUT).splitlines()
    return "\n" + "\n".join(_wrapped(line.strip(), "  " if place else "") for place, line in enumerate(lines))


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False
    )


def as_json(found: Diagnosed) -> str:
    """The same as JSON: path, step, facts, notes, judged (whether any rule could judge anything), verdicts,
    past (verdicts taken back) and curves.
    """
    diagnosis = found.diagnosis
    curves = {}
    for column, points in diagnosis.history.columns.items():
        question, says = explain(column, diagnosis)
        curves[column] = {"question": question, "says": says, "step": points[-1][0], "value": points[-1][1]}
    content = {
        "path": str(found.path),
        "step": diagnosis.history.step,
        "facts": dataclasses.asdict(diagnosis.facts),
        "notes": found.notes,
        "judged": diagnosis.has_judged,
        "verdicts": [verdict.as_dict() for verdict in diagnosis.verdicts()],
        "past": [verdict.as_dict() for verdict in diagnosis.past],
        "curves": curves,
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
