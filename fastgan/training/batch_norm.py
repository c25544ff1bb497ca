"""Batch normalization over the joined batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of all processes' gradients, to any order.

    That of torch.distributed.nn is deprecated, and its successor is private.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.apply(grad)


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d whose training statistics are those of all processes' batches joined.

    N processes then compute what one process does with the joined batch, also on the CPU, where
    torch.nn.SyncBatchNorm does not run. All processes must have batches of the same size. Gradients are exact
    to every order. In a single process, and in eval mode, this is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes N C H W."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world_size = torch.distributed.get_world_size() if distributed else 1
        if world_size == 1 or not self.training:
            return super().forward(x)
        values = x.float() if x.element_size() < 4 else x
        # Two reductions, because E[x²] - E[x]² would suffer from cancellation.
        mean = _Sum.apply(values.mean((0, 2, 3), keepdim=True)) / world_size
        variance = _Sum.apply((values - mean).square().mean((0, 2, 3), keepdim=True)) / world_size
        if self.track_running_stats:
            self._update_running_statistics(
                mean.detach().flatten(), variance.detach().flatten(), x.numel() * world_size
            )
        normalized = (values - mean) * torch.rsqrt(variance + self.eps)
        if self.affine:
            normalized = normalized * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normalized.to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor, numel: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        count = numel // self.num_features
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), weight)
