"""Connections between the processes of a run: all learn of a failure, and none waits for a dead process.

Collectives alone cannot do this: with gloo the others see a closed connection without a reason, with NCCL
they wait. Each process holds a TCP connection to rank 0, which forwards messages. A process that dies,
however it dies, closes its connection, so that silence, as during a long evaluation, is no sign of a failure.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
import threading
import time
from typing import NamedTuple

from torch.distributed import Store

from fastgan.training.processes.children import leave
from fastgan.training.processes.world import restarts

# Seconds that a process has to end by itself after another has failed; then it is ended. The failed process
# waits as long for the others, because torchrun stops all of them as soon as one has ended.
GRACE = 5.0
CONNECT_SECONDS = 600.0
# Seconds after which rank 0 says for whom it waits: machines of one job may start minutes apart.
TELL_SECONDS = 30.0
# Seconds to wait for an answer while connecting.
ANSWER_SECONDS = 30.0
# Seconds after which an address that rank 0 has told, but does not answer at, is an error.
REFUSED_SECONDS = 5.0
# Seconds in which the others must have seen a failure at the start: they may still import torch.
SEEN_SECONDS = 20.0
# Keys of the store: rank 0's address, port and the token that callers must show; the failure of a process at
# the start of an attempt, and the number of others that have seen it.
ADDRESS, FAILED, SEEN = "peers", "failed/{}", "seen/{}"


DIED = "its process died (killed, or out of memory?)"


class Failure(NamedTuple):
    """The process that failed, and its error."""

    rank: int
    text: str

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.text}"


class FailedAtStart(OSError):
    """Another process failed before all were connected."""


class Peers:
    """This process's connections to the others.

    Args:
        rank: of this process.
        connections: by rank: to rank 0, or in rank 0 to all others.
        token: that of these processes alone.
    """

    def __init__(self, rank: int, connections: dict[int, socket.socket], token: str) -> None:
        self.rank = rank
        self.token = token
        self.failure: Failure | None = None
        self._connections = connections
        self._present = set(connections)
        self._leaving = False
        self._changed = threading.Condition()
        self._timer = threading.Timer(GRACE, self._leave)
        self._timer.daemon = True
        self._threads = [
            threading.Thread(target=self._listen, args=ends, name="fastgan-peer", daemon=True)
            for ends in connections.items()
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def connect(cls, rank: int, size: int, host: str | None, store: Store, again: bool = False) -> Peers:
        """Connects all processes; each of them must call it.

        Args:
            host: the address under which others reach this machine, if it is rank 0's; None: all processes
                are on one machine.
            store: that of the job.
            again: whether the store may hold what an earlier attempt of the job has left, as torchrun's does:
                after elastic restarts the machines do not even agree on the number of attempts.

        Raises:
            FailedAtStart: another process has failed before; see :func:`fail_at_start`.
            OSError: rank 0 cannot be reached, or a process did not connect.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        refused_since = None
        if rank > 0:
            while True:
                _check_start(store, deadline, "rank 0 did not start")
                if store.check([ADDRESS]):
                    address, port, token = store.get(ADDRESS).decode().split()
                    if connection := _call(address, int(port), token, rank):
                        return cls(rank, {0: connection}, token)
                    refused_since = refused_since or time.monotonic()
                    if not again and time.monotonic() > refused_since + REFUSED_SECONDS:
                        raise ConnectionRefusedError(
                            f"rank 0 does not answer rank {rank} at {address}, port {port}: is MASTER_PORT "
                            "that of another run, or the port blocked?"
                        )
                time.sleep(0.1)
        token = secrets.token_hex(16)
        with _server(everywhere=host is not None) as server:
            server.settimeout(0.2)
            store.set(ADDRESS, f"{host or '127.0.0.1'} {server.getsockname()[1]} {token}")
            connections: dict[int, socket.socket] = {}
            told = False
            while len(connections) < size - 1:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = next(other for other in range(1, size) if other not in connections)
                    _check_start(store, deadline, f"rank {missing} did not connect")
                    if not told and time.monotonic() > deadline - CONNECT_SECONDS + TELL_SECONDS:
                        told = True
                        _tell_of_waiting(missing, size - 1 - len(connections), size)
                    continue
                connection.settimeout(ANSWER_SECONDS)
                words = _first_line(connection)
                if len(words) == 2 and words[0] == token:
                    connection.sendall(f"{token}\n".encode())
                    connections[int(words[1])] = _keep_alive(connection)
                else:  # not a process of this run
                    connection.close()
        return cls(rank, connections, token)

    def wait_for_failure(self, seconds: float) -> Failure | None:
        """The failure that is known, or becomes known within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure is not None, seconds)
            return self.failure

    def tell(self, text: str) -> Failure:
        """Reports that this process failed; returns the first failure, which is the one that counts."""
        return self._record(Failure(self.rank, text))

    def hang_up(self) -> None:
        """Disconnects. After a failure, the failed process and rank 0 wait until the others have done so."""
        with self._changed:
            self._leaving = True
            if self.failure is None:
                self._send("bye")
            elif self.rank in (0, self.failure.rank):
                others = self._present - {self.failure.rank}
                self._changed.wait_for(lambda: not self._present & others, GRACE)
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # Join the threads: Python aborts if it exits while one releases torch objects (pytorch#38228).
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()
        for thread in self._threads:
            thread.join()
        for connection in self._connections.values():
            connection.close()

    def _listen(self, peer: int, connection: socket.socket) -> None:
        said_goodbye = False
        with contextlib.suppress(OSError, ValueError):
            for line in connection.makefile("rb"):
                message = json.loads(line)
                if message == "bye":
                    said_goodbye = True
                else:
                    self._record(Failure(*message))
        if not said_goodbye:
            self._record(Failure(peer, DIED))
        with self._changed:
            self._present.discard(peer)
            self._changed.notify_all()

    def _record(self, failure: Failure) -> Failure:
        with self._changed:
            if self.failure is None and not self._leaving:
                self.failure = failure
                self._send([*failure])
                self._changed.notify_all()
                if failure.rank != self.rank:
                    self._timer.start()
            return self.failure or failure

    def _send(self, message: object) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(message).encode() + b"\n")

    def _leave(self) -> None:
        """Ends the process, whose main thread may be stuck in a collective or far from its next one."""
        if not self._leaving:
            leave(str(self.failure) if self.prints else None)

    @property
    def prints(self) -> bool:
        """Whether this process is the one that prints the failure: rank 0, or the next one if it died."""
        assert self.failure is not None
        return self.rank == (1 if self.failure == Failure(0, DIED) else 0)


def fail_at_start(rank: int, size: int, text: str, store: Store) -> bool:
    """Tells of a failure before `Peers` are connected, and waits until the others have seen it.

    If it just ended, those on other machines would wait: torchrun ends only the processes on its own.

    Args:
        store: as for :meth:`Peers.connect`.

    Returns:
        Whether the others know of a failure, this one or an earlier one.
    """
    mine, seen = str(Failure(rank, text)), SEEN.format(restarts())
    if store.compare_set(FAILED.format(restarts()), "", mine).decode() != mine:
        store.add(seen, 1)
        return True
    deadline = time.monotonic() + SEEN_SECONDS
    while store.add(seen, 0) < size - 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _tell_of_waiting(missing: int, count: int, size: int) -> None:
    print(
        f"fastgan: waiting for {count} of {size} processes, such as rank {missing}, for at most "
        f"{CONNECT_SECONDS / 60:.0f} minutes: were they all started (in a batch script of SLURM, by srun)?",
        file=sys.stderr,
        flush=True,
    )


def _check_start(store: Store, deadline: float, missing: str) -> None:
    """Raises if a process has failed, or the deadline is over."""
    failed = FAILED.format(restarts())
    if store.check([failed]):
        store.add(SEEN.format(restarts()), 1)
        raise FailedAtStart(store.get(failed).decode())
    if time.monotonic() > deadline:
        raise TimeoutError(f"{missing} within {CONNECT_SECONDS:.0f} s")


def _call(address: str, port: int, token: str, rank: int) -> socket.socket | None:
    """Connects to rank 0; None if it is not there, as at the address of an earlier attempt."""
    try:
        connection = socket.create_connection((address, port), ANSWER_SECONDS)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        connection.sendall(f"{token} {rank}\n".encode())
        if _first_line(connection) == [token]:
            return _keep_alive(connection)
    connection.close()
    return None


def _server(everywhere: bool) -> socket.socket:
    if not everywhere:
        return socket.create_server(("127.0.0.1", 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _first_line(connection: socket.socket) -> list[str]:
    """The words of a caller's first line; none if it sends something else."""
    line = b""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        # Byte by byte, because what follows the line is for `_listen`.
        while not line.endswith(b"\n") and len(line) < 100 and (byte := connection.recv(1)):
            line += byte
        return line.decode("ascii").split()
    return []


def _keep_alive(connection: socket.socket) -> socket.socket:
    """Removes the timeout, but enables keepalive probes, which notice a dead machine within a minute."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # macOS has not all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return connection
