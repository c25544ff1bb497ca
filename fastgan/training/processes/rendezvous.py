"""How the processes of a launch find each other, and tell of a failure before they have."""

from __future__ import annotations

import contextlib
import itertools
import socket
from datetime import timedelta

import torch

from fastgan.training.processes.clusters import cluster_world
from fastgan.training.processes.peers import fail_at_start
from fastgan.training.processes.world import World, address_of_rank_0, has_agents_store, launched_world

# Seconds in which a process that failed at the start must reach the others.
TELL_TIMEOUT = timedelta(seconds=15)
# Counts the launches with several processes in this process.
_LAUNCHES = itertools.count()


def tell_of_failed_start(text: str) -> bool:
    """Tells the other processes of an error before :meth:`Runtime.launch`, so that they do not wait.

    Args:
        text: the error.

    Returns:
        Whether this process is the one that shows the error to the user.
    """
    try:
        world = launched_world() or cluster_world(None)
    except ValueError:
        return True
    if world is None or world.size == 1:
        return True
    try:
        others_know = fail_at_start(world.rank, world.size, text, store_of_launch(world, TELL_TIMEOUT))
    except (RuntimeError, OSError, ValueError):  # rank 0 is not there, or its address is not known
        return True
    return world.rank == 0 or not others_know


def store_of_launch(world: World, timeout: timedelta) -> torch.distributed.Store:
    """The store in which the processes of this launch find each other: torchrun's, or rank 0's.

    Not that of torch.distributed.rendezvous, which depends on the number of restarts: that differs between
    machines, as torchrun counts a restart only where a process has failed.

    Raises:
        ValueError: the launcher has not said where rank 0 is.
        OSError: rank 0 cannot listen there, or cannot be reached there.
    """
    address, port = address_of_rank_0()
    listens = world.rank == 0 and not has_agents_store()
    try:
        store = torch.distributed.TCPStore(
            address,
            port,
            world.size,
            is_master=listens,
            timeout=timeout,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        what = "is the port that of another run?" if listens else "is rank 0 there?"
        raise OSError(f"no connection at MASTER_ADDR={address}, MASTER_PORT={port}, {what} {error}") from None
    return torch.distributed.PrefixStore(f"fastgan/{next(_LAUNCHES)}", store)


def own_address() -> str:
    """The address of this machine for the others: that from which it reaches the one of MASTER_ADDR.

    After an elastic restart, rank 0 may be on another machine than that one.
    """
    address, port = address_of_rank_0()
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, place in socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)  # sends nothing
                own = str(probe.getsockname()[0])
                return address if own.startswith("127.") or own == "::1" else own
    return address
