"""The device of a process, by Lightning Fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgan.training.world import World

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def cluster_starts_processes() -> bool:
    """Whether SLURM, LSF or MPI runs this program once per process, which is then left to Fabric."""
    from lightning_fabric.plugins.environments import LSFEnvironment, MPIEnvironment, SLURMEnvironment

    return any(cluster.detect() for cluster in (SLURMEnvironment, LSFEnvironment, MPIEnvironment))


def make_fabric(accelerator: str, devices: int, world: World | None, strategy: str) -> Fabric:
    """Fabric for this process's device, in a world that is known, or in the one of a cluster that it knows.

    Raises:
        ValueError: no such accelerator here, or fewer devices than processes.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        if world is None:
            several = "ddp" if devices > 1 else strategy
            return Fabric(accelerator=accelerator, devices=devices, strategy=several)
        if world.size == 1:
            return Fabric(accelerator=accelerator, devices=1, strategy=strategy)
        known = world

        class Environment(TorchElasticEnvironment):
            """The world as it is, also where machines have different numbers of processes."""

            def world_size(self) -> int:
                return known.size

            def global_rank(self) -> int:
                return known.rank

            def local_rank(self) -> int:
                return known.local_rank

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
