"""This process's place among those of a run."""

from __future__ import annotations

import os
import reprlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """This process's place among those of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes on this machine."""
    launcher: str = "torchrun"
    """What started them, for messages."""


def launched_world(environment: Mapping[str, str] = os.environ) -> World | None:
    """The world of torchrun, or of another launcher that sets its variables; None if they are not set.

    Raises:
        ValueError: a variable is missing or not a number, or they contradict each other.
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


def check_alone(environment: Mapping[str, str] = os.environ) -> None:
    """Raises a ValueError if the environment tells of other processes, but not this one's place among them.

    Each process would train by itself otherwise, all into the same folder.
    """
    for name, alone, missing in (("WORLD_SIZE", "1", "RANK"), ("RANK", "0", "WORLD_SIZE")):
        value = environment.get(name, alone)
        if value != alone and missing not in environment:
            raise ValueError(
                f"the environment has {name}={reprlib.repr(value)} but no {missing}: start with torchrun, "
                f"set {missing}, or unset {name}"
            )


def address_of_rank_0(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """MASTER_ADDR and MASTER_PORT.

    Raises:
        ValueError: one is missing, or the port is none.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise ValueError(f"MASTER_ADDR and MASTER_PORT must be set, as by torchrun: {name} is missing")
    port = environment["MASTER_PORT"]
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"MASTER_PORT must be a number in [1, 65535], got {reprlib.repr(port)}")
    return environment["MASTER_ADDR"], int(port)


def checked_world(world: World, values: Mapping[str, object]) -> World:
    """Returns the world if it is consistent.

    Args:
        values: the environment's values, for the error.

    Raises:
        ValueError: it is contradictory; the message lists the values.
    """
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        listed = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"the environment contradicts itself: {listed}")
    return world


def check_devices(devices: int | None, world: World) -> None:
    """Raises a ValueError if `devices` is given and differs from the number of processes started here."""
    if devices is not None and devices != world.local_size:
        elsewhere = f" ({world.size} on all machines)" if world.size > world.local_size else ""
        raise ValueError(
            f"devices is {devices}, but {world.launcher} started {world.local_size} processes on this machine"
            f"{elsewhere}: leave --devices out, or give both the same number"
        )


# Rank variables of torchrun, srun and jsrun, each with another variable that must be set for it to count.
RANKS = {
    "RANK": "WORLD_SIZE", "SLURM_PROCID": "SLURM_NTASKS", "JSM_NAMESPACE_RANK": "JSM_NAMESPACE_SIZE",
}  # fmt: skip
_world: list[World] = []


def remember(world: World) -> None:
    """Stores the world, once it is known, for :func:`is_main_process`."""
    _world[:] = [world]


def is_main_process() -> bool:
    """Whether this process prints results: it is the first of several, or the only one."""
    if _world:
        return _world[0].rank == 0
    return next((os.environ[n] for n, other in RANKS.items() if {n, other} <= os.environ.keys()), "0") == "0"


def torchrun_job() -> str | None:
    """An identifier of the torchrun job, the same after restarts; None outside of torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return None
    # Without --rdzv-id or --standalone all jobs have the id "none"; then the agent, which outlives its
    # workers, identifies the job.
    return run if run not in ("", "none") else f"agent {os.getppid()} on {socket.gethostname()}"


def has_agents_store() -> bool:
    """Whether torchrun's agent holds the store of the processes' addresses, which outlives them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def restarts() -> int:
    """How often torchrun has restarted the processes after a failure.

    Raises:
        ValueError: the environment variable is not a number.
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if not (count.isascii() and count.isdecimal()):
        raise ValueError(f"TORCHELASTIC_RESTART_COUNT must be a number, got {reprlib.repr(count)}")
    return int(count)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
