"""Shards of small images, and a server of them on loopback that fails as it is told."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image


class Server:
    """What was asked for, and what goes wrong.

    Attributes:
        url: of the folder.
        requests: number by file.
        busy: how often each file is still to be answered with "503".
        cut: files whose transfer ends after their first bytes.
        shortened: how often each file is still to be answered with its first bytes as if that were all.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.cut: set[str] = set()
        self.shortened: Counter[str] = Counter()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, state: Server, **options) -> None:
        self.state = state
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.state.requests[name] += 1
        if self.state.busy[name] > 0:
            self.state.busy[name] -= 1
            self.send_error(503)
        elif name in self.state.cut or self.state.shortened[name] > 0:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            is_cut = name in self.state.cut
            self.state.shortened[name] -= not is_cut
            self.send_header("Content-Length", str(len(content) if is_cut else 100))
            self.end_headers()
            self.wfile.write(content[:100])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A folder at a URL on loopback."""
    state = Server()
    handler = functools.partial(_Handler, state=state, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def write_images(folder: Path, count: int) -> Path:
    """Images of 6x6 whose colour is their number, in folders of a hundred."""
    for number in range(count):
        path = folder / f"{number // 100:02d}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 6, 3), (number // 256, number % 256, 7), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder
