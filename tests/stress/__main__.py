"""The long form: `python -m tests.stress --output benchmarks/results`, as `make stress` has it.

Calls are made in batches of a thousand (fewer for training runs), each from its own seed and in its own
process, so that a call that crashes it or hangs is a failure like any other.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import importlib
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan.training.measurement import describe_machine

LONGEST = 1800  # seconds for the calls of one process, which take a few minutes at most


@dataclass(frozen=True)
class Part:
    """A module with ``run(calls, seed) -> dict``: figures, and one list of lines that must be empty."""

    module: str
    failures: str
    """The key of that list."""
    calls: int = 20_000
    at_once: int = 1000
    """A batch of calls from one seed, in one process, within LONGEST seconds."""


PARTS = {
    "valid": Part("tests.stress.valid_calls", "disagreements"),
    "junk": Part("tests.stress.junk_calls", "faults"),
    "kills": Part("tests.stress.killed_runs", "faults", calls=200, at_once=50),
    "processes": Part("tests.stress.failed_processes", "faults", calls=50, at_once=50),
    "damage": Part("tests.stress.damaged_runs", "faults", calls=140, at_once=35),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="one of them alone (repeatable)")
    parser.add_argument("--calls", type=int, help="how many calls, in place of each part's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder to write stress.json into")
    options = parser.parse_args()
    rows, failed = [], False
    for name in options.part or PARTS:
        part = PARTS[name]
        begin = time.perf_counter()
        figures = _run(part, part.calls if options.calls is None else options.calls, options.seed)
        failures = figures.pop(part.failures)
        row = {"part": name, "seed": options.seed, **figures, part.failures: len(failures)}
        seconds = time.perf_counter() - begin
        print(*failures, sep="\n")
        print(", ".join(f"{key} {value}" for key, value in row.items()), f"({seconds:.0f} s)", flush=True)
        rows.append({**row, "seconds": seconds, **describe_machine("cpu")})
        failed |= bool(failures)
    if options.output is not None:
        print(f"written to {_write(rows, options.output)}")
    return int(failed)


def _run(part: Part, calls: int, seed: int) -> dict[str, Any]:
    """The sums of the figures of all batches."""
    total: dict[str, Any] = {"calls": 0, part.failures: []}
    run = importlib.import_module(part.module).run
    os.environ["PYTHONFAULTHANDLER"] = "1"
    watch = functools.partial(faulthandler.dump_traceback_later, LONGEST, exit=True)
    context = multiprocessing.get_context("spawn")
    for number in range(0, calls, part.at_once):
        count, own_seed = min(part.at_once, calls - number), seed + number // part.at_once
        with ProcessPoolExecutor(1, context, initializer=watch) as pool:
            try:
                figures = pool.submit(run, count, own_seed).result()
            except BrokenProcessPool:
                figures = {"calls": count, part.failures: [f"seed {own_seed}: the process died, see above"]}
        for key, value in figures.items():
            if isinstance(value, dict):  # counts by name
                value = dict(Counter(total.get(key, {})) + Counter(value))
            elif key in total:
                value = total[key] + value
            total[key] = value
        print(f"\r{part.module}: {total['calls']} of {calls}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return total


def _write(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Writes rows to stress.json, and keeps those of other parts."""
    path = folder / "stress.json"
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else []
    remaining = [row for row in before if row["part"] not in {row["part"] for row in rows}]
    path.write_text(json.dumps(sorted(rows + remaining, key=lambda row: row["part"]), indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
