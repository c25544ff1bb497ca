"""Sums of gradients that travel in half the bytes: as bfloat16, summed in float32, with error feedback.

Each process rounds its bucket to bfloat16 and sends a piece to every other, which sums the pieces in float32,
rounds the sum, and sends it to all: all have the same bits. What each of the two roundings takes is kept, and
added the next time (error feedback), so that it delays parts of gradients rather than losing them.

The second sending of a bucket starts while later buckets are sent for the first time, after a fixed number of
them, so that all processes send in the same order.

Sources: Seide et al., "1-bit stochastic gradient descent", 2014; Karimireddy et al., "Error feedback fixes
SignSGD", 2019; Tang et al., "DoubleSqueeze", 2019, of both roundings.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

# Buckets that are sent for the first time before one is sent on. By then its pieces have usually arrived, so
# that backward does not wait for them; more would leave more to do after it.
AHEAD = 2


class HalfSum:
    """Sums one bucket over the processes; called as a :data:`~fastgan.training.processes.exchange.Reduce`.

    Args:
        exact: elements at the bucket's end that are counts: their rounding is not made up for later, as a
            count would then be there where nothing is.
        world_size, rank, group: of the processes.
        waiting: the sums of this exchange that have been sent only once; shared by all its buckets.
    """

    def __init__(self, exact: int, world_size: int, rank: int, group: Any, waiting: deque[HalfSum]) -> None:
        self.exact, self.world_size, self.rank, self.group = exact, world_size, rank, group
        self.waiting = waiting
        self._values: Tensor | None = None
        self._error: Tensor | None = None  # of the first rounding: world_size x a piece
        self._error_of_sum: Tensor | None = None  # of the second one, of this process's piece
        self._halves: tuple[Tensor, Tensor, Tensor] | None = None
        self._work: Any = None

    def __call__(self, values: Tensor) -> HalfSum:
        """Starts the sum, in place."""
        size = -(-values.numel() // self.world_size)
        if self._error is None or self._error_of_sum is None or self._halves is None:
            self._error = values.new_zeros(self.world_size, size)
            self._error_of_sum = values.new_zeros(size)
            half = values.new_empty(self.world_size, size, dtype=torch.bfloat16)
            self._halves = half, torch.empty_like(half), torch.empty_like(half)
        sent, received, _ = self._halves
        self._values = values
        self._error.view(-1)[: values.numel()] += values
        sent.copy_(self._error)
        self._error -= sent
        self._forget(self._error.view(-1)[: values.numel()], values.numel() - self.exact)
        self._work = torch.distributed.all_to_all_single(
            _bytes(received), _bytes(sent), group=self.group, async_op=True
        )
        self.waiting.append(self)
        while len(self.waiting) > AHEAD:
            self.waiting.popleft()._send_on()
        return self

    def _send_on(self) -> None:
        """Sums the pieces that have arrived, and sends the sum to all."""
        assert self._halves is not None and self._error_of_sum is not None and self._values is not None
        sent, received, sums = self._halves
        self._work.wait()
        # In the order of the ranks, in the dtype of the bucket.
        self._error_of_sum += received.to(self._error_of_sum.dtype).sum(0)
        piece = sent[self.rank]
        piece.copy_(self._error_of_sum)
        self._error_of_sum -= piece
        first_count = self._values.numel() - self.exact - self.rank * piece.numel()
        self._forget(self._error_of_sum, max(0, first_count))
        self._work = torch.distributed.all_gather_into_tensor(
            _bytes(sums), _bytes(piece), group=self.group, async_op=True
        )

    @staticmethod
    def _forget(error: Tensor, start: int) -> None:
        """Drops what must not be added the next time: errors of counts, and of values that are not finite."""
        error[start:] = 0
        error.nan_to_num_(0.0, 0.0, 0.0)

    def wait(self) -> None:
        """Waits until the sum is in the bucket."""
        assert self._halves is not None and self._values is not None
        while self.waiting:
            self.waiting.popleft()._send_on()
        self._work.wait()
        self._values.copy_(self._halves[2].view(-1)[: self._values.numel()])
        self._values = self._work = None


def _bytes(half: Tensor) -> Tensor:
    """The numbers as bytes, flat: gloo does not send bfloat16 everywhere."""
    return half.reshape(-1).view(torch.uint8)
