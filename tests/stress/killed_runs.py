"""Training runs that are killed repeatedly, and resumed by the same command until they are finished.

Each kill -9 hits a random moment of a random phase of a run of a random recipe. In the end networks, moving
averages, optimizers, tables and samples must equal those of an undisturbed run bit by bit.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from fastgan.recipes import RECIPES
from fastgan.training.checkpoint import checkpoint_files
from tests.stress.tiny_runs import PHASES, TRACEBACK, Stage

MOST = 6  # most kills of one run


def run(calls: int, seed: int, recipes: tuple[str, ...] = tuple(RECIPES)) -> dict[str, Any]:
    """Makes that many kills.

    Returns:
        calls (kills), runs (that reached their end), kills by phase, by recipe, and of runs without a
        checkpoint; faults: for each failure a line with the run and the problem.
    """
    figures: Counter[str] = Counter()
    faults: list[str] = []
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        while figures["calls"] < calls:
            recipe = recipes[number % len(recipes)]
            faults += _one_run(stage, recipe, f"{seed}.{number}", calls - figures["calls"], figures)
            number += 1
    names = ["calls", "runs", "before_first_checkpoint", *(f"during_{p}" for p in PHASES), *RECIPES]
    return {name: figures[name] for name in names} | {"faults": faults}


def _one_run(stage: Stage, recipe: str, seed: str, most: int, figures: Counter[str]) -> list[str]:
    """A run from start to end with a few kills in between; returns its problems."""
    random = Random(seed)
    kills: list[str] = []
    num_kills = random.randint(1, min(MOST, most))
    while True:
        run = stage.start(recipe, seed)
        if len(kills) < num_kills:
            # A resumed run has fewer steps left.
            phase, occurrence, seconds = stage.moment(recipe, random)
            if run.reaches(phase, max(1, occurrence >> len(kills))) and run.goes_on(seconds):
                run.kill()
        code = run.ends()
        if code != -9:
            break
        kills.append(run.phase)
        figures.update(("calls", f"during_{run.phase}", recipe))
        figures["before_first_checkpoint"] += not checkpoint_files(stage.runs / seed / "checkpoints")
    figures["runs"] += 1
    wrong = [f"exit code {code}"] if code else stage.differences(recipe, seed)
    if TRACEBACK in run.output:
        wrong.append("a traceback")
    if not wrong:
        stage.remove(seed)
        return []
    tail = " | ".join(run.output.split("\n")[-12:])
    return [f"{recipe}, seed {seed}, killed in {', '.join(kills)}: {'; '.join(wrong)}: {tail}"]
