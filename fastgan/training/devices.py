"""The device of a process, by Lightning Fabric."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING

from fastgan.training.world import World, checked_world

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric


def cluster_world(devices: int | None) -> World | None:
    """The world of SLURM (srun), LSF (jsrun) or MPI; None if none of them started several processes.

    Sets MASTER_ADDR and MASTER_PORT accordingly.

    Args:
        devices: processes on this machine, for environments that do not tell it.

    Raises:
        ValueError: the environment is incomplete or contradictory.
    """
    _import_fabric()
    from lightning_fabric.plugins.environments import LSFEnvironment, MPIEnvironment, SLURMEnvironment

    for name, kind, local_size in (
        ("SLURM", SLURMEnvironment, _slurm_local_size),
        ("LSF", LSFEnvironment, lambda: _number("JSM_NAMESPACE_LOCAL_SIZE")),
        ("MPI", MPIEnvironment, _mpi_local_size),
    ):
        if not kind.detect():
            continue
        try:
            processes_here = local_size() or devices
            if kind is SLURMEnvironment and processes_here:
                # Fabric requires this variable, where srun may set another one.
                os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes_here))
            cluster = kind()
            size, rank, local_rank = cluster.world_size(), cluster.global_rank(), cluster.local_rank()
            if size == 1:
                return None
            os.environ["MASTER_ADDR"] = str(cluster.main_address)
            os.environ["MASTER_PORT"] = str(cluster.main_port)
        except (KeyError, ValueError, RuntimeError, OSError, IndexError) as error:
            raise ValueError(
                f"{name} started this process, but not all that it says is clear: {error!r}"
            ) from error
        world = World(rank, size, local_rank, processes_here or size, name)
        return checked_world(
            world, {"rank": rank, "size": size, "local rank": local_rank, "processes here": processes_here}
        )
    return None


def _slurm_local_size() -> int | None:
    """Tasks on this node: its entry of a list such as "2(x3),1", or else the number requested per node."""
    node = _number("SLURM_NODEID") or 0
    counts: list[int] = []
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", "")).split(
        ","
    ):
        if match := re.fullmatch(r"([0-9]+)(?:\(x([0-9]+)\))?", part.strip()):
            counts += [int(match[1])] * min(int(match[2] or 1), 10**6)
    return counts[node] if node < len(counts) else _number("SLURM_NTASKS_PER_NODE")


def _mpi_local_size() -> int:
    from mpi4py import MPI

    return MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).Get_size()


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    return int(text) if text is not None else None


def device_of(name: str, option: str = "--device") -> torch.device:
    """The device of this name, as given to a command's option.

    Raises:
        ValueError: there is no such device on this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{option} {name!r} cannot be used: {reason}") from error
    return device


def make_fabric(accelerator: str, world: World, strategy: str) -> Fabric:
    """Makes the Fabric of this process's device.

    Raises:
        ValueError: the accelerator is not available, or has fewer devices than processes.
    """
    _import_fabric()
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        if world.size == 1:
            return Fabric(accelerator=accelerator, devices=1, strategy=strategy)

        class Environment(TorchElasticEnvironment):
            """The given world, also where machines have different numbers of processes."""

            def world_size(self) -> int:
                return world.size

            def global_rank(self) -> int:
                return world.rank

            def local_rank(self) -> int:
                return world.local_rank

            def validate_settings(self, num_devices: int, num_nodes: int) -> None:
                pass

        return Fabric(
            accelerator=accelerator,
            devices=world.local_size,
            strategy=DDPStrategy(),
            plugins=[Environment()],
        )
    except (RuntimeError, MisconfigurationException) as error:
        raise ValueError(f"accelerator {accelerator!r} cannot be used: {error}") from error


def _import_fabric() -> None:
    """Imports lightning_fabric without torchmetrics, which it would import to look at its version.

    With scipy and matplotlib that takes a third of the time in which a run imports all that it needs.
    """
    if "torchmetrics" in sys.modules or "lightning_fabric" in sys.modules:
        return
    stand_in = ModuleType("torchmetrics")
    try:
        stand_in.__version__ = metadata.version("torchmetrics")  # type: ignore[attr-defined]
    except metadata.PackageNotFoundError:
        return
    sys.modules["torchmetrics"] = stand_in
    try:
        import lightning_fabric  # noqa: F401
    finally:
        del sys.modules["torchmetrics"]
