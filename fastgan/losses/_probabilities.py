"""Detects probabilities given as logits in the first calls, and their cross entropy where they are intended.

A discriminator that ends in a sigmoid belongs to `torch.nn.BCELoss`. A loss of logits would squash its
outputs a second time: no error, but losses and gradients that are up to a third off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan._warnings import warn
from fastgan.ops._checks import may_look_at
from fastgan.ops._later import PendingRead, can_be_read, is_on_gpu
from fastgan.reference.precision import wide, without_autocast

# Every call is checked until there were this many calls and values, then calls 8, 16, 32 and so on up to the
# last.
FIRST_CALLS = 4
FEWEST_VALUES = 64
LAST_CALL = 1024
# An untrained network's logits may all lie in [0, 1] for a while, mostly near 0, so this many checks must
# agree, and if the values do not span the interval, only after PATIENCE calls.
FEWEST_LOOKS = 3
PATIENCE = 8


class ProbabilityCheck:
    """Checks the logits of a loss and warns once if they must be probabilities.

    They must be if all values lie in [0, 1] and either span it, from below 1/4 to above 3/4, or lie between
    these two on both sides of 1/2, like those of an untrained network with a sigmoid. Logits behind a ReLU
    include 0, but not 1 as well. One value outside of [0, 1] ends the checks.

    The check of a function serves all networks of a process, so it resumes after a value outside, which may
    have been another network's: at the next call, then after 2, 4, 8 calls and so on.

    Extremes of values on a GPU are copied asynchronously and evaluated at a later call. Nothing is checked
    under torch.compile, in transforms or during the capture of a CUDA graph. Callers test `undecided`, and
    before it that nothing is being compiled, so that no graph depends on it.

    Args:
        loss: the loss's name in the warning.
        advice: what to do about a sigmoid, in the warning.
        of_function: whether several networks may be behind the calls.
    """

    def __init__(
        self,
        loss: str,
        advice: str = "remove it, or give from_probabilities=True",
        *,
        of_function: bool = False,
    ) -> None:
        self.loss, self.advice, self.of_function = loss, advice, of_function
        self.undecided = True
        self._pending_read: PendingRead[int] = PendingRead()
        self._pause, self._next_pause = 0, 1
        self._begin()

    def _begin(self) -> None:
        self.calls = self.looks = self.values = 0
        self.low, self.high = 1.0, 0.0

    def look(self, *logits: Tensor) -> None:
        """Checks the tensors of one call."""
        if self._pause > 0:
            self._pause -= 1
            return
        if not can_be_read(*logits):
            return
        arrived = self._pending_read.take()
        if arrived is not None:
            self._decide(*arrived)
        self.calls += 1
        if self.calls > LAST_CALL:
            self.undecided = False
        first = self.calls <= FIRST_CALLS or self.values < FEWEST_VALUES
        is_due = first or self.calls & (self.calls - 1) == 0
        if not (self.undecided and is_due and self._pending_read.is_empty):
            return
        values = sum(tensor.numel() for tensor in logits)
        extremes = torch.stack([bound for each in logits for bound in each.detach().float().aminmax()])
        if is_on_gpu(extremes):
            self._pending_read.send(extremes, values)
        else:
            self._decide(extremes.tolist(), values)

    def _decide(self, extremes: list[float], values: int) -> None:
        low, high = min(extremes), max(extremes)
        if any(bound != bound for bound in extremes):
            return  # NaN is no evidence
        if low < 0 or high > 1:
            self.undecided = self.of_function and self._next_pause < LAST_CALL
            if self.undecided:
                self._pause, self._next_pause = self._next_pause - 1, 2 * self._next_pause
                self._begin()
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.looks, self.values = self.looks + 1, self.values + values
        if self.looks < FEWEST_LOOKS or self.values < FEWEST_VALUES:
            return
        spans_interval = self.low < 0.25 and self.high > 0.75
        is_around_half = self.calls >= PATIENCE and 0.25 <= self.low < 0.5 < self.high <= 0.75
        is_rectified = self.low == 0 and self.high < 1
        if (spans_interval or is_around_half) and not is_rectified:
            self.undecided = False
            warn(
                f"{self.loss} takes logits, but all values lie in [0, 1]: is there a sigmoid? "
                f"If so, {self.advice}"
            )


def cross_entropy_of_probabilities(
    name: str, probabilities: Tensor, target: float | Tensor, reduction: str = "mean"
) -> Tensor:
    """Binary cross entropy with the target, like `torch.nn.BCELoss`: logarithms are at least -100.

    In float32 (float64 for float64), also under autocast, where torch's own raises.

    Raises:
        ValueError: probabilities outside [0, 1], if they can be read without synchronization. On a GPU torch
            fails with a device-side assertion.
    """
    probabilities = wide(probabilities)
    if may_look_at(probabilities) and probabilities.numel():
        low, high = (float(bound) for bound in probabilities.detach().aminmax())
        if not (low >= 0 and high <= 1):
            digits = 17 if probabilities.dtype == torch.float64 else 9  # so that 1.0000001 is not shown as 1
            raise ValueError(
                f"{name} must be probabilities, as from_probabilities=True says, got values in "
                f"[{low:.{digits}g}, {high:.{digits}g}], not in [0, 1], with from_probabilities=True"
            )
    if not isinstance(target, Tensor):
        target = torch.full_like(probabilities, target)
    with without_autocast(probabilities):
        return F.binary_cross_entropy(probabilities, target.to(probabilities.dtype), reduction=reduction)
