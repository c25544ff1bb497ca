"""Probabilities where logits belong: noticed in the first calls, and their cross entropy for who means them.

A discriminator that ends in a sigmoid belongs to `torch.nn.BCELoss`. Given to a loss of logits, its outputs
are squashed a second time: no error, but losses and gradients that are up to a third off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan._warnings import warn
from fastgan.ops._checks import may_look_at
from fastgan.reference.precision import wide, without_autocast

# Every one of the first calls is looked at, then calls 8, 16, 32 and so on up to the last.
FIRST_CALLS = 4
LAST_CALL = 1024
# An untrained network's logits may all lie in [0, 1] for a while, mostly near 0. With these bounds none of
# 4000 networks, of default, He's and DCGAN's initialization, was taken for one that ends in a sigmoid.
FEWEST_LOOKS = 3
FEWEST_VALUES = 64
PATIENCE = 8


class ProbabilityCheck:
    """Looks at what a loss takes for logits and warns once if they must be probabilities.

    They are where all values lie in [0, 1] and either fill it, or lie around 1/2, as those of an untrained
    network with a sigmoid do. One value outside ends the search. Logits that end in a ReLU have 0 among
    them, but not 1 as well.

    The extremes of values on a GPU are copied when the stream gets there and judged at a later call. Nothing
    is looked at under torch.compile, in transforms or while a CUDA graph is captured. Callers test
    `undecided`, and before it that nothing is compiled, so that no graph depends on it.

    Args:
        loss: what the warning calls the loss.
        advice: what to do if there is one.
    """

    def __init__(self, loss: str, advice: str = "remove it, or give from_probabilities=True") -> None:
        self.loss, self.advice = loss, advice
        self.undecided = True
        self.calls = self.looks = self.values = 0
        self.low, self.high = 1.0, 0.0
        self._pending: tuple[Tensor, torch.cuda.Event, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": None}  # an event belongs to its process

    def look(self, *logits: Tensor) -> None:
        """Takes note of the tensors of one call."""
        if not all(map(_may_be_read, logits)):
            return
        if self._pending is not None and self._pending[1].query():
            extremes, _, values = self._pending
            self._pending = None
            self._judge(extremes.tolist(), values)
        self.calls += 1
        if self.calls > LAST_CALL:
            self.undecided = False
        if not self.undecided or (self.calls > FIRST_CALLS and self.calls & (self.calls - 1)):
            return
        values = sum(tensor.numel() for tensor in logits)
        extremes = torch.stack([bound for each in logits for bound in each.detach().float().aminmax()])
        if extremes.device.type == "cpu":
            self._judge(extremes.tolist(), values)
        elif self._pending is None:
            here = torch.empty(extremes.shape, pin_memory=True).copy_(extremes, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(extremes.device))
            self._pending = (here, event, values)

    def _judge(self, extremes: list[float], values: int) -> None:
        low, high = min(extremes), max(extremes)
        if any(bound != bound for bound in extremes):
            return  # NaN tells nothing
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.looks, self.values = self.looks + 1, self.values + values
        if self.low < 0 or self.high > 1:
            self.undecided = False
        elif self.looks >= FEWEST_LOOKS and self.values >= FEWEST_VALUES:
            fill = self.low < 0.25 and self.high > 0.75
            surround = self.calls >= PATIENCE and self.low < 0.6 and self.high > 0.4
            rectified = self.low == 0 and self.high < 1
            if (fill or surround) and not rectified:
                self.undecided = False
                warn(
                    f"{self.loss} takes logits, but all values lie in [0, 1]: is there a sigmoid? "
                    f"If so, {self.advice}"
                )


def cross_entropy_of_probabilities(name: str, probabilities: Tensor, target: float | Tensor) -> Tensor:
    """Mean binary cross entropy with the target, 0-d, as `torch.nn.BCELoss`: logarithms are at least -100.

    In float32 (float64 for float64), also under autocast, which refuses torch's.

    Raises:
        ValueError: probabilities outside [0, 1], where looking does not wait for a device. On a GPU torch
            stops with an assertion.
    """
    probabilities = wide(probabilities)
    if may_look_at(probabilities) and probabilities.numel():
        low, high = (float(bound) for bound in probabilities.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"{name} must be probabilities, as from_probabilities=True says, got values in "
                f"[{low:.4g}, {high:.4g}], not in [0, 1], with from_probabilities=True"
            )
    if not isinstance(target, Tensor):
        target = torch.full_like(probabilities, target)
    with without_autocast(probabilities):
        return F.binary_cross_entropy(probabilities, target.to(probabilities.dtype))


def _may_be_read(tensor: Tensor) -> bool:
    """Whether the values are there, and a copy of their extremes disturbs nothing."""
    if tensor.numel() == 0 or torch._C._len_torch_dispatch_stack() > 0:  # a tracer, say
        return False
    if tensor.device.type != "cuda":
        return may_look_at(tensor)
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.cuda.is_current_stream_capturing()
    )
