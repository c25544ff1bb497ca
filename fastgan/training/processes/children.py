"""The processes that the first one starts on its machine (`--devices`), and the end of any process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from fastgan.training.processes.world import free_port

# Environment variable with the pid of the process that started this one; see `start_others`.
PARENT = "FASTGAN_PARENT"
# Callbacks for `end_at_once`, which bypasses `with` and `finally`.
AT_LEAVING: list[Callable[[], None]] = []
# Callbacks for `leave` that may take a while, such as to finish a checkpoint.
BEFORE_LEAVING: list[Callable[[], object]] = []


def start_others(count: int) -> list[subprocess.Popen]:
    """Runs this command again as ranks 1 to count - 1; sets the address for them and for this process."""
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
    """Ends this process if one that it waits for dies within the block; torch would wait for half an hour.

    Args:
        others: the processes that :func:`start_others` started; in those themselves it is empty, and the
            parent is watched.
    """
    parent = int(os.environ.get(PARENT, "0"))
    started = threading.Event()

    def watch() -> None:
        while not started.wait(0.2):
            for rank, other in enumerate(others, start=1):
                if other.poll() is not None:
                    end_others(others, patience=0)
                    leave(f"rank {rank}: its process ended at the start, with exit code {other.returncode}")
            if parent and os.getppid() != parent:
                leave("rank 0: its process ended at the start" if os.environ.get("RANK") == "1" else None)

    watcher = threading.Thread(target=watch, name="fastgan-start", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        started.set()
        watcher.join()


def end_others(others: list[subprocess.Popen], patience: float) -> None:
    """Waits for the processes, and kills those that still run after `patience` seconds."""
    deadline = time.monotonic() + patience
    for other in others:
        try:
            other.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def leave(error: str | None) -> NoReturn:
    """Ends this process from any thread, and prints the error as the command would; None: silently."""
    if error is not None:
        print(f"fastgan: error: {error}", file=sys.stderr, flush=True)
    for callback in BEFORE_LEAVING:
        with contextlib.suppress(Exception):
            callback()
    end_at_once(1)


def end_at_once(code: int) -> NoReturn:
    """Ends this process at once, whatever its threads are doing."""
    for callback in AT_LEAVING:
        with contextlib.suppress(Exception):
            callback()
    os._exit(code)
