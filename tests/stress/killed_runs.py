"""Training runs that are killed, again and again, and go on with the one command until they are through.

Each kill -9 hits a random moment of a random phase of a run of a random recipe. In the end networks, moving
averages, optimizers, tables and samples must be those of the run that nothing happened to, bit by bit.
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

MOST = 6  # kills of one run


def run(calls: int, seed: int, recipes: tuple[str, ...] = tuple(RECIPES)) -> dict[str, Any]:
    """Kills that often.

    Returns:
        calls (kills), runs (that went on to their end), kills by phase, by recipe, and of runs that had no
        checkpoint yet; faults: for each a line that says which run, and what is wrong.
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
    """A run from its start to its end, with a few kills between; what is wrong with it."""
    random = Random(seed)
    kills: list[str] = []
    num_kills = random.randint(1, min(MOST, most))
    while True:
        run = stage.start(recipe, seed)
        if len(kills) < num_kills:
            # A run that goes on has less before it.
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
