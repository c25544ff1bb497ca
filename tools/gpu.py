"""`make gpu`: builds, tests and measures on a machine with an NVIDIA GPU, and continues after failures.

Usage: gpu.py [PHASE[:SECONDS] ...]    (default: all of them, in this order)

    build        the CUDA library for this GPU's architecture, installed editable
    info         what was built, and which implementation serves what
    tests        pytest -m gpu, on several processes where pytest-xdist is installed
    ops          every op against its peers, quickly
    recipes      training steps of the recipes' demos, one process each
    stegastamp   StegaStamp in full size, for FASTGAN_MINUTES

A phase is stopped after SECONDS; results measured until then are kept. A failed build is followed by one
without CUDA, so that the Triton kernels are tested all the same. All output goes to gpu.log; the screen shows
the end of the output of failed phases, and finally a line per phase. The exit status is 1 if any phase
failed. docs/gpu.md documents what must be installed, and how to spread the phases over calls of limited
length.

Environment:
    FASTGAN_GPU_OUTPUT     folder of gpu.log and of the results (default: benchmarks/results)
    FASTGAN_PHOTOGRAPHS    folder of photographs for stegastamp (default: twelve that are built in)
    FASTGAN_MINUTES        minutes that stegastamp trains (default: 3); without SECONDS it gets 3 more
    FASTGAN_CUDA_ARCHS     architectures to build for (default: that of this GPU, as torch says)
    FASTGAN_COMMIT         the commit for the rows of results, where there is no repository
    FASTGAN_DEVICE=cpu     to try this script without a GPU, or nvcc
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEVICE = os.environ.get("FASTGAN_DEVICE", "cuda")
MINUTES = float(os.environ.get("FASTGAN_MINUTES", "3"))
OUTPUT = Path(os.environ.get("FASTGAN_GPU_OUTPUT", ROOT / "benchmarks" / "results")).resolve()
RECIPES = sorted(path.parent.name for path in (ROOT / "fastgan" / "recipes").glob("*/recipe.py"))
FASTGAN = (sys.executable, "-m", "fastgan")
# Time between SIGINT, on which pytest still reports failures, and SIGKILL.
GRACE_SECONDS = 15

Command = tuple[str, ...]


def build() -> list[Command]:
    pip = (sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "-v")
    return [(*pip, "--editable", str(ROOT))]


def info() -> list[Command]:
    return [(*FASTGAN, "info")]


def tests() -> list[Command]:
    pytest = [
        sys.executable, "-m", "pytest", "-m", "gpu", "-rfE", "--tb=short", "--maxfail=100",
        "--continue-on-collection-errors", "-o", "addopts=--strict-markers --import-mode=importlib",
    ]  # fmt: skip
    if importlib.util.find_spec("xdist"):
        pytest += ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal"]
    if importlib.util.find_spec("pytest_timeout"):
        pytest += ["--timeout=120"]
    return [tuple(pytest)]


def ops() -> list[Command]:
    return [(*FASTGAN, "bench", "--device", DEVICE, "--quick", "--output", str(OUTPUT))]


def recipes() -> list[Command]:
    options = ("--device", DEVICE, "--steps", "16", "--output", str(OUTPUT))
    return [(*FASTGAN, "bench", "recipes", recipe, *options) for recipe in RECIPES]


def stegastamp() -> list[Command]:
    command = [*FASTGAN, "bench", "stegastamp", "--device", DEVICE, "--output", str(OUTPUT)]
    command += ["--minutes", f"{MINUTES:g}"]
    command += ["--workers", str(max(2, min(12, (os.cpu_count() or 2) - 2)))]
    if os.environ.get("FASTGAN_PHOTOGRAPHS"):
        command += ["--train_path", os.environ["FASTGAN_PHOTOGRAPHS"]]
    return [tuple(command)]


PHASES: dict[str, tuple[Callable[[], list[Command]], float]] = {
    "build": (build, 240),
    "info": (info, 60),
    "tests": (tests, 400),
    "ops": (ops, 300),
    "recipes": (recipes, 240),
    "stegastamp": (stegastamp, 60 * MINUTES + 180),
}


def main(arguments: list[str]) -> int:
    chosen = []
    for argument in arguments or PHASES:
        name, _, limit = argument.partition(":")
        if name not in PHASES:
            print(f"no phase {name!r}, choose from {', '.join(PHASES)}", file=sys.stderr)
            return 2
        commands, seconds = PHASES[name]
        chosen.append((name, commands, float(limit) if limit else seconds))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    cuda = "OFF" if DEVICE == "cpu" else "ON"
    environment = {"FASTGAN_CUDA": cuda, **os.environ, "PYTHONUNBUFFERED": "1"}
    building = any(name == "build" for name, *_ in chosen)
    if building and environment["FASTGAN_CUDA"] == "ON" and not environment.get("FASTGAN_CUDA_ARCHS"):
        environment["FASTGAN_CUDA_ARCHS"] = architecture()
    failed, lines = [], []
    while chosen:
        name, commands, seconds = chosen.pop(0)
        begin = time.monotonic()
        failure, last = run(name, commands(), seconds, environment)
        lines.append(f"{name:<11} {failure or 'ok':<28} {time.monotonic() - begin:6.1f} s   {last}")
        print(lines[-1], flush=True)
        if failure:
            failed.append(name)
        if failure and name == "build":
            environment["FASTGAN_CUDA"] = "OFF"
            chosen.insert(0, ("build CPU", *PHASES["build"]))
    print("\n".join(["", *lines]))
    print(f"output in {OUTPUT / 'gpu.log'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(
    name: str, commands: list[Command], seconds: float, environment: dict[str, str]
) -> tuple[str | None, str]:
    """The failure of a phase, or None, and the last line of its output."""
    ends = time.monotonic() + seconds
    failure = None
    with (OUTPUT / "gpu.log").open("a+b") as log:
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        for command in commands:
            log.write(f"\n=== {name}: {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=os.setpgrp,
            )  # fmt: skip
            try:
                code = process.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                end(process)
                failure = f"STOPPED after {seconds:g} s"
                break
            except BaseException:  # this script is interrupted: the command would go on without it
                end(process)
                raise
            if code:
                failure = f"FAILED with status {code}"
        log.seek(begin)
        lines = log.read().decode(errors="replace").strip().splitlines()
    if failure:
        print("\n".join(lines)[-3000:])
    return failure, lines[-1].strip() if lines else ""


def end(process: subprocess.Popen) -> None:
    """Ends a command with all processes that it has started."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def architecture() -> str:
    """The GPU's architecture, as in "90". Another process asks torch, and frees its GPU memory as it ends."""
    code = "import torch; print('%d%d' % torch.cuda.get_device_capability())"
    query = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if query.returncode != 0:
        raise SystemExit(f"torch finds no GPU; FASTGAN_CUDA_ARCHS can name its architecture:\n{query.stderr}")
    return query.stdout.strip()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
