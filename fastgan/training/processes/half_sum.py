"""Sums of gradients that travel in half the bytes: as bfloat16, summed in float32, with error feedback.

Each process rounds its bucket to bfloat16 and sends a piece to every other, which sums the pieces in float32,
rounds the sum, and sends it to all: all have the same bits. What each of the two roundings takes is kept, and
added the next time (error feedback), so that it delays parts of gradients rather than losing them. What was
kept is lost only where next time no process has a gradient.

The pieces are sent while backward runs, the sums only after it: a process must have the others' pieces before
it can send a sum, and may not wait for them within backward (see `Reduce` in `exchange.py`). So the sums, a
quarter of what float32 sends, are not hidden behind backward.

Sources: Seide et al., "1-bit stochastic gradient descent", 2014; Karimireddy et al., "Error feedback fixes
SignSGD", 2019; Tang et al., "DoubleSqueeze", 2019, of both roundings.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor


class HalfSum:
    """Sums one bucket over the processes; called as a :data:`~fastgan.training.processes.exchange.Reduce`.

    Args:
        counts: number of elements at the bucket's end that are counts. What rounding takes from them is
            dropped: added the next time, it would turn a count of 0 into another.
        world_size, rank, group: of the processes.
        unsent: the buckets of this exchange whose sum has not been sent yet, in the order in which they were
            started; shared by all of them.
    """

    def __init__(self, counts: int, world_size: int, rank: int, group: Any, unsent: deque[HalfSum]) -> None:
        self.counts, self.world_size, self.rank, self.group = counts, world_size, rank, group
        self.unsent = unsent
        self._values: Tensor | None = None
        self._error: Tensor | None = None  # of the first rounding: world_size x a piece
        self._error_of_sum: Tensor | None = None  # of the second one, of this process's piece
        self._halves: tuple[Tensor, Tensor] | None = None  # sent and received
        self._work: Any = None

    def __call__(self, values: Tensor) -> HalfSum:
        """Starts the sum, in place."""
        size = -(-values.numel() // self.world_size)
        if self._error is None or self._error_of_sum is None or self._halves is None:
            self._error = values.new_zeros(self.world_size, size)
            self._error_of_sum = values.new_zeros(size)
            half = values.new_empty(self.world_size, size, dtype=torch.bfloat16)
            self._halves = half, torch.empty_like(half)
        sent, received = self._halves
        self._values = values
        self._error.view(-1)[: values.numel()] += values
        sent.copy_(self._error)
        self._error -= sent
        self._forget(self._error.view(-1)[: values.numel()], values.numel() - self.counts)
        self._work = torch.distributed.all_to_all_single(
            _bytes(received), _bytes(sent), group=self.group, async_op=True
        )
        self.unsent.append(self)
        return self

    def send_sum(self) -> None:
        """Waits for this process's pieces, and starts to send their sum to all."""
        assert self._halves is not None and self._error_of_sum is not None and self._values is not None
        sent, received = self._halves
        self._work.wait()
        # In the order of the ranks, in the dtype of the bucket.
        self._error_of_sum += received.to(self._error_of_sum.dtype).sum(0)
        piece = sent[self.rank]
        piece.copy_(self._error_of_sum)
        self._error_of_sum -= piece
        first_count = self._values.numel() - self.counts - self.rank * piece.numel()
        self._forget(self._error_of_sum, max(0, first_count))
        self._work = torch.distributed.all_gather_into_tensor(
            _bytes(received), _bytes(piece), group=self.group, async_op=True
        )

    @staticmethod
    def _forget(error: Tensor, start: int) -> None:
        """Drops what must not be added the next time: errors of counts, and of values that are not finite."""
        error[start:] = 0
        error.nan_to_num_(0.0, 0.0, 0.0)

    def wait(self) -> None:
        """Waits until the sum is in the bucket; the first call sends the sums of all buckets."""
        assert self._halves is not None and self._values is not None
        while self.unsent:
            self.unsent.popleft().send_sum()
        self._work.wait()
        self._values.copy_(self._halves[1].view(-1)[: self._values.numel()])
        self._values = self._work = None


def _bytes(half: Tensor) -> Tensor:
    """The numbers as bytes, flat: gloo does not send bfloat16 everywhere."""
    return half.reshape(-1).view(torch.uint8)
