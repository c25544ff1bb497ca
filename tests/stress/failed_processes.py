"""Runs of several processes, of which one dies, fails, lacks a gradient or is slow; or a whole machine goes.

All processes must end within a minute, and one of them must print the reason, once. The same command, or
torchrun, then goes on to the bits of an undisturbed run with the same layout of processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from fastgan.recipes import load_recipe
from fastgan.training import checkpoint_writer
from fastgan.training import weights as weights_files
from fastgan.training.checkpoint_files import steps_of
from fastgan.training.processes.exchange import Bucket, Exchange
from fastgan.training.processes.world import free_port
from tests.nodes import end_nodes, start_node, wait_for_nodes
from tests.stress.tiny_runs import OWN, SHARED, TRACEBACK, Stage, differences

LONGEST = 60.0  # seconds in which all processes of a run must have ended
LAYOUTS = ((2,), (3,), (1, 2), (2, 2))  # processes by machine
RECIPES = ("dcgan", "stegastamp")
STEPS = 6  # of SHARED, with checkpoints after 2, 4 and 6

Fault = Callable[[int], object]
"""Prepares a process of this rank to fail."""
NO_FAULT: Fault = lambda rank: None  # noqa: E731


class Trial:
    """One run with a fault.

    Args:
        layout: processes by machine.
    """

    def __init__(self, stage: Stage, recipe: str, name: str, layout: tuple[int, ...], random: Random) -> None:
        self.stage, self.recipe, self.name, self.layout, self.random = stage, recipe, name, layout, random
        self.wrong: list[str] = []
        self.outputs: list[str] = []
        self.codes: list[int] = []

    @property
    def folder(self) -> Path:
        return self.stage.runs / self.name

    def whole(self, suffix: str = "", fault: Fault = NO_FAULT) -> Path:
        """The folder of the undisturbed run with this layout; it runs at the first call."""
        layout = "-".join(map(str, self.layout))
        whole = Trial(self.stage, self.recipe, f"{self.recipe}-{layout}{suffix}", self.layout, self.random)
        if not whole.folder.exists():
            whole.run(fault)
            if whole.codes != [0] * len(whole.codes):
                raise RuntimeError(f"{whole.name} does not run at all: {whole.codes} {whole.outputs}")
        return whole.folder

    def run(self, fault: Fault = NO_FAULT, *options: str) -> None:
        """Runs the command in all processes, until all have ended."""
        port, places = free_port(), [(local, size) for size in self.layout for local in range(size)]
        runs = [
            self.stage.start(
                self.recipe, self.name, *options,
                prepare=partial(_join, rank, len(places), *place, port, fault),
            )
            for rank, place in enumerate(places)
        ]  # fmt: skip
        deadline = time.monotonic() + LONGEST
        for rank, run in enumerate(runs):
            if run.goes_on(max(0.0, deadline - time.monotonic())):
                self.wrong.append(f"rank {rank} hangs in {run.phase}")
                for other in runs:
                    other.kill()
        self.codes, self.outputs = [run.ends() for run in runs], [run.output for run in runs]
        if any(TRACEBACK in text for text in self.outputs):
            self.wrong.append("a traceback")

    def ends_with(self, fault: Fault, reason: str, *options: str, killed: int | None = None) -> None:
        """Runs with a fault that must end all with exit code 1, and print one error with the reason.

        Args:
            killed: the rank that is killed.
        """
        self.run(fault, *options)
        expected = [-signal.SIGKILL if rank == killed else 1 for rank in range(len(self.codes))]
        if self.codes != expected:
            self.wrong.append(f"exit codes {self.codes}, not {expected}")
        if expected != [-signal.SIGKILL]:
            self.check_errors(reason)

    def check_errors(self, reason: str) -> None:
        lines = "\n".join(self.outputs).splitlines()
        errors = [line for line in lines if line.startswith("fastgan: error: ")]
        if len(errors) != 1 or reason not in errors[0]:
            self.wrong.append(f"errors {errors}, not one with {reason!r}")

    def finishes(self, fault: Fault = NO_FAULT, *options: str) -> None:
        """Runs to the end, where all exit codes must be 0."""
        self.run(fault, *options)
        if self.codes != [0] * len(self.codes):
            self.wrong.append(f"exit codes {self.codes} at the end")

    def equals(self, whole: Path) -> None:
        self.wrong += differences(whole, self.folder)


def run(
    calls: int,
    seed: int,
    kinds: tuple[str, ...] = (),
    recipes: tuple[str, ...] = RECIPES,
    layouts: tuple[tuple[int, ...], ...] = LAYOUTS,
) -> dict[str, Any]:
    """Makes that many runs with a fault, cycling through the kinds.

    Args:
        kinds: of KINDS; none: all.
        recipes, layouts: to choose from.

    Returns:
        calls, the number of each kind; faults: for each failure a line with the run and the problem.
    """
    figures: Counter[str] = Counter()
    faults: list[str] = []
    names = kinds or tuple(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for number in range(calls):
            kind, random = names[number % len(names)], Random(f"{seed}.{number}")
            recipe, layout = random.choice(recipes), random.choice(layouts)
            trial = Trial(stage, recipe, f"{kind}-{number}", layout, random)
            KINDS[kind](trial)
            figures[kind] += 1
            if trial.wrong:
                output = " || ".join(" | ".join(text.splitlines()[-6:]) for text in trial.outputs)
                wrong = "; ".join(trial.wrong)
                faults.append(f"{kind}, {recipe}, {layout}, seed {seed}.{number}: {wrong}: {output}")
            stage.remove(trial.name)
    return {"calls": calls, **{kind: figures[kind] for kind in names}, "faults": faults}


# --- kinds of faults --------------------------------------------------------------------------------------


def killed_in_forward(trial: Trial) -> None:
    """A process is killed within a forward pass."""
    rank, step, calls = _place(trial)

    def fault(own: int) -> None:
        if own == rank:
            _dies_in_forward(Moment(trial.recipe, step, calls))

    _dies_and_goes_on(trial, rank, fault)


def killed_in_exchange(trial: Trial) -> None:
    """A process is killed when it has started to exchange gradients."""
    rank, step, _ = _place(trial)

    def fault(own: int) -> None:
        def starts(self: Bucket, reduce: Any) -> None:
            start(self, reduce)
            if moment.comes():
                _die()

        moment, start = Moment(trial.recipe, step), Bucket.start
        if own == rank:
            Bucket.start = starts  # type: ignore[method-assign]

    _dies_and_goes_on(trial, rank, fault)


def killed_while_writing(trial: Trial) -> None:
    """Rank 0 is killed while it writes a checkpoint, or model.safetensors, behind the training."""
    place, step = trial.random.choice(("before", "torn", "renamed", "for use")), trial.random.choice((2, 4))

    def fault(own: int) -> None:
        save, write, replace = weights_files.save_file, checkpoint_writer.write_checkpoint, os.replace
        name = f"step-{step:08d}.safetensors"

        def saves(tensors: Any, path: Path, metadata: Any) -> None:
            if place == "torn" and path.name == name:
                path.write_bytes(b"torn")
                _die()
            save(tensors, path, metadata)

        def replaces(source: Path, target: Path) -> None:
            if place == "before" and Path(target).name == name:
                _die()
            if place == "for use" and Path(target).name == "model.safetensors" and written:
                _die()
            replace(source, target)
            if place == "renamed" and Path(target).name == name:
                _die()

        def writes(state: Any, *arguments: Any) -> Path:
            path = write(state, *arguments)
            if state.step == step:
                written.append(step)
            return path

        written: list[int] = []
        if own == 0:
            weights_files.save_file, os.replace = saves, replaces
            checkpoint_writer.write_checkpoint = writes

    _dies_and_goes_on(trial, 0, fault)


def nan_gradient(trial: Trial) -> None:
    """A process has NaN in a gradient, which the exchange gives to all."""
    rank, step, calls = _place(trial)

    def fault(own: int) -> None:
        def breaks(self: Bucket, number: int) -> None:
            if moment.comes():
                gradient = self.parameters[number].grad
                assert gradient is not None
                gradient.view(-1)[0] = float("nan")
            arrived(self, number)

        moment, arrived = Moment(trial.recipe, step, calls // 3 + 1), Bucket.arrived
        if own == rank:
            Bucket.arrived = breaks  # type: ignore[method-assign]

    _ends_of_nan(trial, step, fault)


def nan_weight(trial: Trial) -> None:
    """A weight of one process alone becomes NaN."""
    rank, step, _ = _place(trial)

    def fault(own: int) -> None:
        recipe = load_recipe(trial.recipe)
        step_of = recipe.train_step

        def breaks(self: Any, batch: Any, number: int, generator: torch.Generator) -> None:
            step_of(self, batch, number, generator)
            if number == step:
                next(self.networks["discriminator"].parameters()).data.view(-1)[0] = float("nan")

        if own == rank:
            recipe.train_step = breaks  # type: ignore[method-assign]

    _ends_of_nan(trial, step, fault)


def missing_gradients(trial: Trial) -> None:
    """Two processes lack the gradients of other parameters, in all steps; and one process is killed."""
    number = trial.random.randrange(3)

    def lacks(own: int) -> None:
        def arrives(self: Exchange, parameter: torch.Tensor) -> None:
            if own < 2 and parameter is self.groups[0][(number + own) % 3]:
                parameter.grad = None
            else:
                arrived(self, parameter)

        arrived = Exchange._arrived
        Exchange._arrived = arrives  # type: ignore[method-assign]

    rank, step, calls = _place(trial)

    def fault(own: int) -> None:
        lacks(own)
        if own == rank:
            _dies_in_forward(Moment(trial.recipe, step, calls))

    whole = trial.whole(f"-missing-{number}", lacks)
    trial.ends_with(fault, f"rank {rank}: its process died", killed=rank)
    trial.finishes(lacks)
    trial.equals(whole)


def slow(trial: Trial) -> None:
    """A process sleeps in some steps; the others wait for it."""
    rank, _, _ = _place(trial)
    naps = [trial.random.choice((0.0, 0.0, 0.3, 1.0, 2.0)) for _ in range(STEPS)]

    def fault(own: int) -> None:
        recipe = load_recipe(trial.recipe)
        step_of = recipe.train_step

        def naps_first(self: Any, batch: Any, step: int, generator: torch.Generator) -> None:
            time.sleep(naps[step])
            step_of(self, batch, step, generator)

        if own == rank:
            recipe.train_step = naps_first  # type: ignore[method-assign]

    trial.finishes(fault)
    trial.equals(trial.whole())


def other_number(trial: Trial) -> None:
    """A process is killed after step 4, and another number of processes goes on, with the same batches."""
    first, second = trial.random.sample(((1,), (2,), (3,), (1, 2), (2, 2)), 2)
    # Evaluated after step 4 as well, where the undisturbed run has its end.
    sized = ("--global_batch_size", "12", "--eval_interval", "2")
    whole = Trial(trial.stage, trial.recipe, f"{trial.name}-whole", first, trial.random)
    whole.finishes(NO_FAULT, *sized, "--num_steps", "4")
    whole.layout = second
    whole.finishes(NO_FAULT, *sized)
    trial.layout = first
    rank = trial.random.randrange(sum(first))

    def fault(own: int) -> None:
        def train_step(self: Any, batch: Any, step: int, generator: torch.Generator) -> None:
            while step == 4 and own == 0 and 4 not in _saved(trial):  # it would die with its writer
                time.sleep(0.01)
            if step == 4:
                _die()
            step_of(self, batch, step, generator)

        recipe = load_recipe(trial.recipe)
        step_of = recipe.train_step
        if own == rank:
            recipe.train_step = train_step  # type: ignore[method-assign]

    trial.ends_with(fault, f"rank {rank}: its process died", *sized, killed=rank)
    if 4 not in _saved(trial):
        trial.wrong.append("step 4 was not saved: rank 0 has left before its write had ended")
    trial.layout = second
    trial.finishes(NO_FAULT, *sized)
    trial.wrong += whole.wrong
    trial.equals(whole.folder)
    trial.stage.remove(whole.name)


def node_gone(trial: Trial) -> None:
    """All processes of a machine are killed, torchrun's too; it comes back, and torchrun goes on."""
    trial.layout = trial.random.choice(((1, 2), (2, 1)))
    whole, homes = trial.whole(), trial.stage.folder / trial.name
    homes.mkdir()
    script = homes / "script.py"
    data = OWN[trial.recipe].format(data=trial.stage.folder / "data")
    words = ["train", trial.recipe, *SHARED.split(), *data.split(), "--exp_name", trial.name]
    script.write_text(NODE.format(recipe=trial.recipe, step=trial.random.randrange(STEPS), words=words))

    def start(number: int, again: bool = False) -> subprocess.Popen:
        return start_node(
            homes, number, [str(script)], trial.layout, port, "--max-restarts=2", again=again,
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",  # without it, agents refuse one that comes back
        )  # fmt: skip

    port = free_port()
    nodes = [start(0), start(1)]
    try:
        nodes[1].wait(2 * LONGEST)
        time.sleep(trial.random.uniform(0, 3))
        nodes[1] = start(1, again=True)
        ended = wait_for_nodes(homes, nodes, 2 * LONGEST)
    except subprocess.TimeoutExpired as late:
        trial.wrong.append(str(late))
        end_nodes(nodes)
        trial.outputs = [path.read_text() for path in homes.glob("node-*/*.txt")]
        return
    trial.codes, trial.outputs = [node.code for node in ended], [node.out + node.errors for node in ended]
    if trial.codes != [0, 0]:
        trial.wrong.append(f"exit codes {trial.codes}")
    trial.check_errors("its process died")
    runs = [node.folder / "runs" / trial.name for node in ended]
    trial.wrong += differences(whole, next((run for run in runs if run.exists()), runs[0]))
    shutil.rmtree(homes)


# What runs on both machines. In the given step, one process of the second machine kills all there, once.
NODE = """
import os, signal, sys
from pathlib import Path
from fastgan import cli
from fastgan.recipes import load_recipe

recipe = load_recipe({recipe!r})
step_of = recipe.train_step

def train_step(self, batch, step, generator):
    if step == {step} and Path.cwd().name == "node-1" and not Path("gone").exists():
        Path("gone").touch()
        agent = os.getppid()
        workers = Path(f"/proc/{{agent}}/task/{{agent}}/children").read_text().split()
        for process in (agent, *map(int, workers)):
            os.kill(process, signal.SIGKILL)
    return step_of(self, batch, step, generator)

recipe.train_step = train_step
sys.exit(cli.main({words!r}))
"""

KINDS: dict[str, Callable[[Trial], None]] = {
    kind.__name__: kind
    for kind in (
        killed_in_forward, killed_in_exchange, killed_while_writing, nan_gradient, nan_weight,
        missing_gradients, slow, other_number, node_gone,
    )
}  # fmt: skip


# --- in the processes -------------------------------------------------------------------------------------


class Moment:
    """A call within a training step.

    Args:
        recipe: the recipe's name.
        step: the step's number.
        calls: the number of the call within it, from 1 on.
    """

    def __init__(self, recipe: str, step: int, calls: int = 1) -> None:
        self.step, self.calls, self.now = step, calls, -1
        recipe_class = load_recipe(recipe)
        step_of = recipe_class.train_step

        def train_step(recipe: Any, batch: Any, step: int, generator: torch.Generator) -> None:
            self.now = step
            step_of(recipe, batch, step, generator)

        recipe_class.train_step = train_step  # type: ignore[method-assign]

    def comes(self) -> bool:
        """Called at each call: whether it is the one."""
        if self.now == self.step:
            self.calls -= 1
            return self.calls == 0
        return False


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dies_in_forward(moment: Moment) -> None:
    torch.nn.modules.module.register_module_forward_hook(lambda *_: _die() if moment.comes() else None)


def _join(rank: int, size: int, local_rank: int, local_size: int, port: int, fault: Fault) -> None:
    """Gives this process its place among those of the run, as torchrun does."""
    if size > 1:
        places = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size}
        os.environ.update({name: str(value) for name, value in places.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    fault(rank)


# --- helpers ----------------------------------------------------------------------------------------------


def _place(trial: Trial) -> tuple[int, int, int]:
    """A random rank, step, and number of a call within it."""
    random = trial.random
    return random.randrange(sum(trial.layout)), random.randrange(STEPS), random.randint(1, 12)


def _saved(trial: Trial) -> list[int]:
    """The steps of its checkpoints."""
    return [*steps_of(trial.folder / "checkpoints").values()]


def _ends_of_nan(trial: Trial, step: int, fault: Fault) -> None:
    trial.ends_with(fault, "became NaN or infinite by step")
    if any(saved > step for saved in _saved(trial)):
        trial.wrong.append(f"checkpoints of steps {_saved(trial)}, with NaN in step {step + 1}")
    trial.finishes()
    trial.equals(trial.whole())


def _dies_and_goes_on(trial: Trial, rank: int, fault: Fault) -> None:
    trial.ends_with(fault, f"rank {rank}: its process died", killed=rank)
    trial.finishes()
    trial.equals(trial.whole())
