"""Devices, precision and processes, through Lightning Fabric.

Modules are not wrapped in DistributedDataParallel. A GAN step runs the discriminator several times per
backward, differentiates its gradients, and updates other networks through it. DDP's reducer expects one
forward per backward; otherwise it hangs or goes silently wrong (`static_graph=True` with a gradient penalty),
and it fails when a penalty leaves the last bias without a gradient. Instead, gradients are averaged
explicitly between backward and step, in one flat all-reduce, which is exact for any backward.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import traceback
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.training.config import TrainingConfig
from fastgan.training.devices import cluster_world, make_fabric
from fastgan.training.peers import Peers
from fastgan.training.signals import Interrupted, default_signals
from fastgan.training.world import (
    World,
    check_devices,
    end_others,
    launched_world,
    remember,
    restarts,
    start_others,
    watched_start,
)

# How long a process waits in a collective, as for rank 0's evaluation. Much longer than torch's default,
# because dead processes are noticed by their connections, see `peers`.
COLLECTIVE_TIMEOUT = timedelta(hours=12)
START_TIMEOUT = timedelta(minutes=10)
# Seconds to wait for another process's report after a collective has failed.
REASON_SECONDS = 2.0


# Counts the launches with several processes in this process.
_LAUNCHES = itertools.count()


class ProcessFailed(RuntimeError):
    """One of several processes failed, and the run with it: "rank 1: loss_d became nan"."""


class Runtime:
    """The device of this process, and what it shares with the others.

    Args:
        config: devices, accelerator and precision are read from it.
        strategy: "auto" or "ddp"; sharded strategies are refused.

    Raises:
        ValueError: a strategy under which double backward fails; devices that do not exist, or that are not
            as many as the started processes.
    """

    def __init__(self, config: TrainingConfig, strategy: str = "auto") -> None:
        if strategy not in ("auto", "ddp"):
            raise ValueError(
                f"strategy {strategy!r} is not supported: sharded parameters lose the second-order "
                "gradients of a discriminator silently; use 'ddp'"
            )
        self.precision = config.precision
        launched = launched_world() or cluster_world(config.devices)
        if launched is not None:
            check_devices(config.devices, launched)
        self._others_to_start = 0
        self._others: list[subprocess.Popen] = []
        self._peers: Peers | None = None
        self._present: dict[tuple, Tensor] = {}
        if launched is None:
            count = config.devices or 1
            self._others_to_start = count - 1
            launched = World(size=count, local_size=count)
        self._world = launched
        remember(launched)
        self._fabric = make_fabric(config.accelerator, launched, strategy)

    def launch(self) -> None:
        """Starts the other processes, unless torchrun or a cluster has started them.

        Raises:
            OSError: the processes cannot reach each other.
        """
        if self._others_to_start:
            self._others = start_others(1 + self._others_to_start)
        if self.world_size > 1:
            with default_signals():  # Python's handlers would not run while torch waits in C++
                self._connect(self._world)
        self._fabric.launch()

    def _connect(self, world: World) -> None:
        """Connects to the other processes, first by `Peers`, then by torch's process group."""
        address = f"env://?rank={world.rank}&world_size={world.size}"
        with watched_start(self._others):  # until `Peers` watches them
            store, _, _ = next(torch.distributed.rendezvous(address, timeout=START_TIMEOUT))
            # The prefix is needed because torchrun keeps one store, with stale addresses, for all restarts.
            store = torch.distributed.PrefixStore(f"fastgan/{restarts()}/{next(_LAUNCHES)}", store)
            host = None if world.local_size == world.size else os.environ["MASTER_ADDR"]
            self._peers = Peers.connect(world.rank, world.size, host, store)
        torch.distributed.init_process_group(
            torch.distributed.get_default_backend_for_device(self.device),
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=None if self.device.type == "cpu" else self.device,
        )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Launches all processes, and ends them together: at the block's end, or when one of them fails.

        Raises:
            ProcessFailed: in all processes, if one of several failed. An unexpected error, a bug, keeps its
                type and traceback in the process where it happened.
        """
        try:
            self.launch()
            yield
        except Interrupted:
            self.finish()
            raise
        except BaseException as error:
            if self._peers is None:
                end_others(self._others, patience=0)
                raise
            # A collective fails when another process has failed, whose report is on its way.
            failure = self._peers.wait_for_failure(REASON_SECONDS if isinstance(error, RuntimeError) else 0)
            expected = isinstance(error, (ValueError, OSError, ArithmeticError))
            if failure is None:
                text = str(error) if expected else f"{type(error).__name__}: {error}"
                failure = self._peers.tell(text)
            bug = failure.rank == self.rank and not expected
            if not bug:
                # The frames refer to the process group, whose threads must end before Python does.
                traceback.clear_frames(error.__traceback__)
            if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
                torch.distributed.destroy_process_group()  # so that no collective waits for this process
            self._peers.hang_up()
            end_others(self._others, patience=5.0)
            if bug:
                raise
            raise ProcessFailed(str(failure)) from error
        self.finish()

    @property
    def device(self) -> torch.device:
        return self._fabric.device

    @property
    def rank(self) -> int:
        return self._fabric.global_rank

    @property
    def world_size(self) -> int:
        return self._fabric.world_size

    @property
    def is_main(self) -> bool:
        return self._fabric.is_global_zero

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 autocast with precision="bf16-mixed", otherwise a null context."""
        if self.precision == "bf16-mixed":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def broadcast(self, *modules: nn.Module) -> None:
        """Copies the first process's weights and buffers to all processes."""
        if self.world_size > 1:
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    torch.distributed.broadcast(tensor.detach(), src=0)

    def broadcast_object(self, value: Any) -> Any:
        """The first process's value, in all processes; any picklable object."""
        return self._fabric.broadcast(value) if self.world_size > 1 else value

    def gather_objects(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, in all processes; any picklable objects."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Averages gradients over the processes, in one all-reduce. All processes must call it.

        The layout covers every parameter, with or without a gradient; a missing gradient counts as zeros, as
        in DDP. A parameter without a gradient in any process keeps none. The host waits for the device only
        if a parameter with `requires_grad` has no gradient.

        Args:
            parameters: the same ones, with the same `requires_grad`, in every process.
        """
        if self.world_size == 1:
            return
        parameters = list(parameters)
        has = [parameter.grad is not None for parameter in parameters]
        parts = [
            torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
            for parameter in parameters
        ]
        flat = torch.cat([*parts, self._presence(has, parts[0])])
        torch.distributed.all_reduce(flat)
        flat /= self.world_size
        *averages, anywhere = flat.split([*(part.numel() for part in parts), len(parts)])
        missing = not all(h or not p.requires_grad for h, p in zip(has, parameters, strict=True))
        exists = (anywhere > 0).tolist() if missing else has
        for parameter, average, exists_anywhere in zip(parameters, averages, exists, strict=True):
            if not exists_anywhere:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(average.view_as(parameter))

    def _presence(self, has: list[bool], like: Tensor) -> Tensor:
        """1 for each parameter with a gradient here, else 0; each pattern is copied to the device once."""
        key = (tuple(has), like.device, like.dtype)
        if key not in self._present:
            self._present[key] = torch.tensor(has, dtype=like.dtype, device=like.device)
        return self._present[key]

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
            values /= self.world_size
        return values

    def part(self, joined: Tensor) -> Tensor:
        """This process's share of a batch of all processes, or of anything of the same length.

        Raises:
            ValueError: its length is not a multiple of the number of processes.
        """
        if joined.shape[0] % self.world_size:
            raise ValueError(f"{joined.shape[0]} samples cannot be shared by {self.world_size} processes")
        return joined.chunk(self.world_size)[self.rank]

    def barrier(self) -> None:
        self._fabric.barrier()

    def finish(self) -> None:
        """Waits for all processes, then disconnects: one that exits early would abort the others."""
        if self.world_size > 1:
            self.barrier()
            if self._peers is not None:
                self._peers.hang_up()
            torch.distributed.destroy_process_group()
            end_others(self._others, patience=60.0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world_size == 1:
            return flag
        return bool(self.average(torch.tensor(float(flag), device=self.device)).item() > 0)
