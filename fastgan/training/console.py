"""Output to a console that may fail without ending the run: a closed pipe, a full disk, a lost terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

# Errors of a reader or terminal that is gone for good. (A full disk may have room again later.)
GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


class LastingStream:
    """A text stream that drops what cannot be written, and escapes characters outside its encoding."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._write(text)
        except OSError as error:
            self._handle_error(error)
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
            self._handle_error(error)

    def end(self) -> None:
        """Flushes the buffer, so that Python's own flush at exit cannot fail."""
        try:
            self._stream.flush()
        except OSError:
            self._redirect_to_null()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _handle_error(self, error: OSError) -> None:
        if error.errno in GONE:
            self._redirect_to_null()

    def _redirect_to_null(self) -> None:
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()


@contextlib.contextmanager
def lasting_console() -> Iterator[None]:
    """Within the block, all output goes to the console while it exists, and is dropped otherwise."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    wrapped_here = [LastingStream(stream) for stream in before if not isinstance(stream, LastingStream)]
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, LastingStream) else LastingStream(stream)  # type: ignore[assignment]
        for stream in (sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w"))  # noqa: SIM115
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in wrapped_here:
            if stream._stream is not None:
                stream.end()


def _open_standard_descriptors() -> None:
    """Opens closed ones (`>&-`): otherwise the next opened file would get the number, and the output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
