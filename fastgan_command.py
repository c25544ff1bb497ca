"""The entry point of the command `fastgan`: Ctrl-C while torch is imported ends it in one line.

It lies outside of the package `fastgan`, because importing anything from there imports torch first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> int:
    # A KeyboardInterrupt would not do: extension modules that are being imported turn it into other errors.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _leave)
    from fastgan.cli import main as run

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"fastgan: interrupted\n")
    os._exit(128 + number)
