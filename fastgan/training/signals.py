"""Ctrl-C, SIGTERM and a terminal that hangs up: before a run trains, and while it does."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from fastgan.training.world import end_at_once

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The run was stopped by a signal, in all its processes, after the step and with a checkpoint."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """A signal ends the process with exit code 128 + its number: nothing is done yet that could be lost."""

    def leave(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: it interrupted another print
            print(f"fastgan: ended by {signal.Signals(number).name}", file=sys.stderr, flush=True)
        end_at_once(128 + number)

    with _handlers(leave):
        yield


@contextlib.contextmanager
def stop_after_the_step() -> Iterator[list[int]]:
    """Turns the first signal into a number that is read after the step (0: none); a second acts as before."""
    received = [0]

    def stop(number: int, frame: FrameType | None) -> None:
        received[0] = number
        signal.signal(number, previous[number])

    with _handlers(stop) as previous:
        yield received


def default_signals() -> contextlib.AbstractContextManager:
    """A signal ends the process as the kernel does, also within a call that Python's handlers wait for."""
    return _handlers(signal.SIG_DFL)


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[dict]:
    """The handler for all signals that stop, as far as signals are ours; yields those before."""
    previous: dict = {}
    try:
        for number in STOPPING:
            # nohup ignores SIGHUP, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    except ValueError:  # not in the main thread
        pass
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
