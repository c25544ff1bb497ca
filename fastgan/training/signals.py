"""Handling of Ctrl-C, SIGTERM and SIGHUP before and during training."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from fastgan.training.processes.children import end_at_once

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The run was stopped by a signal, in all its processes, at the end of a step and with a checkpoint."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """A signal ends the process at once with exit code 128 + its number, as there is nothing to save yet."""

    def leave(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the signal interrupted another print
            print(f"fastgan: ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
        end_at_once(128 + number)

    with _handlers(leave):
        yield


@contextlib.contextmanager
def stop_after_the_step() -> Iterator[list[int]]:
    """Records the first signal's number, to be read after the step (0: none); a second one acts as before."""
    received = [0]

    def stop(number: int, frame: FrameType | None) -> None:
        received[0] = number
        signal.signal(number, previous[number])

    with _handlers(stop) as previous:
        yield received


def default_signals() -> contextlib.AbstractContextManager:
    """Restores the kernel's handling, which also ends calls during which Python's handlers cannot run."""
    return _handlers(signal.SIG_DFL)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[dict]:
    """Installs a handler for all STOPPING signals, in the main thread only; yields the previous handlers."""
    previous: dict = {}
    try:
        for number in STOPPING:
            # Leave SIGHUP ignored, as nohup has it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    except ValueError:  # not in the main thread
        pass
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
