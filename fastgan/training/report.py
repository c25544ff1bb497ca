"""report.html: the results of a run in one self-contained file."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastgan._files import replacing
from fastgan._names import LAYOUT, printable
from fastgan._tables import read_table, read_texts
from fastgan._warnings import warn
from fastgan.training.markup import Html, element, image, joined
from fastgan.training.yaml_files import read_options

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 1080px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p.sub { margin: 0 0 1.6rem; opacity: .7; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; }
.card { background: var(--soft); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { font-size: .82rem; opacity: .75; overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .9rem; }
img { max-width: 100%; height: auto; border-radius: .4rem; background: #fff; }
figure { margin: 0 0 1.2rem; } figcaption { font-size: .86rem; opacity: .75; margin-top: .3rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .18rem 1.1rem .18rem 0; border-bottom: 1px solid var(--line); }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: .5rem; overflow-x: auto;
      font-size: .85rem; }
.grid img { width: 100%; image-rendering: pixelated; }
"""

# A second line of defence behind the escaping: no script runs, and nothing is loaded from elsewhere.
HEAD = Html(
    "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    "<meta http-equiv='Content-Security-Policy' "
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)

SHARES = "Shares of G's gradient"

# Curves that share a plot, by a pattern of their whole names; the first match counts. A curve without a match
# gets its own plot at the end.
GROUPS = {
    SHARES: r"share_.*",
    "Cosines between the gradients of G's terms": r"cosine_.*",
    "Discriminator's losses": r"D_(.*_)?loss|D_.*penalty.*",
    "R1 penalty": r"r1_penalty.*",
    "Colour channels of the image loss": r"[YUV]_loss",
    "Loss terms, unweighted": r".*_loss",
    "Accuracy": r"(?!D_).*_acc",
    "Discriminator's scores": r"D_((real|fake)(_after)?|difference)",
    "Discriminator's probabilities": r"D_probability_.*",
    "Discriminator's accuracy": r"D_accuracy.*",
    "Norms": r"D_.*_norm",
    "Discriminator's updates, clipped weights": r"D_(updated|clipped)",
    "Weights of the loss terms": r".*_weight",
    "Learning rates": r"lr(_.*)?",
}


@dataclass
class Section:
    """A recipe's section of the report: text, pictures with captions, preformatted lines."""

    title: str
    text: str = ""
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    lines: str = ""


def write_report(folder: Path, title: str, sections: list[Section] | None = None) -> Path:
    """Writes folder/report.html from the run's CSV files, newest sample grid and configuration.

    Torn or unreadable parts are left out with a RuntimeWarning that names them, which the report shows as
    well. All content of files is escaped.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
        ValueError: metrics.csv holds no row that can be read.
        OSError: report.html cannot be written.
    """
    problems: list[str] = []
    metrics = read_table(folder / "metrics.csv", problems.append)
    if "step" not in metrics:
        raise ValueError(f"{printable(folder / 'metrics.csv')} has no column 'step'")
    evaluation, config = _read_evaluation(folder, problems), _read_config(folder, problems)
    warnings = _read_warnings(folder, problems)
    sections = sections or []
    figures = [_figures(section.pictures, problems) for section in sections]
    samples = _newest_samples(folder, problems)
    for problem in problems:
        warn(problem, RuntimeWarning)
    steps, batch = int(metrics["step"][-1]), config.get("batch_size", "unknown")
    body = [
        element("h1", title),
        element("p", f"{folder.resolve().name}: {steps} steps of batch size {batch}", class_="sub"),
    ]
    cards = [
        element("div", element("b", f"{values[-1]:.4g}"), element("span", name), class_="card")
        for name, values in evaluation.items()
        if name != "step"
    ]
    if cards:
        body += [element("h2", "On held-out images"), element("div", *cards, class_="cards")]
    if warnings or problems:
        items = [element("li", text) for text in (*warnings, *problems)]
        body += [element("h2", "Warnings"), element("ul", *items)]
    for section, pictures in zip(sections, figures, strict=True):
        body.append(element("h2", section.title))
        if section.text:
            body.append(element("p", section.text))
        body += pictures
        if section.lines:
            body.append(element("pre", section.lines))
    if samples:
        body += [element("h2", "Samples"), element("div", *samples, class_="grid")]
    body += [element("h2", "Curves"), element("div", *_curves(metrics, evaluation), class_="curves")]
    rows = [element("tr", element("td", name), element("td", value)) for name, value in config.items()]
    options = element("details", element("summary", "all options"), element("table", *rows))
    body += [element("h2", "Configuration"), options]
    head = joined(HEAD, element("title", title), element("style", Html(STYLE)))
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(f"<!doctype html><html lang='en'>{head}{element('body', *body)}</html>")
    return path


def _read_evaluation(folder: Path, problems: list[str]) -> dict[str, list[float]]:
    try:
        return read_table(folder / "evaluation.csv", problems.append)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(printable(error))
        return {}


def _read_warnings(folder: Path, problems: list[str]) -> list[str]:
    try:
        return [f"step {step}: {text}" for step, text in read_texts(folder / "warnings.csv")]
    except (OSError, ValueError) as error:
        problems.append(printable(error))
        return []


def _read_config(folder: Path, problems: list[str]) -> dict[str, object]:
    try:
        return read_options(folder / "config.yaml")
    except (OSError, ValueError) as error:
        problems.append(printable(error, keep=LAYOUT))
        return {}


def _newest_samples(folder: Path, problems: list[str]) -> list[Html]:
    """The newest readable grid, as a figure; empty if there is none."""
    grids = sorted((folder / "samples").glob("step-*.png"), reverse=True)
    if not grids:
        return []
    rows = ", ".join(_rows_of(folder, problems))
    figures = (_figures([(grid, f"{grid.stem}; from the top: {rows}")], problems) for grid in grids)
    return next(filter(None, figures), [])


def _rows_of(folder: Path, problems: list[str]) -> list[str]:
    try:
        return (folder / "samples" / "rows.txt").read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(printable(error))
        return []


def _curves(metrics: dict[str, list[float]], evaluation: dict[str, list[float]]) -> list[Html]:
    figures = [_plot(title, metrics["step"], curves) for title, curves in _grouped(metrics, GROUPS).items()]
    if len(evaluation.get("step", [])) > 1:
        # Figures of one kind share a prefix, as psnr and psnr_bicubic do.
        kinds = {name.split("_")[0] for name in evaluation}
        groups = {"accuracy": r".*_acc(_.*)?"}
        groups |= {kind: rf"{re.escape(kind)}(_.*)?" for kind in sorted(kinds)}
        figures += [
            _plot(f"Held out: {kind}", evaluation["step"], curves)
            for kind, curves in _grouped(evaluation, groups).items()
        ]
    return figures


def _grouped(columns: dict[str, list[float]], groups: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    """The columns, without `step` and those that are all 0, by group and in the groups' order."""
    curves_by_group: dict[str, dict[str, list[float]]] = {title: {} for title in groups}
    for name, values in columns.items():
        if name != "step" and any(values):
            title = next((title for title, names in groups.items() if re.fullmatch(names, name)), name)
            curves_by_group.setdefault(title, {})[name] = values
    return {title: curves for title, curves in curves_by_group.items() if curves}


def _plot(title: str, steps: list[float], curves: dict[str, list[float]]) -> Html:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    # Gaps at infinite values, and at those too large for matplotlib's ticks (beyond float32's range).
    curves = {
        name: [math.copysign(math.inf, value) if abs(value) > 1e39 else value for value in values]
        for name, values in curves.items()
    }
    if title == SHARES:
        _stack(axes, steps, curves)
    else:
        for name, values in curves.items():
            x, y = reported(steps, values)
            axes.plot(x, y, label=printable(name), linewidth=1.4, marker="." if len(x) < 4 else None)
    # Losses start high: on a linear axis an early peak would flatten everything after it.
    finite = (abs(value) for values in curves.values() for value in values if math.isfinite(value))
    sizes = sorted(size for size in finite if size)
    if title != SHARES and sizes and sizes[-1] > 50 * sizes[len(sizes) // 2]:
        axes.set_yscale("symlog", linthresh=sizes[len(sizes) // 2])
    axes.set_title(printable(title), fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if title not in curves:
        for text in axes.legend(fontsize=7.5, frameon=False).get_texts():
            text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return image(_data_uri(buffer.getvalue()), title)


def _stack(axes: Any, steps: list[float], curves: dict[str, list[float]]) -> None:
    """Draws the curves on top of each other; a term that a log line lacks has no part in it."""
    rows = [row for row in zip(steps, *curves.values(), strict=True) if not all(map(math.isnan, row[1:]))]
    finite = [[value if math.isfinite(value) else 0.0 for value in row] for row in rows]
    x, *y = zip(*finite, strict=True) if finite else ((), *((),) * len(curves))
    axes.stackplot(x, *y, labels=[printable(name) for name in curves])
    axes.set_ylim(0, 1)


def reported(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The points of a curve, without the log lines that have no value (NaN)."""
    points = [(step, value) for step, value in zip(steps, values, strict=True) if not math.isnan(value)]
    return [step for step, _ in points], [value for _, value in points]


def _figures(pictures: list[tuple[Path, str]], problems: list[str]) -> list[Html]:
    """The readable pictures, with their captions."""
    figures = []
    for path, caption in pictures:
        try:
            picture = image(_data_uri(path.read_bytes()), caption)
        except OSError as error:
            problems.append(printable(error))
            continue
        figures.append(element("figure", picture, element("figcaption", caption)))
    return figures


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
