"""Which curves share a plot, under which question, and their points, thinned out to what a page can hold."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from fastgan._names import printable
from fastgan.monitor.columns import OTHER, QUESTIONS, explain
from fastgan.monitor.diagnosis import Diagnosis

WINNING, DRIVES, TASK, COLLAPSE, SANE = QUESTIONS
MOST_VALUES = 100_000
"""Of all curves together; they take some 10 bytes each of the report's 3 MB."""
MOST_ROWS = 2000
"""Of one plot, more than a screen has columns of pixels, so that a zoom finds something, too."""
BROKEN = 3.0
"""A curve is interrupted where its next value comes later than so many of its usual distances. Figures that
come with every second log line, say, make a line without gaps."""
LARGEST = 1e39
"""Larger values, beyond float32's range, are gaps: neither uPlot's nor matplotlib's axes can show them."""

Value = float | None | Literal[""]
"""Of a curve at a row: None interrupts the line; "" is no value, through which the line goes on."""


class Group(NamedTuple):
    """Curves that share a plot."""

    title: str
    columns: str
    """Pattern of their whole names."""
    question: str
    """For columns about which :func:`fastgan.monitor.columns.explain` knows nothing."""


SHARES = "Shares of G's gradient"
# Of metrics.csv; the first match counts. A curve without a match gets its own plot at the end.
GROUPS = (
    Group("Discriminator's scores", r"D_((real|fake)(_after)?|difference)", WINNING),
    Group("Discriminator's probabilities", r"D_probability_.*", WINNING),
    Group("Discriminator's accuracy", r"D_accuracy.*", WINNING),
    Group("Discriminator's losses", r"D_(.*_)?loss|D_.*penalty.*", WINNING),
    Group(SHARES, r"share_.*", DRIVES),
    Group("Cosines between the gradients of G's terms", r"cosine_.*", DRIVES),
    Group("Colour channels of the image loss", r"[YUV]_loss", DRIVES),
    Group("Loss terms, unweighted", r".*_loss", DRIVES),
    Group("Weights of the loss terms", r".*_weight|lambda_.*", DRIVES),
    Group("Accuracy", r"(?!D_).*_acc", TASK),
    Group("Image quality in training", r"(psnr|ssim).*", TASK),
    Group("Collapse", r"collapse_.*|.*diversity.*", COLLAPSE),
    Group("R1 penalty", r"r1_penalty.*", SANE),
    Group("Norms", r"(D_)?.*_norm", SANE),
    Group("Discriminator's updates, clipped weights", r"D_(updated|clipped)", SANE),
    Group("Learning rates", r"lr(_.*)?", SANE),
    Group("images_per_second", r"images_per_second", SANE),
    Group("seconds_per_step", r"seconds_per_step", SANE),
)


@dataclass
class Plot:
    """Curves over the same steps."""

    id: str
    """Its element's."""
    title: str
    question: str
    steps: list[int]
    curves: dict[str, list[Any]]
    """Values (see Value) by column."""
    stacked: bool = False
    """Whether the curves are parts of a whole; then each is a number in every row."""
    explanations: list[tuple[list[str], str]] = field(default_factory=list)
    """What columns mean, in plain text."""
    bucket_ends: list[int] | None = None
    """Rows that end a bucket, where rows were left out; None: none were."""
    means: dict[str, list[Value]] = field(default_factory=dict)
    """Of all values in each bucket, those left out included."""


def plots_of(
    metrics: dict[str, list[float]], evaluation: dict[str, list[float]], diagnosis: Diagnosis
) -> list[Plot]:
    """All plots, in the order in which they are shown under their questions."""
    grouped = [(metrics, group, curves) for group, curves in _grouped(metrics, GROUPS)]
    if len(evaluation.get("step", [])) > 1:
        # Figures of one kind share a prefix, as psnr and psnr_bicubic do.
        groups = [Group("Held out: accuracy", r".*_acc(_.*)?", TASK)]
        for kind in sorted({name.split("_")[0] for name in evaluation}):
            question = COLLAPSE if kind in ("collapse", "pairwise") else TASK
            groups.append(Group(f"Held out: {kind}", rf"{re.escape(kind)}(_.*)?", question))
        grouped += [(evaluation, group, curves) for group, curves in _grouped(evaluation, groups)]
    most_rows = min(MOST_ROWS, MOST_VALUES // max(1, sum(len(curves) for _, _, curves in grouped)))
    plots = []
    for number, (table, group, curves) in enumerate(grouped, 1):
        explained = {name: explain(name, diagnosis) for name in curves}
        first = next(iter(explained.values()))
        columns_of: dict[str, list[str]] = {}
        for name, explanation in explained.items():
            if explanation.says:
                columns_of.setdefault(explanation.says, []).append(name)
        stacked = group.title == SHARES
        steps, values = (_parts if stacked else _lines)([int(step) for step in table["step"]], curves)
        question = first.question if first.question in QUESTIONS else group.question
        explanations = [(names, says) for says, names in columns_of.items()]
        plot = Plot(f"plot-{number}", group.title, question, steps, values, stacked, explanations)
        plots.append(thinned(plot, most_rows))
    return plots


def _grouped(
    columns: dict[str, list[float]], groups: Iterable[Group]
) -> list[tuple[Group, dict[str, list[float]]]]:
    """The columns, without `step` and those that are all 0, by group and in the groups' order."""
    curves_of: dict[Group, dict[str, list[float]]] = {group: {} for group in groups}
    for name, values in columns.items():
        if name != "step" and any(values):
            own = Group(name, re.escape(name), OTHER)
            group = next((group for group in curves_of if re.fullmatch(group.columns, name)), own)
            curves_of.setdefault(group, {})[name] = values
    return [(group, curves) for group, curves in curves_of.items() if curves]


def _lines(steps: list[int], curves: dict[str, list[float]]) -> tuple[list[int], dict[str, list[Value]]]:
    return steps, {name: interrupted(steps, values) for name, values in curves.items()}


def _parts(steps: list[int], curves: dict[str, list[float]]) -> tuple[list[int], dict[str, list[Value]]]:
    """Parts of a whole; a part that a row lacks is 0, and rows without any are left out."""
    rows = [row for row in range(len(steps)) if any(math.isfinite(values[row]) for values in curves.values())]
    return [steps[row] for row in rows], {
        name: [values[row] if math.isfinite(values[row]) else 0.0 for row in rows]
        for name, values in curves.items()
    }


def interrupted(steps: list[int], values: list[float]) -> list[Value]:
    """A column as a curve: NaN is no value, and long stretches without any interrupt the line."""
    curve: list[Value] = [
        "" if math.isnan(value) else value if abs(value) <= LARGEST else None for value in values
    ]
    rows = [row for row, value in enumerate(curve) if value != ""]
    distances = [steps[after] - steps[before] for before, after in itertools.pairwise(rows)]
    if distances:
        usual = statistics.median(distances)
        for (before, after), distance in zip(itertools.pairwise(rows), distances, strict=True):
            if distance > BROKEN * usual:
                curve[before + 1 : after] = [None] * (after - before - 1)
    return curve


def thinned(plot: Plot, most_rows: int) -> Plot:
    """The plot with about so many rows at most: of each bucket of consecutive rows the lowest and the highest
    value of every curve stay, so that no peak is lost, and the last row.
    """
    count = len(plot.steps)
    if count <= most_rows:
        return plot
    size = math.ceil(count / max(1, most_rows // (2 * len(plot.curves) + 1)))
    starts = np.arange(0, count, size)
    ends = np.minimum(starts + size, count) - 1
    keep = np.zeros(len(starts) * size, bool)
    keep[ends] = True
    means: dict[str, list[Value]] = {}
    for name, values in plot.curves.items():
        numbers = np.full(len(keep), math.nan)
        numbers[:count] = [value if isinstance(value, float) else math.nan for value in values]
        gaps = np.zeros(len(keep), bool)
        gaps[:count] = [value is None for value in values]
        buckets, is_gap = numbers.reshape(-1, size), gaps.reshape(-1, size)
        is_value = ~np.isnan(buckets)
        lowest = starts + np.where(is_value, buckets, math.inf).argmin(1)
        highest = starts + np.where(is_value, buckets, -math.inf).argmax(1)
        keep[lowest[is_value.any(1)]] = True
        keep[highest[is_value.any(1)]] = True
        keep[(starts + is_gap.argmax(1))[is_gap.any(1)]] = True
        sums, counts = np.where(is_value, buckets, 0).sum(1), is_value.sum(1)
        means[name] = [
            total / n if n else "" for total, n in zip(sums.tolist(), counts.tolist(), strict=True)
        ]
    rows = np.flatnonzero(keep)
    plot.bucket_ends = np.searchsorted(rows, ends).tolist()
    plot.means = means
    plot.steps = [plot.steps[row] for row in rows]
    plot.curves = {name: [values[row] for row in rows] for name, values in plot.curves.items()}
    return plot


def as_json(plots: list[Plot], marks: list[dict[str, Any]]) -> str:
    """What the script draws."""
    return json.dumps(
        {
            "plots": [
                {
                    "id": plot.id,
                    "title": printable(plot.title),
                    "stacked": plot.stacked,
                    "steps": plot.steps,
                    "bucketEnds": plot.bucket_ends,
                    "curves": [
                        {"name": printable(name), "values": _short(values)}
                        | ({"means": _short(plot.means[name])} if plot.means else {})
                        for name, values in plot.curves.items()
                    ],
                }
                for plot in plots
            ],
            "marks": marks,
        },
        separators=(",", ":"),
        allow_nan=False,
    )


def _short(values: list[Value]) -> list[Value]:
    """With six digits, as metrics.csv has seven."""
    return [_number(float(f"{value:.6g}")) if isinstance(value, float) else value for value in values]


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 1e6 else value
