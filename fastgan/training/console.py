"""A console that may go away without taking the run along: a closed pipe, a full disk, a lost terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

# What a reader or terminal that will not come back answers. A full disk may have room again.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


class LastingStream:
    """A text stream that drops what cannot be written, and escapes what has no place in its encoding."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def end(self) -> None:
        """What is still in the buffer must not fail when the program ends."""
        try:
            self._stream.flush()
        except OSError:
            self._send_into_the_void()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError) -> None:
        if error.errno in GONE:
            self._send_into_the_void()

    def _send_into_the_void(self) -> None:
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()


@contextlib.contextmanager
def lasting_console() -> Iterator[None]:
    """Whatever is printed within, by whomever, goes to the console while there is one, and else nowhere."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    ours = [LastingStream(stream) for stream in before if not isinstance(stream, LastingStream)]
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, LastingStream) else LastingStream(stream)  # type: ignore[assignment]
        for stream in (sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w"))  # noqa: SIM115
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in ours:
            if stream._stream is not None:
                stream.end()


def _open_standard_descriptors() -> None:
    """Where one is closed (`>&-`), the next file to be opened would get its number, and what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
