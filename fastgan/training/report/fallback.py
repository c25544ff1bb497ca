"""The curves as pictures, for browsers that run no script."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

from PIL import Image

from fastgan._names import printable
from fastgan.training.markup import Html, image
from fastgan.training.report.curves import Plot, thinned

COLOURS = 32
MOST_ROWS = 400
"""As many as the picture has columns of pixels; more would only take time."""


def picture_of(plot: Plot) -> Html:
    """The plot, drawn by matplotlib."""
    from matplotlib.figure import Figure

    plot = thinned(dataclasses.replace(plot), MOST_ROWS)
    figure = Figure(figsize=(4.6, 3.0), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    if plot.stacked:
        _stack(axes, plot)
    else:
        _draw(axes, plot)
    axes.set_title(printable(plot.title), fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if plot.title not in plot.curves:
        for text in axes.legend(fontsize=7.5, frameon=False).get_texts():
            text.set_parse_math(False)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes it three times smaller, and lines look the same.
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
    return image("png", small.getvalue(), plot.title)


def _draw(axes: Any, plot: Plot) -> None:
    for name, values in plot.curves.items():
        points = [(step, value) for step, value in zip(plot.steps, values, strict=True) if value != ""]
        x, y = [step for step, _ in points], [math.nan if value is None else value for _, value in points]
        axes.plot(x, y, label=printable(name), linewidth=1.4, marker="." if len(x) < 4 else None)
    # Losses start high: on a linear axis an early peak would flatten everything after it.
    sizes = sorted(abs(value) for values in plot.curves.values() for value in values if value)
    if sizes and (plot.is_log or sizes[-1] > 50 * sizes[len(sizes) // 2]):
        axes.set_yscale("symlog", linthresh=sizes[len(sizes) // 2])


def _stack(axes: Any, plot: Plot) -> None:
    axes.stackplot(plot.steps, *plot.curves.values(), labels=[printable(name) for name in plot.curves])
    axes.set_ylim(0, 1)
