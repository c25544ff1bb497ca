"""Training runs of a second or two, of all recipes, whose processes are forked, watched and killed.

One process imports everything once and then forks each run, because a new interpreter would take longer to
start than such a run takes. It never computes anything itself, and so has no threads that a fork would lose.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import random
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tqdm import tqdm

from fastgan import cli
from fastgan._folder_lock import NAME as LOCK
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training import checkpoint, checkpoint_writer, logging, loop, report, weights
from fastgan.training.report import fallback, page, running
from fastgan.training.report.curves import Plot
from tests.recipes.fonts import small_glyphs
from tests.recipes.photographs import write_photographs
from tests.recipes.runs import table
from tests.recipes.starganv2_folders import write_images

# Phases of a run; "steps" is between the others.
PHASES = ("start", "steps", "log", "samples", "evaluation", "checkpoint", "report")
WRITTEN = "written"  # the end of the phase "checkpoint", which runs beside the others
TRACEBACK = "Traceback"
STUCK = 120.0  # seconds, more than any run takes
IMPORTED_LATE = (
    "jsonargparse", "matplotlib.backends.backend_agg", "matplotlib.figure", "scipy.linalg", "tensorboard",
    "torch.utils.tensorboard",
)  # fmt: skip

SHARED = (
    "--batch_size 4 --num_epochs 0 --num_steps 6 --log_interval 1 --sample_interval 2 --eval_interval 3 "
    "--checkpoint_interval 2 --accelerator cpu --workers 1 --ema_decay 0.9 --seed 3 --resume auto"
)
OWN = {
    "dcgan": "--train_path {data}/photographs --image_size 32 --g_width 2 --d_width 2 --z_dim 6 "
    "--collapse_images 8 --frechet_images 8 --balance adaptive --diff_augment [translation]",
    "enhancenet": "--train_path {data}/photographs --crop 64 --width 4 --blocks 2 --val_images 2 --turn true",
    "starganv2": "--train_path {data}/domains --image_size 16 --base_width 2 --max_width 4 --downs 1 "
    "--mapping_width 8 --style_dim 5 --z_dim 6 --eval_images 4 --eval_draws 2 --classifier_steps 3 "
    "--r1_interval 2",
    "stegastamp": "--train_path {data}/photographs --image_size 32 --secret_size 20 --val_images 2 "
    "--lpips_loss_scale 0 --no_im_loss_steps 2 --rnd_trans_ramp 4",
    "zi2zi": "--train_path {data}/glyphs --image_size 32 --width 4 --d_width 2 --embedding_dim 6 "
    "--perceptual_weight 0",
}


@dataclass
class Run:
    """A run in a process of its own."""

    pid: int
    console: Path
    events: int
    """The read end of a pipe that gets each phase's number when it begins, and is closed with the process."""
    begins: list[tuple[str, float]] = field(default_factory=list)
    """The phases so far, and when each began."""
    code: int | None = None
    """The exit code; negative for a signal, as in subprocess."""

    @property
    def phase(self) -> str:
        names = [name for name, _ in self.begins]
        if names.count("checkpoint") > names.count(WRITTEN):
            return "checkpoint"
        return "steps" if names[-1] == WRITTEN else names[-1]

    def reaches(self, phase: str, occurrence: int) -> bool:
        """Waits until the phase has begun that many times; False if the run ends first."""
        while [name for name, _ in self.begins].count(phase) < occurrence:
            if not self._read(STUCK):
                return False
        return True

    def goes_on(self, seconds: float) -> bool:
        """Lets it run for some seconds; returns whether it still runs."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.events], [], [], left)[0] and not self._read(0):
                return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ends(self) -> int:
        """Waits for the end, and returns the exit code. A stuck process is killed."""
        while self._read(STUCK):
            pass
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self.events)
        return self.code

    @property
    def failed_by_name(self) -> bool:
        """Whether it ended with one error for the user, not with a crash or traceback."""
        return self.code == 1 and "fastgan: error: " in self.output and TRACEBACK not in self.output

    @property
    def output(self) -> str:
        return self.console.read_text(errors="replace")

    def _read(self, timeout: float) -> bool:
        """Reads phases from the pipe; False once it is closed."""
        if self.code is not None:
            return False
        if not select.select([self.events], [], [], timeout)[0]:
            self.kill()
            self.console.write_text(f"{self.output}\n{TRACEBACK}: stuck for {timeout} s in {self.phase}")
        numbers = os.read(self.events, 1000)
        self.begins += [((*PHASES, WRITTEN)[number], time.monotonic()) for number in numbers]
        return bool(numbers)


class Stage:
    """Data for all recipes, and runs on them.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        write_photographs(folder / "data" / "photographs")
        write_images(folder / "data" / "domains")
        small_glyphs(folder / "data" / "glyphs")
        for name in IMPORTED_LATE:
            importlib.import_module(name)
        for name in RECIPES:
            load_recipe(name)
        fallback.picture_of(Plot("", "loads fonts", "", [1, 2], {"curve": [1.0, 2.0]}))
        torch.set_num_threads(1)
        self._whole: dict[str, list[tuple[str, float]]] = {}
        self._count = 0

    def new_name(self, recipe: str) -> str:
        self._count += 1
        return f"{recipe}-{self._count}"

    def start(
        self,
        recipe: str,
        name: str,
        *options: str,
        runs: Path | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> Run:
        """Starts or resumes a run, by the command that does both.

        Args:
            options: additional ones.
            runs: folder of all runs, if it is not the stage's.
            prepare: called in the new process, first of all.
        """
        recipe_options = OWN[recipe].format(data=self.folder / "data").split()
        place = ["--runs_path", str(runs or self.runs), "--exp_name", name]
        shared = SHARED.replace("--batch_size 4 ", "") if "--global_batch_size" in options else SHARED
        arguments = ["train", recipe, *shared.split(), *recipe_options, *place, *options]
        self._count += 1
        console = self.folder / f"console-{self._count}.txt"
        events, begun = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(events)
            _become(arguments, console, begun, load_recipe(recipe), prepare)
        os.close(begun)
        return Run(pid, console, events, [("start", began)])

    def whole(self, recipe: str) -> list[tuple[str, float]]:
        """The phases of the undisturbed run with their times; it runs at the first call."""
        if recipe not in self._whole:
            run = self.start(recipe, f"{recipe}-whole")
            if run.ends() != 0:
                raise RuntimeError(f"{recipe} does not run at all: {run.output}")
            self._whole[recipe] = _spans(run.begins, time.monotonic())
        return self._whole[recipe]

    def moment(
        self, recipe: str, random: random.Random, phases: tuple[str, ...] = PHASES
    ) -> tuple[str, int, float]:
        """A random moment: the phase's name, its number among those of the name, seconds after its start."""
        spans = self.whole(recipe)
        phase = random.choice(phases)
        seconds = [length for name, length in spans if name == phase]
        (occurrence,) = random.choices(range(len(seconds)), seconds)
        return phase, occurrence + 1, seconds[occurrence] * random.random()

    def finishes(self, recipe: str, name: str, tables: bool = True, runs: Path | None = None) -> list[str]:
        """Resumes the run by the same command, and returns problems of that and of the result."""
        run = self.start(recipe, name, runs=runs)
        if run.ends() != 0 or TRACEBACK in run.output:
            return [f"it does not go on, exit code {run.code}: {run.output}"]
        return self.differences(recipe, name, tables, runs)

    def differences(self, recipe: str, name: str, tables: bool = True, runs: Path | None = None) -> list[str]:
        """Differences, to the bit, between a finished run and the undisturbed one.

        Args:
            tables: compare the tables, too.
        """
        self.whole(recipe)
        return differences(self.runs / f"{recipe}-whole", (runs or self.runs) / name, tables)

    def remove(self, name: str, runs: Path | None = None) -> None:
        shutil.rmtree((runs or self.runs) / name, ignore_errors=True)


def differences(undisturbed: Path, folder: Path, tables: bool = True) -> list[str]:
    """Differences, to the bit, between the folders of two finished runs."""
    found = _different_tensors(undisturbed, folder) + _different_files(undisturbed, folder)
    for file in ("metrics.csv", "evaluation.csv", "warnings.csv") if tables else ():
        if (undisturbed / file).exists() != (folder / file).exists():
            found.append(f"{file} is there in one alone")
        elif (undisturbed / file).exists() and table(undisturbed / file) != table(folder / file):
            found.append(f"{file} differs")
    return found


def _spans(begins: list[tuple[str, float]], end: float) -> list[tuple[str, float]]:
    """Each phase with its seconds: until the next one begins, or until the checkpoint is written."""
    spans = []
    for number, (name, begin) in enumerate(begins):
        if name != WRITTEN:
            ends_it = (lambda other: other == WRITTEN) if name == "checkpoint" else (lambda other: True)
            ends = (time for other, time in begins[number + 1 :] if ends_it(other))
            spans.append((name, next(ends, end) - begin))
    return spans


def _different_tensors(whole: Path, folder: Path) -> list[str]:
    expected, differences = (checkpoint.checkpoint_files(run / "checkpoints") for run in (whole, folder))
    if [file.name for file in expected[-1:]] != [file.name for file in differences[-1:]]:
        return [f"the checkpoints are {', '.join(file.name for file in differences) or 'none'}"]
    differences = []
    for first in (*expected, *whole.glob("*.safetensors")):
        second = folder / first.relative_to(whole)
        if not second.exists():  # a stop has saved another step; files for use are compared elsewhere
            continue
        with safe_open(first, "pt") as one, safe_open(second, "pt") as two:
            keys = {*one.keys()}
            wrong = [key for key in keys & {*two.keys()} if not _same_bits(one, two, key)]
            wrong += keys ^ {*two.keys()}
            if wrong:
                differences.append(f"{len(wrong)} tensors differ in {second.name}, like {min(wrong)}")
            if one.metadata().get("state") != two.metadata().get("state"):
                differences.append(f"the state in {second.name} differs")
    return differences


def _same_bits(one: Any, two: Any, key: str) -> bool:
    first, second = one.get_tensor(key), two.get_tensor(key)
    return first.dtype == second.dtype and torch.equal(first, second)


def _different_files(whole: Path, folder: Path) -> list[str]:
    """Missing files, leftovers of incomplete ones, and sample grids that differ."""
    names = {path.relative_to(whole) for path in whole.rglob("*") if not _may_differ(path)}
    there = {path.relative_to(folder) for path in folder.rglob("*") if not _may_differ(path)}
    differences = [f"{name} is missing" for name in sorted(names - there)]
    differences += [f"{path.relative_to(folder)} is left over" for path in folder.rglob("*.incomplete*")]
    for name in sorted(names & there):
        if name.suffix == ".png" and (whole / name).read_bytes() != (folder / name).read_bytes():
            differences.append(f"{name} differs")
    return differences


def _may_differ(path: Path) -> bool:
    return (
        path.name.startswith("events.out.tfevents") or path.parent.name == "checkpoints" or path.name == LOCK
    )


# --- in the run's process -----------------------------------------------------------------------------------


def _become(
    arguments: list[str], console: Path, events: int, recipe: type, prepare: Callable[[], object]
) -> None:
    """Runs the command in this forked process, and reports its phases."""
    code = 70
    try:
        with console.open("wb") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        # A fork inherits random states, which would hide a lack of seeding.
        random.seed()
        np.random.seed()  # noqa: NPY002
        torch.seed()
        tqdm.set_lock(threading.RLock())  # its multiprocessing lock would outlive a killed run
        _tell_of_phases(recipe, events)
        prepare()
        code = cli.main(arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _tell_of_phases(recipe: type, events: int) -> None:
    def tell(phase: str) -> None:
        os.write(events, bytes([(*PHASES, WRITTEN).index(phase)]))

    def within(phase: str, owner: object, name: str, after: str = "steps") -> None:
        call = getattr(owner, name)

        @functools.wraps(call)
        def reporting(*arguments: object, **options: object) -> object:
            tell(phase)
            try:
                return call(*arguments, **options)
            finally:
                tell(after)

        setattr(owner, name, reporting)

    within("start", recipe, "batches")
    within("log", logging.Logger, "write")
    within("samples", recipe, "samples")
    within("samples", loop, "save_grid")
    within("evaluation", recipe, "evaluate")
    within("evaluation", logging.Logger, "write_evaluation")
    within("checkpoint", checkpoint_writer, "write_checkpoint", WRITTEN)
    within("checkpoint", recipe, "save_for_use", WRITTEN)
    within("report", report, "write_report")
    # As on a slow disk, so that kills hit files that are being written while the training goes on.
    flush = weights._flush
    weights._flush = lambda path: (time.sleep(0.02), flush(path))
    # At every evaluation, so that runs have the same phases however long one takes.
    running.LARGEST_SHARE = math.inf
    # Plotting all curves would take longer than the rest of the run.
    plots_of = page.plots_of
    page.plots_of = lambda metrics, evaluation, diagnosis: plots_of(
        dict(list(metrics.items())[:3]), {}, diagnosis
    )
