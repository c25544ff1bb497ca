"""Devices, precision and processes, through Lightning Fabric.

Modules are not wrapped in DistributedDataParallel. A GAN step runs the discriminator several times per
backward, differentiates its gradients, and updates other networks through it; DDP's reducer expects one
forward per backward, hangs or goes silently wrong otherwise (`static_graph=True` with a gradient penalty),
and fails when a penalty leaves the last bias without gradient. Gradients are averaged explicitly, between
backward and step, in one flat all-reduce, which is exact whatever the backward was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fastgan.training.config import TrainingConfig


class Runtime:
    """The device of this process, and what it shares with the others.

    Args:
        config: devices, accelerator and precision are read from it.
        strategy: "auto" or "ddp"; sharded strategies are refused.

    Raises:
        ValueError: a strategy under which double backward fails.
    """

    def __init__(self, config: TrainingConfig, strategy: str = "auto") -> None:
        from lightning_fabric import Fabric

        if strategy not in ("auto", "ddp"):
            raise ValueError(
                f"strategy {strategy!r} is not supported: sharded parameters lose the second-order "
                "gradients of a discriminator silently; use 'ddp'"
            )
        self.precision = config.precision
        self._fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy="ddp" if config.devices > 1 else strategy,
        )

    def launch(self) -> None:
        """Starts the other processes, if any (torchrun has started them already)."""
        self._fabric.launch()

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

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Averages their gradients over the processes, in one all-reduce. All must call it alike."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

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
            torch.distributed.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.world_size == 1:
            return flag
        return bool(self.average(torch.tensor(float(flag), device=self.device)).item() > 0)
