"""The processes of a run: those that torchrun started, or those that the first one starts itself."""

from __future__ import annotations

import contextlib
import os
import reprlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

# Names the process that started this one, in its environment; see `start_others`.
PARENT = "FASTGAN_PARENT"
# What is still to be done where a process is ended from within, past what `with` and `finally` would do.
AT_LEAVING: list[Callable[[], None]] = []


@dataclass(frozen=True)
class World:
    """Who this process is among those of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes on this machine."""
    launcher: str = "torchrun"
    """Who started them, for messages."""


def launched_world(environment: Mapping[str, str] = os.environ) -> World | None:
    """The world of torchrun, or of whoever else sets its variables; None where nobody did.

    Raises:
        ValueError: a variable is missing or no number, or they contradict each other.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    values = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        try:
            values[name] = int(environment[name])
        except KeyError:
            raise ValueError(
                f"the environment has RANK and WORLD_SIZE but no {name}: start with torchrun, or set it"
            ) from None
        except ValueError:
            raise ValueError(f"{name} must be a number, got {reprlib.repr(environment[name])}") from None
    rank, size, local_rank, local_size = values.values()
    return checked_world(World(rank, size, local_rank, local_size), values)


def checked_world(world: World, said: Mapping[str, object]) -> World:
    """The world again.

    Raises:
        ValueError: it cannot be; the message has what the environment said.
    """
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        values = ", ".join(f"{name}={value}" for name, value in said.items())
        raise ValueError(f"the environment contradicts itself: {values}")
    return world


def check_devices(devices: int | None, world: World) -> None:
    """Raises a ValueError if `devices` was given and is not how many processes were started here."""
    if devices is not None and devices != world.local_size:
        elsewhere = f" ({world.size} on all machines)" if world.size > world.local_size else ""
        raise ValueError(
            f"devices is {devices}, but {world.launcher} started {world.local_size} processes on this machine"
            f"{elsewhere}: leave --devices out, or give both the same number"
        )


# The rank as torchrun, srun and jsrun tell it, each with what must be there, too, for it to count.
RANKS = {
    "RANK": "WORLD_SIZE", "SLURM_PROCID": "SLURM_NTASKS", "JSM_NAMESPACE_RANK": "JSM_NAMESPACE_SIZE",
}  # fmt: skip
_known: list[World] = []


def remember(world: World) -> None:
    """Tells :func:`is_main_process` the world, once it is known."""
    _known[:] = [world]


def is_main_process() -> bool:
    """Whether this is the process that prints results: the first of several, or the only one."""
    if _known:
        return _known[0].rank == 0
    return next((os.environ[n] for n, other in RANKS.items() if {n, other} <= os.environ.keys()), "0") == "0"


def torchrun_job() -> str | None:
    """What tells torchrun's restarts of one job from other jobs; None outside of torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return None
    # Without --rdzv-id or --standalone all jobs are called "none"; then the agent, which outlives its
    # workers, names the job.
    return run if run not in ("", "none") else f"agent {os.getppid()} on {socket.gethostname()}"


def restarts() -> int:
    """How often torchrun has started the processes again because one had failed.

    Raises:
        ValueError: the environment says something else than a number.
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if not (count.isascii() and count.isdecimal()):
        raise ValueError(f"TORCHELASTIC_RESTART_COUNT must be a number, got {reprlib.repr(count)}")
    return int(count)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_others(count: int) -> list[subprocess.Popen]:
    """Runs this program's command again as ranks 1 to count - 1; they and torch here are told the address."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name]
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(free_port())
    shared = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        PARENT: str(os.getpid()),
    }
    return [
        subprocess.Popen(
            [sys.executable, *program, *sys.argv[1:]],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(1, count)
    ]


@contextlib.contextmanager
def watched_start(others: list[subprocess.Popen]) -> Iterator[None]:
    """Ends this process if one that it waits for within is gone; torch would wait for half an hour.

    Args:
        others: those that :func:`start_others` started here; in them, nobody, and the parent is watched.
    """
    parent = int(os.environ.get(PARENT, "0"))
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for rank, other in enumerate(others, start=1):
                if other.poll() is not None:
                    end_others(others, patience=0)
                    leave(f"rank {rank}: its process ended at the start, with exit code {other.returncode}")
            if parent and os.getppid() != parent:
                leave("rank 0: its process ended at the start")

    watcher = threading.Thread(target=watch, name="fastgan-start", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def end_others(others: list[subprocess.Popen], patience: float) -> None:
    """Waits for them, and kills those that are still there after so many seconds."""
    deadline = time.monotonic() + patience
    for other in others:
        try:
            other.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def leave(error: str) -> NoReturn:
    """Ends this process from any of its threads, with the error as the command would print it."""
    print(f"fastgan: error: {error}", file=sys.stderr, flush=True)
    end_at_once(1)


def end_at_once(code: int) -> NoReturn:
    """Ends this process, wherever its threads are."""
    for act in AT_LEAVING:
        with contextlib.suppress(Exception):
            act()
    os._exit(code)
