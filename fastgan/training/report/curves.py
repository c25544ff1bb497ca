"""Which curves share a plot, under which question, and their points, thinned out to what a page can hold."""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
import re
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from fastgan._names import printable
from fastgan.monitor.columns import explain
from fastgan.monitor.diagnosis import Diagnosis

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
    """Curves that share a plot, as far as they answer one question."""

    title: str
    columns: str
    """Pattern of their whole names."""
    is_log: bool = False
    """Whether they differ by powers of ten."""


SHARES = "Shares of G's gradient"
# The first match counts. A curve without a match gets its own plot.
GROUPS = (
    Group("Discriminator's scores", r"D_((real|fake)(_after)?|difference)"),
    Group("Discriminator's probabilities", r"D_probability_.*"),
    Group("Discriminator's accuracy", r"D_accuracy.*|D_auc"),
    Group("Discriminator's losses", r"D_(.*_)?loss"),
    Group("Penalties in the discriminator's loss, unweighted", r".*_penalty"),
    Group("How often D ranks real above fake", r"probe_auc_.*"),
    Group(SHARES, r"share_.*"),
    Group("Cosines between the gradients of G's terms", r"cosine_.*"),
    Group("Colour channels of the image loss", r"[YUV]_loss"),
    Group("Adversarial losses of the generator", r"G_loss|adv_.*_loss"),
    Group("Distance between styles", r"ds_.*_loss"),
    Group("Loss terms, unweighted", r".*_loss"),
    Group("Weights of the loss terms", r".*_weight|lambda_.*"),
    Group("Accuracy", r"(?!D_).*_acc(_.*)?"),
    Group(
        "Distance between generated images over real ones", r"collapse_.*|spread_ratio|probe_distance_ratio"
    ),
    Group("Distance between translations in different styles", r"(pairwise_l1|lpips)_(latent|reference)"),
    Group("Parts of the generated images", r"probe_(memorized|duplicates)"),
    Group("How much of the data is covered", r"(precision|recall|density|coverage)(_.*)?"),
    Group("One step over the size of the weights", r".*_update_ratio", is_log=True),
    Group("Parts of the weights that are not trained", r".*_untrained"),
    Group("Norms of gradients", r".*_gradient_norm"),
    Group("Norms of weights", r".*_weight_norm"),
    Group("Norms", r".*_norm"),
    Group("Weights at a bound", r"D_(clipped|at_bound)"),
    Group("Ranges of values", r"(real|fake)_(lowest|highest)|.*_range_(low|high)"),
    Group("Learning rates", r"lr(_.*)?"),
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
    is_log: bool = False
    """Whether its axis is logarithmic at first, whatever its values."""
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
    """All plots, those of one question in the order in which they are shown."""
    tables = [(metrics, "")]
    if len(evaluation.get("step", [])) > 1:
        tables.append((evaluation, " (evaluation)"))
    plots: list[Plot] = []
    for table, suffix in tables:
        steps = [int(step) for step in table["step"]]
        for (question, group), says_of in _grouped(table, diagnosis).items():
            stacked = group.title == SHARES
            rows, curves = (_parts if stacked else _lines)(steps, {name: table[name] for name in says_of})
            names_of: dict[str, list[str]] = {}
            for name, says in says_of.items():
                if says:
                    names_of.setdefault(says, []).append(name)
            place, title = f"plot-{len(plots) + 1}", group.title + suffix
            plot = Plot(place, title, question, rows, curves, is_log=group.is_log, stacked=stacked)
            plot.explanations = [(names, says) for says, names in names_of.items()]
            plots.append(plot)
    most_rows = min(MOST_ROWS, MOST_VALUES // max(1, sum(len(plot.curves) for plot in plots)))
    return [thinned(plot, most_rows) for plot in plots]


def _grouped(table: dict[str, list[float]], diagnosis: Diagnosis) -> dict[tuple[str, Group], dict[str, str]]:
    """By question and group, in the groups' order, the columns and what they mean.

    Columns that are all 0 are left out, unless a rule reads them: 0 is what it may find.
    """
    read = [pattern for rule in diagnosis.rules for pattern in rule.columns]
    found: dict[tuple[str, Group], dict[str, str]] = {}
    for name, values in table.items():
        if name == "step":
            continue
        if any(values) or any(fnmatch.fnmatchcase(name, pattern) for pattern in read):
            question, says = explain(name, diagnosis)
            found.setdefault((question, _group(name)), {})[name] = says
    places = {group: place for place, group in enumerate(GROUPS)}
    return dict(sorted(found.items(), key=lambda item: places.get(item[0][1], len(places))))


def _group(name: str) -> Group:
    """Figures of a kind that is not listed share a plot with their baselines, as psnr and psnr_bicubic do."""
    group = next((group for group in GROUPS if re.fullmatch(group.columns, name)), None)
    return group or Group(re.sub(r"(_(y|rgb))?(_(of_)?(source|bicubic)|_worst)?$", "", name), "")


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
                    "isLog": plot.is_log,
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
