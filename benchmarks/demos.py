"""`fastgan bench demos`: trains each demo preset and keeps what came of it, minutes and held-out figures."""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fastgan._arguments import Parser
from fastgan._tables import read_table
from fastgan.bench.rows import conclude, merge_rows
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.recipes import RECIPES
from fastgan.training.diagnose import diagnose_run
from fastgan.training.measurement import describe_machine

DEMOS = [(name, preset) for name, recipe in RECIPES.items() for preset in recipe.demos]


def main(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan bench demos", description=__doc__)
    parser.add_argument("recipe", nargs="?", choices=sorted({name for name, _ in DEMOS}), help="default: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--runs_path", default="runs", help="folder of the runs, which stay there")
    parser.add_argument("--output", type=Path, help="folder for demos-<device name>.json")
    options = parser.parse_args(arguments)
    machine = describe_machine(options.device)
    rows, failed, path = [], [], None
    for recipe, preset in DEMOS:
        if options.recipe not in (None, recipe):
            continue
        row = _run(recipe, preset, options)
        if row is None:
            failed.append(f"{recipe} {preset}")
            continue
        rows.append(row)
        if options.output:
            keys = ("recipe", "preset")
            path = merge_rows([row | machine], options.output, "demos", machine["device"], keys)
    for row in rows:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in row["figures"].items())
        said = [v for v in row["verdicts"] if v["severity"] != "note"]
        note = "  " + ", ".join(
            f"{v['severity']} {v['name']} from {v['step']}" + (f" to {v['ended']}" if v["ended"] else "")
            for v in said
        )
        print(f"{row['recipe']:<12} {row['preset']:<9} {row['minutes']:.1f} min  {figures}{note}")
    return conclude(path, failed)


def _run(recipe: str, preset: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The figures of one run; None if it failed, after its errors were printed."""
    name = f"{recipe}-{preset}-measured"
    command = [
        sys.executable, "-m", "fastgan", "train", recipe, "--preset", preset, "--exp_name", name,
        "--runs_path", options.runs_path, "--accelerator", options.device,
    ]  # fmt: skip
    begin = time.perf_counter()
    if subprocess.run(command).returncode != 0:
        return None
    minutes = (time.perf_counter() - begin) / 60
    folder = Path(options.runs_path) / name
    evaluation, metrics = read_table(folder / "evaluation.csv"), read_table(folder / "metrics.csv")
    path = folder / "warnings.csv"
    warnings = []
    if path.exists():
        with path.open(newline="") as file:
            warnings = [f"step {row['step']}: {row['warning']}" for row in csv.DictReader(file)]
    return {
        "recipe": recipe, "preset": preset, "minutes": minutes, "steps": int(evaluation["step"][-1]),
        "figures": {key: values[-1] for key, values in evaluation.items() if key != "step"},
        "first_figures": {key: values[0] for key, values in evaluation.items()},
        "shares": _at_both_ends(metrics, "share_"), "cosines": _at_both_ends(metrics, "cosine_"),
        "warnings": warnings, "verdicts": _verdicts(diagnose_run(folder)),
    }  # fmt: skip


def _verdicts(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Those that hold at the end, and those that were taken back, which have an end."""
    return [
        {key: verdict.as_dict()[key] for key in ("name", "subject", "severity", "step", "ended")}
        for verdict in (*diagnosis.verdicts(), *diagnosis.past)
    ]


def _at_both_ends(metrics: dict[str, list[float]], prefix: str) -> dict[str, dict[str, float]]:
    """Means of these columns over the first and the last tenth of the log lines that have a value."""
    means: dict[str, dict[str, float]] = {}
    for name, values in metrics.items():
        measured = [value for value in values if not math.isnan(value)] if name.startswith(prefix) else []
        if measured:
            count = max(1, len(measured) // 10)
            first, last = statistics.fmean(measured[:count]), statistics.fmean(measured[-count:])
            means[name.removeprefix(prefix)] = {"first": first, "last": last}
    return means
