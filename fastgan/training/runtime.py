"""Devices, precision and processes, through Lightning Fabric.

Modules are not wrapped in DistributedDataParallel. A GAN step runs the discriminator several times per
backward, differentiates its gradients, and updates other networks through it; DDP's reducer expects one
forward per backward, hangs or goes silently wrong otherwise (`static_graph=True` with a gradient penalty),
and fails when a penalty leaves the last bias without gradient. Gradients are averaged explicitly, between
backward and step, in one flat all-reduce, which is exact whatever the backward was.
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

# How long a process waits in a collective, as for rank 0's evaluation. Not torch's minutes: those that are
# gone are noticed by their connection, see `peers`.
COLLECTIVE_TIMEOUT = timedelta(hours=12)
START_TIMEOUT = timedelta(minutes=10)
# Seconds within which the line brings the reason after a collective failed.
REASON_SECONDS = 2.0


# How often this process has been one of several.
_LAUNCHES = itertools.count()


class ProcessFailed(RuntimeError):
    """One of several processes failed, and with it the run: "rank 1: loss_d became nan"."""


class Runtime:
    """The device of this process, and what it shares with the others.

    Args:
        config: devices, accelerator and precision are read from it.
        strategy: "auto" or "ddp"; sharded strategies are refused.

    Raises:
        ValueError: a strategy under which double backward fails; devices that are not there, or not as many
            as the processes that were started.
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
        """Starts the other processes, unless torchrun or a cluster has done so.

        Raises:
            OSError: the processes cannot reach each other.
        """
        if self._others_to_start:
            self._others = start_others(1 + self._others_to_start)
        if self.world_size > 1:
            with default_signals():  # Python's handlers would not run while torch waits for the others
                self._connect(self._world)
        self._fabric.launch()

    def _connect(self, world: World) -> None:
        """The line to the other processes, and then torch's own connections."""
        address = f"env://?rank={world.rank}&world_size={world.size}"
        with watched_start(self._others):  # until the line does it
            store, _, _ = next(torch.distributed.rendezvous(address, timeout=START_TIMEOUT))
            # torchrun keeps one store for all its restarts, where the addresses of the dead still stand.
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
        """Launches, and ends all processes together: at the block's end, or when it fails in one of them.

        Raises:
            ProcessFailed: in all processes, if one of several failed. An error that is a bug keeps its type,
                and its traceback, in the process where it happened.
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
            # A collective fails because another process has; its reason is on the way.
            failure = self._peers.wait_for_failure(REASON_SECONDS if isinstance(error, RuntimeError) else 0)
            expected = isinstance(error, (ValueError, OSError, ArithmeticError))
            if failure is None:
                named = str(error) if expected else f"{type(error).__name__}: {error}"
                failure = self._peers.tell(named)
            bug = failure.rank == self.rank and not expected
            if not bug:
                # Their frames keep the process group, and its threads must have ended before Python does.
                traceback.clear_frames(error.__traceback__)
            if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
                torch.distributed.destroy_process_group()  # ends the others' waiting for this one
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
        """bf16 autocast with precision="bf16-mixed", nothing otherwise."""
        if self.precision == "bf16-mixed":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def broadcast(self, *modules: nn.Module) -> None:
        """Gives every process the first one's weights and buffers."""
        if self.world_size > 1:
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    torch.distributed.broadcast(tensor.detach(), src=0)

    def told(self, value: Any) -> Any:
        """The first process's value, in all of them; anything that can be pickled."""
        return self._fabric.broadcast(value) if self.world_size > 1 else value

    def gathered(self, value: Any) -> list[Any]:
        """Every process's value, in their order, in all of them; anything that can be pickled."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Averages their gradients over the processes, in one all-reduce. All must call it alike.

        Each parameter has its place, whoever has a gradient for it; a missing one counts as zeros, as in DDP.
        A parameter that no process has a gradient for keeps none. The host waits for the device only where a
        gradient is missing that `requires_grad` asks for.

        Args:
            parameters: the same, frozen alike, in every process.
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
        wanted = (anywhere > 0).tolist() if missing else has
        for parameter, average, takes in zip(parameters, averages, wanted, strict=True):
            if not takes:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(average.view_as(parameter))

    def _presence(self, has: list[bool], like: Tensor) -> Tensor:
        """One for each parameter that has a gradient here; copied to the device when first seen."""
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
        """This process's share of a batch (or anything of its length) of all processes.

        Raises:
            ValueError: its length is no multiple of the number of processes.
        """
        if joined.shape[0] % self.world_size:
            raise ValueError(f"{joined.shape[0]} samples cannot be shared by {self.world_size} processes")
        return joined.chunk(self.world_size)[self.rank]

    def barrier(self) -> None:
        self._fabric.barrier()

    def finish(self) -> None:
        """Waits for all processes and takes leave: one that exits early would abort the others."""
        if self.world_size > 1:
            self.barrier()
            if self._peers is not None:
                self._peers.hang_up()
            torch.distributed.destroy_process_group()
            end_others(self._others, patience=60.0)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.world_size == 1:
            return flag
        return bool(self.average(torch.tensor(float(flag), device=self.device)).item() > 0)
