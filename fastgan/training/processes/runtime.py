"""What a recipe shares with the other processes of its run: device, precision, averages, a common end.

Modules are not wrapped in DistributedDataParallel. A GAN step runs the discriminator several times per
backward, differentiates its gradients, and updates other networks through it. DDP's reducer expects one
forward per backward; otherwise it hangs or goes silently wrong (`static_graph=True` with a gradient penalty),
and it fails when a penalty leaves the last bias without a gradient. Instead, the recipe says which
backward is the last of an update, and gradients are averaged during that one (`exchange.py`), which is exact
for any number of passes before it.
"""

from __future__ import annotations

import contextlib
import subprocess
import traceback
import weakref
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.training.accumulation import MicroBatches
from fastgan.training.config import TrainingConfig
from fastgan.training.processes.children import end_others, start_others, watched_start
from fastgan.training.processes.clusters import cluster_world
from fastgan.training.processes.device import device_of_process
from fastgan.training.processes.exchange import Exchange, OrderOfUse
from fastgan.training.processes.objects import pickled, unpickled
from fastgan.training.processes.peers import FailedAtStart, Peers
from fastgan.training.processes.rendezvous import own_address, store_of_launch
from fastgan.training.processes.world import (
    World,
    check_alone,
    check_devices,
    has_agents_store,
    launched_world,
    remember,
)
from fastgan.training.signals import Interrupted, default_signals

START_TIMEOUT = timedelta(minutes=10)
# Seconds to wait for another process's report after a collective has failed.
REASON_SECONDS = 2.0


class ProcessFailed(RuntimeError):
    """One of several processes failed, and the run with it: "rank 1: loss_d became nan".

    Args:
        prints: whether this process is the one that shows it to the user.
    """

    def __init__(self, message: str, prints: bool = True) -> None:
        super().__init__(message)
        self.prints = prints


def is_timeout(error: BaseException) -> bool:
    """Whether a collective, or the start of a process group, waited too long for another process.

    gloo raises a plain RuntimeError, and the stores' own error stands for other failures, too, so the words
    decide.
    """
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("timed out" in text or "wait timeout" in text)


class Runtime:
    """The device of this process, and what it shares with the others.

    Args:
        config: devices, accelerator, precision, timeout and exchange are read from it.
        strategy: "auto" or "ddp"; sharded strategies are refused.

    Raises:
        ValueError: another strategy; devices that do not exist, or that are not as many as the started
            processes.
    """

    def __init__(self, config: TrainingConfig, strategy: str = "auto") -> None:
        if strategy not in ("auto", "ddp"):
            raise ValueError(
                f"strategy {strategy!r} is not supported: each process holds all parameters, use 'ddp'"
            )
        self.precision = config.precision
        self.micro_batches = MicroBatches(config.accumulate)
        self.timeout = timedelta(minutes=config.timeout)
        self.half_exchange = config.exchange == "bf16"
        launched = launched_world() or cluster_world(config.devices)
        if launched is not None:
            check_devices(config.devices, launched)
        self._others_to_start = 0
        self._others: list[subprocess.Popen] = []
        self._peers: Peers | None = None
        self.exchanges: weakref.WeakKeyDictionary[torch.optim.Optimizer, Exchange] = (
            weakref.WeakKeyDictionary()
        )
        self._order: OrderOfUse | None = None
        self._gradient_group: Any = None  # torch's type has a number in it, too
        if launched is None:
            check_alone()
            count = config.devices or 1
            self._others_to_start = count - 1
            launched = World(size=count, local_size=count)
        self._world = launched
        remember(launched)
        self._device = device_of_process(config.accelerator, launched.local_rank)
        if self._others_to_start and self.device.type == "cuda":
            device_of_process("cuda", launched.size - 1)  # fails here, rather than in the last process
            torch.cuda.set_device(self.device)

    @property
    def rank(self) -> int:
        return self._world.rank

    @property
    def world_size(self) -> int:
        return self._world.size

    @property
    def is_main(self) -> bool:
        """Whether this process reads and writes the run's folder, and prints."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """That of this process."""
        return self._device

    # --- from start to end --------------------------------------------------------------------------------

    def launch(self) -> None:
        """Starts the other processes, unless torchrun or a cluster has started them, and connects to all.

        Raises:
            OSError: the processes cannot reach each other, or one failed before it could.
        """
        if self._others_to_start:
            self._others = start_others(1 + self._others_to_start)
        if self.world_size > 1:
            with default_signals():  # Python's handlers would not run while torch waits in C++
                self._connect(self._world)

    def _connect(self, world: World) -> None:
        """Connects to the other processes, first by `Peers`, then by torch's process group."""
        with watched_start(self._others):  # until `Peers` watches them
            store = store_of_launch(world, START_TIMEOUT)
            host = None if world.local_size == world.size else own_address()
            self._peers = Peers.connect(world.rank, world.size, host, store, again=has_agents_store())
        torch.distributed.init_process_group(
            # Numbers of the host are exchanged by gloo, without waiting for the device.
            "gloo" if self.device.type == "cpu" else "cpu:gloo,cuda:nccl",
            store=torch.distributed.PrefixStore(self._peers.token, store),
            rank=world.rank,
            world_size=world.size,
            timeout=self.timeout,
            device_id=None if self.device.type == "cpu" else self.device,
        )
        self._gradient_group = torch.distributed.new_group(timeout=self.timeout)

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
            self.barrier()
        except Interrupted:
            self.barrier()
            self.finish()
            raise
        except BaseException as error:
            if self._peers is None:
                end_others(self._others, patience=0)
                if isinstance(error, FailedAtStart):
                    raise ProcessFailed(str(error), prints=self.is_main) from error
                raise
            # A collective fails when another process has failed, whose report is on its way.
            failure = self._peers.wait_for_failure(REASON_SECONDS if isinstance(error, RuntimeError) else 0)
            expected = isinstance(error, (ValueError, OSError, ArithmeticError))
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            if is_timeout(error):
                minutes = self.timeout.total_seconds() / 60
                expected, text = True, f"another process did not answer for {minutes:g} minutes (--timeout)"
            if failure is None:
                failure = self._peers.tell(text)
            bug = failure.rank == self.rank and not expected
            if not bug:
                # The frames refer to the process group, whose threads must end before Python does.
                traceback.clear_frames(error.__traceback__)
            self._end_exchanges()
            if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
                torch.distributed.destroy_process_group()  # so that no collective waits for this process
            self._peers.hang_up()
            end_others(self._others, patience=5.0)
            if bug:
                raise
            raise ProcessFailed(str(failure), self._peers.prints) from error
        self.finish()

    def finish(self) -> None:
        """Disconnects, after a :meth:`barrier`: a process that exits early would abort the others."""
        if self.world_size > 1:
            if self._peers is not None:
                self._peers.hang_up()
            self._end_exchanges()
            torch.distributed.destroy_process_group()
            end_others(self._others, patience=60.0)

    def _end_exchanges(self) -> None:
        """Lets go of the process groups, whose threads must end before Python does."""
        for exchange in self.exchanges.values():
            exchange.end()
        self.exchanges.clear()
        if self._order is not None:
            self._order.end()
            self._order = None
        self._gradient_group = None

    # --- while training -----------------------------------------------------------------------------------

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
        """The first process's value, in all processes: any picklable object.

        Tensors in it are sent one by one, as they are, and arrive on the CPU.
        """
        if self.world_size == 1:
            return value
        tensors: list[Tensor] = []
        content: list[Any] = [None]
        if self.is_main:
            without_tensors = pickled(value, tensors)
            content = [(without_tensors, [(tensor.shape, tensor.dtype) for tensor in tensors])]
        torch.distributed.broadcast_object_list(content, src=0, device=torch.device("cpu"))
        without_tensors, kinds = content[0]
        if not self.is_main:
            tensors = [torch.empty(shape, dtype=dtype) for shape, dtype in kinds]
        for tensor in tensors:
            if tensor.numel():
                torch.distributed.broadcast(tensor.view(torch.uint8) if tensor.dim() else tensor, src=0)
        return value if self.is_main else unpickled(without_tensors, tensors)

    def gather_objects(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, in all processes; any picklable objects."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def observe(self, networks: Iterable[nn.Module]) -> None:
        """Watches in which order the networks' parameters are used, for the order of their exchange."""
        if self.world_size > 1:
            self._order = OrderOfUse(networks)

    @contextlib.contextmanager
    def last_backward(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Averages an optimizer's gradients over the processes during the last backward pass of its update.

        .. code-block:: python

            optimizer.zero_grad()
            penalty.backward()                      # any number of earlier backward passes
            with runtime.last_backward(optimizer):
                loss.backward()
            optimizer.step()

        See :meth:`~fastgan.training.processes.exchange.Exchange.last_backward`. In a single process it does
        nothing.
        """
        if self.world_size == 1:
            yield
            return
        groups = [group["params"] for group in optimizer.param_groups]
        exchange = self.exchanges.get(optimizer)
        if exchange is None or not exchange.serves(groups):
            if exchange is not None:
                exchange.end()
            order = None if self._order is None else self.broadcast_object(self._order.of(groups))
            exchange = Exchange(
                groups, self.world_size, group=self._gradient_group, order=order, half=self.half_exchange
            )
            self.exchanges[optimizer] = exchange
        with exchange.last_backward():
            yield

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
            values /= self.world_size
        return values

    @property
    def shares(self) -> int:
        """The number of parts in which a step's batch is computed: micro-batches of all processes."""
        return self.world_size * self.micro_batches.count

    @property
    def share(self) -> int:
        """Which of them is being computed here, from 0 on."""
        return self.rank * self.micro_batches.count + self.micro_batches.number

    def part(self, joined: Tensor) -> Tensor:
        """The part that is being computed here of a step's whole batch, or of anything of the same length.

        Raises:
            ValueError: its length is not a multiple of the number of parts.
        """
        if joined.shape[0] % self.shares:
            among = f"{self.world_size} processes"
            if self.micro_batches.count > 1:
                among += f" with {self.micro_batches.count} micro-batches each"
            raise ValueError(f"{joined.shape[0]} samples cannot be shared by {among}")
        return joined.chunk(self.shares)[self.share]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.world_size > 1:
            torch.distributed.all_reduce(torch.zeros(1))  # on the host, not on the device

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.world_size == 1 else bool(self.average(torch.tensor(float(flag))) > 0)
