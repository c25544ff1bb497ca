"""Runs a program by torchrun on simulated machines: agents on this one that share neither folder nor home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgan.training.processes.world import free_port
from tests.processes import ROOT


@dataclass(frozen=True)
class Ended:
    """A machine's torchrun after its end."""

    folder: Path
    """The machine's: its working folder, home, and folder of temporary files."""
    code: int
    out: str
    errors: str
    seconds: float


def start_nodes(
    folder: Path, program: Sequence[str], processes: Sequence[int], *options: str, backend: str = "c10d"
) -> list[subprocess.Popen]:
    """Starts `torchrun PROGRAM` on one machine per entry of `processes`, each in `folder`/node-I."""
    port = free_port()
    return [
        start_node(folder, number, program, processes, port, *options, backend=backend)
        for number in range(len(processes))
    ]


def start_node(
    folder: Path,
    number: int,
    program: Sequence[str],
    processes: Sequence[int],
    port: int,
    *options: str,
    backend: str = "c10d",
    again: bool = False,
    **environment: str,
) -> subprocess.Popen:
    """Starts one of these machines.

    Args:
        port: of the rendezvous.
        again: whether it was started before, so that its output is appended.
        environment: additional variables.
    """
    home = folder / f"node-{number}"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    place = {
        "c10d": [
            "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test",
            f"--rdzv-conf=is_host={int(number == 0)}",
        ],
        "static": [f"--node-rank={number}", "--master-addr=127.0.0.1", f"--master-port={port}"],
    }[backend]  # fmt: skip
    shared = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "XDG_CACHE_HOME")}
    mode = "a" if again else "w"
    node = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(processes)}",
            f"--nproc-per-node={processes[number]}", *place, *options, *program,
        ],
        cwd=home, text=True,
        stdout=(home / "out.txt").open(mode), stderr=(home / "errors.txt").open(mode),
        env=shared | environment | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(home),
            "TMPDIR": str(home / "tmp"), "MPLCONFIGDIR": str(home / "tmp"),
        },
    )  # fmt: skip
    if number == 0 and backend == "c10d":
        time.sleep(1.0)  # so that it has rank 0
    return node


def wait_for_nodes(folder: Path, nodes: list[subprocess.Popen], seconds: float = 240.0) -> list[Ended]:
    """Waits until all have ended; kills them, and fails, after so many seconds."""
    began, ended = time.monotonic(), []
    try:
        for number, node in enumerate(nodes):
            code = node.wait(max(1.0, seconds - (time.monotonic() - began)))
            home = folder / f"node-{number}"
            texts = [(home / name).read_text() for name in ("out.txt", "errors.txt")]
            ended.append(Ended(home, code, *texts, time.monotonic() - began))
    finally:
        end_nodes(nodes)
    return ended


def end_nodes(nodes: list[subprocess.Popen]) -> None:
    """Ends those that still run."""
    for node in nodes:
        if node.poll() is None:
            node.terminate()  # torchrun ends its processes
            try:
                node.wait(40)
            except subprocess.TimeoutExpired:
                node.kill()


def run_nodes(
    folder: Path, program: Sequence[str], processes: Sequence[int], *options: str, backend: str = "c10d"
) -> list[Ended]:
    """Both of the above."""
    return wait_for_nodes(folder, start_nodes(folder, program, processes, *options, backend=backend))
