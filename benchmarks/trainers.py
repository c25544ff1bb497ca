"""`fastgan bench trainers FOLDER`: public trainers' own steps, without and with `fastgan.patch`.

FOLDER has unmodified clones, named as their repositories; `benchmarks/public` lists them, and
makes tiny networks and random batches for each. Two processes train from the same seed, one of them with the
one added line; they take turns. Compared are all losses and parameters, in float64 and float32, and step time
and peak memory in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fastgan._arguments import Parser
from fastgan.bench.harness import peak_bytes
from fastgan.bench.public import TRAINERS, Trainer
from fastgan.bench.rows import conclude, merge_rows
from fastgan.training.measurement import describe_machine

COMPARED_STEPS = 3
# Nudged: without the patch, its parameters one rounding apart at the start. Training spreads that as it
# spreads the roundings of sums in another order.
KINDS = {"float64": ("before", "after"), "float32": ("before", "after", "nudged")}


def main(arguments: list[str]) -> int:
    parser = Parser(prog="fastgan bench trainers", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the clones")
    parser.add_argument("trainers", nargs="*", metavar="trainer", help="default: those in the folder")
    parser.add_argument("--turns", type=int, default=10, help="of each side, a step each (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process (default: 1)")
    parser.add_argument("--output", type=Path, help="folder for trainers-<device name>.json")
    options = parser.parse_args(arguments)
    machine = describe_machine("cpu")
    failed, path = [], None
    for name in options.trainers:
        if name not in TRAINERS:
            parser.error(f"no trainer {name!r}, choose from {', '.join(TRAINERS)}")
    for name in options.trainers or TRAINERS:
        if not (options.folder / TRAINERS[name].folder).is_dir():
            failed.append(f"{name} (no {options.folder / TRAINERS[name].folder})")
            continue
        row = measure(name, options)
        if row is None:
            failed.append(name)
            continue
        print(line(row), flush=True)
        if options.output:
            path = merge_rows([row | machine], options.output, "trainers", machine["device"], ("trainer",))
    return conclude(path, failed)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Agreement, times and memory of one trainer; None if it failed, after its errors were printed."""
    trainer = TRAINERS[name]
    row: dict[str, Any] = {
        "trainer": name, "repository": trainer.repository, "clone": _commit(options.folder / trainer.folder),
        "patch": list(trainer.patch), "served": trainer.served, "threads": options.threads,
    }  # fmt: skip
    for dtype in ("float64", "float32"):
        try:
            with contextlib.ExitStack() as stack:
                sides = [Side(name, options, dtype, kind) for kind in KINDS[dtype]]
                for side in sides:
                    stack.enter_context(side)
                row |= _agreement(sides, dtype)
                if dtype == "float32":
                    row["replaced"] = sides[1].ask("replaced")
                    row |= _timed(sides[0], sides[1], options.turns)
        except ChildProcessError as error:
            print(f"{name}, {dtype}:\n{error}", file=sys.stderr)
            if dtype == "float32":
                return None
            row[f"{dtype}_losses"] = row[f"{dtype}_weights"] = None
    return row


def _agreement(sides: list[Side], dtype: str) -> dict[str, float]:
    """Of the first side and each other, after training for some steps."""
    losses = [list(itertools.chain(*(side.ask("train") for _ in range(COMPARED_STEPS)))) for side in sides]
    parameters = [side.ask("parameters") for side in sides]
    names = (dtype, "rounding")
    row = {}
    for name, other, theirs in zip(names, losses[1:], parameters[1:], strict=False):
        row[f"{name}_losses"] = max(map(_difference, losses[0], other))
        row[f"{name}_weights"] = _difference_in_norm(parameters[0], theirs)
    return row


def _timed(before: Side, after: Side, turns: int) -> dict[str, float]:
    peaks = before.ask("peak"), after.ask("peak")
    times = [(before.ask("time"), after.ask("time")) for _ in range(turns)]
    return {
        "before_s": statistics.median(time for time, _ in times),
        "after_s": statistics.median(time for _, time in times),
        "ratio": statistics.median(one / other for one, other in times),
        "before_bytes": peaks[0], "after_bytes": peaks[1],
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    def number(key: str) -> str:
        return "-" if row[key] is None else f"{row[key]:.1e}"

    return (
        f"{row['trainer']:<16} losses {number('float64_losses')} {number('float32_losses')}  parameters "
        f"{number('float64_weights')} {number('float32_weights')}  "
        f"(rounding {number('rounding_losses')} {number('rounding_weights')})  "
        f"{1e3 * row['before_s']:.0f} -> {1e3 * row['after_s']:.0f} ms ({row['ratio']:.2f}x)  "
        f"{row['before_bytes'] / 1e6:.1f} -> {row['after_bytes'] / 1e6:.1f} MB"
    )


def _difference(one: Any, other: Any) -> float:
    """The largest, relative to the largest value."""
    one, other = torch.as_tensor(one).double(), torch.as_tensor(other).double()
    scale = float(one.abs().max())
    return float((one - other).abs().max()) / scale if scale else float(other.abs().max())


def _difference_in_norm(parameters: list[Any], others: list[Any]) -> float:
    """Of all parameters together, relative to their norm."""
    pairs = list(zip(parameters, others, strict=True))
    squares = sum(float(((one.astype("f8") - other.astype("f8")) ** 2).sum()) for one, other in pairs)
    return float((squares / sum(float((one.astype("f8") ** 2).sum()) for one, _ in pairs)) ** 0.5)


def _commit(clone: Path) -> str | None:
    """Of the clone, from git or from a file COMMIT, which an export may have."""
    if (clone / "COMMIT").exists():
        return (clone / "COMMIT").read_text().strip()
    command = ["git", "-C", str(clone), "rev-parse", "--short", "HEAD"]
    finished = subprocess.run(command, capture_output=True, text=True)
    return finished.stdout.strip() or None


# --- a process with one side ------------------------------------------------------------------------------


class Side:
    """A process that trains, with or without the patch, a step whenever it is asked to."""

    def __init__(self, name: str, options: argparse.Namespace, dtype: str, kind: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, name, options.folder.resolve(), dtype, kind, options.threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Side:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def ask(self, what: str) -> Any:
        self._pipe.send(what)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer, error = self._pipe.recv()
        except EOFError as ended:
            raise ChildProcessError("the process has ended") from ended
        if error is not None:
            raise ChildProcessError(error)
        return answer


def _serve(pipe: Connection, name: str, folder: Path, dtype: str, kind: str, threads: int) -> None:
    trainer = TRAINERS[name]
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(printed):
        try:
            os.chdir(scratch)
            torch.set_num_threads(threads)
            torch.set_default_dtype(getattr(torch, dtype))
            with open("stderr", "w") as stderr:
                os.dup2(stderr.fileno(), 2)  # of profilers and old code; errors are sent
            answers = _answers(trainer, folder, kind)
            pipe.send((None, None))
            while True:
                pipe.send((answers[pipe.recv()](), None))
        except EOFError:
            return
        except BaseException:
            pipe.send((None, printed.getvalue()[-2000:] + traceback.format_exc()))


def _answers(trainer: Trainer, folder: Path, kind: str) -> dict[str, Callable[[], Any]]:
    sys.argv = [trainer.folder]
    sys.path[:0] = [str(folder / path) for path in trainer.paths]
    report = None
    if kind == "after":
        import fastgan

        report = fastgan.patch(*trainer.patch)
    _seed()
    training = trainer.make(folder / trainer.folder)
    if kind == "nudged":
        with torch.no_grad():
            for parameter in training.parameters():
                parameter.mul_(1 + torch.finfo(torch.float32).eps)

    def train() -> list[Any]:
        return [torch.as_tensor(loss).detach().cpu().numpy() for loss in training.step()]

    def timed() -> float:
        begin = time.perf_counter()
        training.step()
        return time.perf_counter() - begin

    return {
        "train": train,
        "time": timed,
        "peak": lambda: peak_bytes(training.step, "cpu"),
        "parameters": lambda: [p.detach().cpu().numpy() for p in training.parameters()],
        "replaced": lambda: [] if report is None else report.replaced,
    }


def _seed() -> None:
    import numpy as np

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - trainers draw from it
    torch.manual_seed(0)
