"""`fastgan compare`: one page for several runs, their curves over each other, options and final figures."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastgan._arguments import Parser
from fastgan._files import replacing
from fastgan._names import LAYOUT, printable
from fastgan.monitor.columns import OTHER, QUESTIONS, question_of
from fastgan.monitor.curve import latest
from fastgan.monitor.verdict import Verdict
from fastgan.training.diagnose import Diagnosed, add_options_of_files, diagnosed
from fastgan.training.diagnose_output import summary
from fastgan.training.markup import Html, element
from fastgan.training.outputs import check_page
from fastgan.training.report.curves import LARGEST, MOST_ROWS, Plot, Value, as_json, interrupted
from fastgan.training.report.page import curves_by_question, document
from fastgan.training.yaml_files import read_options

# Options that name a run, and do not change its training.
NAMES_OF_RUNS = ("exp_name", "runs_path")
MOST_NUMBERS = 54_000
"""Of all curves together, three for each bin; they take some 10 bytes each of the page's 1 MB."""
MOST_PICTURES = 12
"""Of curves, for browsers without scripts: each takes some 20 KB and a fraction of a second."""
FEWEST_BINS = 20
"""Of a curve, however many there are."""
Points = tuple[list[int], list[float]]
"""Steps and values, NaN where a figure was NaN or infinite."""


@dataclass
class Comparison:
    """Several runs side by side. Lists are in the order of `names`; None stands for what a run lacks."""

    names: list[str]
    """The ends of the runs' paths that tell them apart."""
    runs: list[Diagnosed]
    options: dict[str, list[object]]
    """Those that differ among the runs that have options."""
    figures: dict[str, list[float | None]]
    """By column, the means of the last tenths of the rows that have it."""
    curves: dict[str, dict[str, Points]]
    """By column, those of the runs that have it, by name."""
    questions: dict[str, list[str]]
    """By question, the columns that answer it."""

    def verdicts(self) -> list[list[Verdict]]:
        return [run.diagnosis.verdicts() for run in self.runs]


def compared(runs: Sequence[Diagnosed]) -> Comparison:
    """Puts runs side by side.

    Raises:
        ValueError: fewer than two, or one of them twice.
    """
    if len(runs) < 2:
        raise ValueError(f"compare takes at least two runs, got {len(runs)}")
    paths = [Path(os.path.abspath(run.path)) for run in runs]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"compare takes each run once, got {printable(runs[place].path)} twice")
    names = _short_names(paths)
    columns: dict[str, dict[str, Points]] = {}
    questions: dict[str, list[str]] = {question: [] for question in (*QUESTIONS, OTHER)}
    for name, run in zip(names, runs, strict=True):
        for column, points in run.diagnosis.history.columns.items():
            if column not in columns:
                questions[question_of(column, run.diagnosis.facts)].append(column)
            steps, values = [step for step, _ in points], [value for _, value in points]
            columns.setdefault(column, {})[name] = steps, values
    ordered = [column for found in questions.values() for column in found]
    figures: dict[str, list[float | None]] = {
        column: [latest(run.diagnosis.history, column) for run in runs] for column in ordered
    }
    return Comparison(names, list(runs), _different_options(runs), figures, columns, questions)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell all apart."""
    for count in range(1, max(len(path.parts) for path in paths)):
        names = [str(Path(*path.parts[-count:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _different_options(runs: Sequence[Diagnosed]) -> dict[str, list[object]]:
    """The options in which the runs that have options differ; None for those that have none."""
    found: list[dict[str, object] | None] = []
    for run in runs:
        try:
            found.append(read_options(run.path / "config.yaml"))
        except (FileNotFoundError, NotADirectoryError):
            found.append(None)
        except (OSError, ValueError) as error:  # the run's curves still compare
            run.notes.append(printable(error, keep=LAYOUT))
            found.append(None)
    known = [options for options in found if options is not None]
    names = dict.fromkeys(name for options in known for name in options if name not in NAMES_OF_RUNS)
    differing = [name for name in names if any(each.get(name) != known[0].get(name) for each in known)]
    return {name: [options and options.get(name) for options in found] for name in differing}


# --- the page -----------------------------------------------------------------------------------------------


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Writes the page, one file without any other, in which all text of the runs is escaped.

    Raises:
        OSError: it cannot be written.
    """
    names = comparison.names
    title = f"{len(names)} runs compared"
    steps = [str(run.diagnosis.history.step) for run in comparison.runs]
    counts = [summary(run.diagnosis) for run in comparison.runs]
    body = [
        element("h1", title),
        element("p", ", ".join(names), class_="sub"),
        element("h2", "Verdicts"),
        _table(names, {"step": steps, "verdicts": counts}),
    ]
    for name, run, verdicts in zip(names, comparison.runs, comparison.verdicts(), strict=True):
        if verdicts or run.notes:
            items = [*map(str, verdicts), *(f"note: {note}" for note in run.notes)]
            body += [element("h3", name), element("pre", "\n".join(items))]
    if comparison.options:
        options = {name: list(map(_shown, values)) for name, values in comparison.options.items()}
        body += [element("h2", "Options that differ"), _table(names, options)]
    figures = {
        column: ["" if value is None else f"{value:.4g}" for value in values]
        for column, values in comparison.figures.items()
    }
    body += [
        element("h2", "Final figures"),
        element("p", "Means of the last tenth of the rows."),
        _table(names, figures),
    ]
    plots = _plots(comparison)
    if bins := max((len(plot.bucket_ends) for plot in plots if plot.bucket_ends), default=0):
        note = (
            f"Curves of more than {2 * bins} steps are drawn by {bins} bins of steps: of each, a run's "
            "lowest and highest values."
        )
        body.append(element("p", note))
    body.append(curves_by_question(plots, MOST_PICTURES))
    with replacing(path) as file:
        file.write(document(title, body, as_json(plots, [])))
    return path


def _table(names: Sequence[str], rows: dict[str, list[str]]) -> Html:
    header = element("tr", element("th", ""), *(element("th", name) for name in names))
    lines = [
        element("tr", element("td", title), *(element("td", cell) for cell in cells))
        for title, cells in rows.items()
    ]
    return element("table", header, *lines)


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _plots(comparison: Comparison) -> list[Plot]:
    """A plot for each column, with a curve for every run: a run has the same colour in all of them."""
    names = comparison.names
    count = len(names) * max(1, len(comparison.curves))
    bins = max(FEWEST_BINS, min(MOST_ROWS // 2, MOST_NUMBERS // (3 * count)))
    plots: list[Plot] = []
    for question, columns in comparison.questions.items():
        for column in columns:
            curves = {name: comparison.curves[column].get(name, ([], [])) for name in names}
            steps = sorted(set().union(*(run_steps for run_steps, _ in curves.values())))
            plot = Plot(f"plot-{len(plots) + 1}", column, question, steps, {})
            if len(steps) <= 2 * bins:
                plot.curves = {name: _on(steps, points) for name, points in curves.items()}
            else:
                _fill_binned(plot, curves, bins)
            plots.append(plot)
    return plots


def _on(steps: list[int], points: Points) -> list[Value]:
    """A run's curve over the steps of all runs."""
    value_at = dict(zip(*points, strict=True))
    return interrupted(steps, [value_at.get(step, math.nan) for step in steps])


def _fill_binned(plot: Plot, curves: dict[str, Points], bins: int) -> None:
    """Gives a plot of many steps two rows for each bin of steps, the first and the last step in it.

    Of each run there stand the lowest and the highest value in the bin, in their order, so that no peak is
    lost.
    """
    low, width = plot.steps[0], (plot.steps[-1] + 1 - plot.steps[0]) / bins
    edges = [low + math.ceil(place * width) for place in range(bins + 1)]
    plot.steps = [step for first, end in itertools.pairwise(edges) for step in (first, end - 1)]
    plot.bucket_ends = list(range(1, 2 * bins, 2))
    for name, (steps, values) in curves.items():
        known = [(step, value) for step, value in zip(steps, values, strict=True) if abs(value) <= LARGEST]
        starts = np.searchsorted([step for step, _ in known], edges)
        numbers = np.array([value for _, value in known])
        rows, means = [math.nan] * (2 * bins), list[Value]([""] * bins)
        for place, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
            if start < end:
                inside = numbers[start:end]
                extremes = sorted({int(inside.argmin()), int(inside.argmax())})
                rows[2 * place : 2 * place + len(extremes)] = [float(inside[row]) for row in extremes]
                means[place] = float(inside.mean())
        plot.curves[name], plot.means[name] = interrupted(plot.steps, rows), means


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="fastgan compare",
        description="Writes one page, a single file, for several runs: their verdicts, the options that "
        "differ, final figures in one table, and each curve of all runs in one plot. Runs are folders, or "
        "files as in `fastgan diagnose`.",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="a run's folder, or a file")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("comparison.html"), help="(default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a page that is there already")
    add_options_of_files(parser)
    options = parser.parse_args(arguments)
    check_page(options.output, options.overwrite)
    runs = [diagnosed(run, options) for run in options.runs]
    print(printable(write_comparison(compared(runs), options.output)))
    return 0
