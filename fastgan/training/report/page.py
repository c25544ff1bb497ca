"""The page: its parts in order, and what allows it to run its own script alone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from fastgan._files import replacing
from fastgan._names import LAYOUT, printable
from fastgan._tables import read_table, read_texts
from fastgan._warnings import warn
from fastgan.monitor.columns import OTHER, QUESTIONS
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.training.markup import Html, element, embedded_json, joined
from fastgan.training.report.curves import Plot, as_json, plots_of
from fastgan.training.report.fallback import picture_of
from fastgan.training.report.pictures import Section, figures_of, sample_figures
from fastgan.training.report.verdicts import diagnosis_of, marks, verdict_parts
from fastgan.training.yaml_files import read_options

# In this order; uPlot is https://github.com/leeoniya/uPlot 1.6.32, its licence beside it.
SCRIPTS = ("uPlot.js", "plot.js", "page.js")
STYLES = ("uPlot.css", "page.css")
MOST_PICTURES = 60
"""Of curves, for browsers without scripts: each takes some 20 KB and a fraction of a second."""


@dataclass
class _Run:
    """What a run's folder holds, as far as it can be read."""

    metrics: dict[str, list[float]]
    evaluation: dict[str, list[float]] = field(default_factory=dict)
    config: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def write_report(
    folder: Path,
    title: str,
    sections: list[Section] | None = None,
    *,
    diagnosis: Diagnosis | None = None,
    pictures_of_curves: bool = True,
) -> Path:
    """Writes folder/report.html from the run's CSV files, sample grids and configuration.

    Torn or unreadable parts are left out with a RuntimeWarning that names them, which the report shows as
    well. All content of files is escaped.

    Args:
        sections: a recipe's own, after the figures on held-out images.
        diagnosis: that of all rows, where the caller has it; None: it is made from the tables.
        pictures_of_curves: whether to draw the curves for browsers without scripts, too, which takes most of
            the time: seconds, where all else takes a fraction of one.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
        ValueError: metrics.csv holds no row that can be read.
        OSError: report.html cannot be written.
    """
    run = _read(folder)
    problems = run.problems
    diagnosis = diagnosis or diagnosis_of(folder, problems)
    sections = sections or []
    figures = [figures_of(section.pictures, problems) for section in sections]
    samples = sample_figures(folder, problems)
    for problem in problems:
        warn(problem, RuntimeWarning)
    plots = plots_of(run.metrics, run.evaluation, diagnosis)

    steps, batch = int(run.metrics["step"][-1]), run.config.get("batch_size", "unknown")
    parts = [
        element(
            "header",
            element("h1", title),
            element("p", f"{folder.resolve().name}: {steps} steps of batch size {batch}", class_="sub"),
        ),
        element("section", *verdict_parts(diagnosis, plots), id="verdicts"),
        *_held_out(run.evaluation),
    ]
    if run.warnings or problems:
        items = [element("li", text) for text in (*run.warnings, *problems)]
        parts.append(element("section", element("h2", "Warnings"), element("ul", *items)))
    for section, pictures in zip(sections, figures, strict=True):
        text = [element("p", section.text)] if section.text else []
        lines = [element("pre", section.lines)] if section.lines else []
        parts.append(element("section", element("h2", section.title), *text, *pictures, *lines))
    if samples:
        grids = element("div", *samples, class_="grid")
        parts.append(element("section", element("h2", "Samples"), grids, id="samples"))
    parts += [curves_by_question(plots, MOST_PICTURES if pictures_of_curves else 0), _options(run.config)]
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(document(title, parts, as_json(plots, marks(diagnosis, plots))))
    return path


def _read(folder: Path) -> _Run:
    problems: list[str] = []
    metrics = read_table(folder / "metrics.csv", problems.append)
    if "step" not in metrics:
        raise ValueError(f"{printable(folder / 'metrics.csv')} has no column 'step'")
    run = _Run(metrics, problems=problems)
    try:
        run.evaluation = read_table(folder / "evaluation.csv", problems.append)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        problems.append(printable(error))
    try:
        run.config = read_options(folder / "config.yaml")
    except (OSError, ValueError) as error:
        problems.append(printable(error, keep=LAYOUT))
    try:
        run.warnings = [f"step {step}: {text}" for step, text in read_texts(folder / "warnings.csv")]
    except (OSError, ValueError) as error:
        problems.append(printable(error))
    return run


def _held_out(evaluation: dict[str, list[float]]) -> list[Html]:
    """The newest figures of the evaluation."""
    cards = [
        element("div", element("b", f"{values[-1]:.4g}"), element("span", name), class_="card")
        for name, values in evaluation.items()
        if name != "step"
    ]
    if not cards:
        return []
    return [element("section", element("h2", "On held-out images"), element("div", *cards, class_="cards"))]


def curves_by_question(plots: list[Plot], most_pictures: int) -> Html:
    """Figures that the script fills, by question, each with what its columns mean.

    Args:
        most_pictures: how many of the first ones are drawn for browsers without scripts, too.
    """
    parts = [element("h2", "Curves"), element("div", id="controls")]
    if most_pictures < len(plots):
        which = f"The curves but for the first {most_pictures}" if most_pictures else "The curves"
        hint = "" if most_pictures else " `fastgan report` draws them as pictures, too."
        parts.append(element("noscript", element("p", f"{which} need JavaScript.{hint}")))
    drawn = 0
    for question in (*QUESTIONS, OTHER):
        figures = []
        for plot in plots:
            if plot.question != question:
                continue
            fallback = element("noscript", picture_of(plot)) if drawn < most_pictures else ""
            drawn += 1
            canvas = element("div", fallback, class_="canvas")
            explained = [
                part
                for names, says in plot.explanations
                for part in (element("dt", ", ".join(names)), element("dd", says))
            ]
            notes = [element("dl", *explained)] if explained else []
            caption = element("figcaption", element("h4", plot.title))
            class_ = "plot explained" if notes else "plot"
            figures.append(element("figure", caption, canvas, *notes, id=plot.id, class_=class_))
        if figures:
            parts += [element("h3", question), element("div", *figures, class_="curves")]
    return element("section", *parts, id="by-question")


def _options(config: dict[str, object]) -> Html:
    rows = [element("tr", element("td", name), element("td", value)) for name, value in config.items()]
    options = element("details", element("summary", "all options"), element("table", *rows))
    return element("section", element("h2", "Configuration"), options)


def document(title: str, parts: list[Html], curves: str) -> str:
    """The whole page.

    Args:
        curves: of :func:`as_json`, which the scripts draw into the figures of :func:`curves_by_question`.
    """
    body = joined(element("main", *parts), embedded_json("curves", curves))
    scripts, styles = ([_static(name) for name in names] for names in (SCRIPTS, STYLES))
    # A second line of defence behind the escaping: no script or style but these counts, and nothing is loaded
    # from elsewhere.
    policy = (
        f"default-src 'none'; img-src data:; style-src {' '.join(map(_source, styles))}; "
        f"script-src {' '.join(map(_source, scripts))}; base-uri 'none'; form-action 'none'"
    )
    head = joined(
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("title", title),
        *(element("style", style) for style in styles),
    )
    content = joined(body, *(element("script", script) for script in scripts))
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{content}</body></html>'


def _static(name: str) -> Html:
    """A file as it is, even where a browser reads text without entities."""
    file = resources.files("fastgan.training.report") / "static" / name
    return Html(file.read_text(encoding="utf-8"))


def _source(text: str) -> str:
    """What allows this inline script or style in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
