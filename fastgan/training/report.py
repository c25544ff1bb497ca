"""report.html: what a run did, in one self-contained file."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

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

# Curves that belong in one plot, by what matches their whole names; the first that matches counts. Whatever
# none matches gets a plot of its own at the end.
GROUPS = {
    "Discriminator's losses": r"D_(.*_)?loss|D_.*penalty.*",
    "R1 penalty": r"r1_penalty_.*",
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
    """A part of the report that a recipe adds: text, pictures with captions, preformatted lines."""

    title: str
    text: str = ""
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    lines: str = ""


def write_report(folder: Path, title: str, sections: list[Section] | None = None) -> Path:
    """Writes folder/report.html from the run's CSV files, newest sample grid and configuration.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
    """
    metrics = read_table(folder / "metrics.csv")
    evaluation = read_table(folder / "evaluation.csv") if (folder / "evaluation.csv").exists() else {}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    steps = int(metrics["step"][-1])
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class='sub'>{html.escape(folder.name)}: {steps} steps of batch size {config['batch_size']}</p>",
    ]
    if evaluation:
        cards = [
            f"<div class='card'><b>{values[-1]:.4g}</b><span>{html.escape(name)}</span></div>"
            for name, values in evaluation.items()
            if name != "step"
        ]
        parts += ["<h2>On held-out images</h2>", f"<div class='cards'>{''.join(cards)}</div>"]
    if (folder / "warnings.csv").exists():
        with (folder / "warnings.csv").open(newline="") as file:
            said = [f"step {row['step']}: {row['warning']}" for row in csv.DictReader(file)]
        items = "".join(f"<li>{html.escape(text)}</li>" for text in said)
        parts.append(f"<h2>Warnings</h2><ul>{items}</ul>" if items else "")
    for section in sections or []:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        for path, caption in section.pictures:
            parts.append(_figure(_data_uri(path.read_bytes()), caption))
        if section.lines:
            parts.append(f"<pre>{html.escape(section.lines)}</pre>")
    grids = sorted((folder / "samples").glob("step-*.png"))
    if grids:
        parts.append("<h2>Samples</h2>")
        caption = f"{grids[-1].stem}; from the top: {', '.join(_rows_of(folder))}"
        parts.append(f"<div class='grid'>{_figure(_data_uri(grids[-1].read_bytes()), caption)}</div>")
    parts += ["<h2>Curves</h2>", f"<div class='curves'>{''.join(_curves(metrics, evaluation))}</div>"]
    rows = "".join(
        f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in config.items()
    )
    parts.append(
        f"<h2>Configuration</h2><details><summary>all options</summary><table>{rows}</table></details>"
    )
    head = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
    path = folder / "report.html"
    temporary = path.with_name("report.html.incomplete")
    temporary.write_text(head + "<body>" + "\n".join(parts) + "</body></html>")
    temporary.replace(path)
    return path


def read_table(path: Path) -> dict[str, list[float]]:
    """A CSV file as columns of numbers."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: is this a run's folder?")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} holds no rows yet")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _rows_of(folder: Path) -> list[str]:
    names = folder / "samples" / "rows.txt"
    return names.read_text().split() if names.exists() else []


def _curves(metrics: dict[str, list[float]], evaluation: dict[str, list[float]]) -> list[str]:
    figures = [_plot(title, metrics["step"], curves) for title, curves in _grouped(metrics, GROUPS).items()]
    if len(evaluation.get("step", [])) > 1:
        # Figures of one kind begin alike, as psnr and psnr_bicubic.
        kinds = {name.split("_")[0] for name in evaluation}
        groups = {"accuracy": r".*_acc(_.*)?"} | {kind: rf"{kind}(_.*)?" for kind in sorted(kinds)}
        figures += [
            _plot(f"Held out: {kind}", evaluation["step"], curves)
            for kind, curves in _grouped(evaluation, groups).items()
        ]
    return figures


def _grouped(columns: dict[str, list[float]], groups: dict[str, str]) -> dict[str, dict[str, list[float]]]:
    """The columns other than `step` that are not all 0, by group in the groups' order."""
    found: dict[str, dict[str, list[float]]] = {title: {} for title in groups}
    for name, values in columns.items():
        if name != "step" and any(values):
            title = next((title for title, names in groups.items() if re.fullmatch(names, name)), name)
            found.setdefault(title, {})[name] = values
    return {title: curves for title, curves in found.items() if curves}


def _plot(title: str, steps: list[float], curves: dict[str, list[float]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.0), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(steps, values, label=name, linewidth=1.4, marker="." if len(steps) < 4 else None)
    # Losses start high: on a linear axis one early peak would flatten everything that follows.
    sizes = sorted(abs(value) for values in curves.values() for value in values if value)
    typical = sizes[len(sizes) // 2]
    if sizes[-1] > 50 * typical:
        axes.set_yscale("symlog", linthresh=typical)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if title not in curves:
        axes.legend(fontsize=7.5, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"<img alt='{html.escape(title)}' src='{_data_uri(buffer.getvalue())}'>"


def _figure(source: str, caption: str) -> str:
    text = html.escape(caption)
    return f"<figure><img alt='{text}' src='{source}'><figcaption>{text}</figcaption></figure>"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
