"""Processes that SLURM (srun), LSF (jsrun) or MPI (mpirun, with mpi4py) start."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastgan.training.processes.world import World, checked_world, free_port

# The job names of SLURM's interactive shells, in which a command is not one of several tasks.
INTERACTIVE = ("bash", "interactive")


def cluster_world(devices: int | None) -> World | None:
    """The world of SLURM, LSF or MPI; None if none of them started several processes.

    Sets MASTER_ADDR and MASTER_PORT accordingly, unless they are set.

    Args:
        devices: processes on this machine, for environments that do not tell it.

    Raises:
        ValueError: the environment is incomplete or contradictory.
    """
    for name, started, read in _CLUSTERS:
        if not started():
            continue
        try:
            rank, size, local_rank, local_size, address, port = read()
        except (KeyError, ValueError, RuntimeError, OSError, IndexError) as error:
            raise ValueError(
                f"{name} started this process, but not all that it says is clear: {error!r}"
            ) from error
        if size == 1:
            return None
        os.environ.setdefault("MASTER_ADDR", address)
        os.environ.setdefault("MASTER_PORT", str(port))
        here = local_size or devices
        values = {"rank": rank, "size": size, "local rank": local_rank, "processes here": here}
        return checked_world(World(rank, size, local_rank, here or size, name), values)
    return None


# What an environment tells: rank, size, local rank, processes here, rank 0's address, a port there.
Told = tuple[int, int, int, int | None, str, int]


def _by_slurm() -> bool:
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE


def _slurm() -> Told:
    job = os.environ.get("SLURM_JOB_ID")
    return (
        _number("SLURM_PROCID"),
        _number("SLURM_NTASKS"),
        _number("SLURM_LOCALID"),
        _slurm_local_size(),
        _first_host(os.environ.get("SLURM_NODELIST", "127.0.0.1")),
        12910 if job is None else 15000 + int(job[-4:]),  # the same in all of a job's processes
    )


def _first_host(nodes: str) -> str:
    """The first name of a list such as "gpu[07-09],big1"."""
    nodes = re.sub(r"\[(.*?)[,-].*\]", r"\1", nodes)
    return re.sub(r"\[(.*?)\]", r"\1", nodes).split(" ")[0].split(",")[0]


def _slurm_local_size() -> int | None:
    """Tasks on this node: its entry of a list such as "2(x3),1", or else the number requested per node."""
    node = int(os.environ.get("SLURM_NODEID", "0"))
    listed = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", ""))
    counts: list[int] = []
    for part in listed.split(","):
        if match := re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part.strip()):
            counts += [int(match[1])] * min(int(match[2] or 1), 10**6)
    if node < len(counts):
        return counts[node]
    per_node = os.environ.get("SLURM_NTASKS_PER_NODE")
    return None if per_node is None else int(per_node)


def _by_lsf() -> bool:
    names = {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"}
    return names <= os.environ.keys()


def _lsf() -> Told:
    hosts = [line.strip() for line in Path(os.environ["LSB_DJOB_RANKFILE"]).read_text().splitlines()]
    here = os.environ.get("JSM_NAMESPACE_LOCAL_SIZE")
    return (
        _number("JSM_NAMESPACE_RANK"),
        _number("JSM_NAMESPACE_SIZE"),
        _number("JSM_NAMESPACE_LOCAL_RANK"),
        None if here is None else int(here),
        hosts[1],  # the first one is that of the launcher
        10000 + _number("LSB_JOBID") % 1000,
    )


def _mpi() -> Any:
    """mpi4py's MPI, if an mpirun has started this process; it is not imported otherwise."""
    started = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS"} & os.environ.keys()
    if not started or find_spec("mpi4py") is None:
        return None
    try:
        from mpi4py import MPI
    except ImportError:  # installed without an MPI
        return None
    return MPI


def _by_mpi() -> bool:
    mpi = _mpi()
    return mpi is not None and mpi.COMM_WORLD.Get_size() > 1


def _mpirun() -> Told:
    mpi = _mpi()
    world = mpi.COMM_WORLD
    here = world.Split_type(mpi.COMM_TYPE_SHARED)
    address, port = world.bcast((socket.gethostname(), free_port()), root=0)
    return world.Get_rank(), world.Get_size(), here.Get_rank(), here.Get_size(), address, port


def _number(name: str) -> int:
    return int(os.environ[name])


_CLUSTERS: tuple[tuple[str, Callable[[], bool], Callable[[], Told]], ...] = (
    ("SLURM", _by_slurm, _slurm),
    ("LSF", _by_lsf, _lsf),
    ("MPI", _by_mpi, _mpirun),
)
