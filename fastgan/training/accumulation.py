"""Several micro-batches per step (`--accumulate`), as exact as one large batch.

A step of a GAN updates several networks, the later ones through those that the earlier updates have changed.
All micro-batches must therefore have passed an update before any goes on to the next. A recipe's step is
written for one batch; here it runs once per micro-batch, each in a thread of its own and in turns: a
micro-batch runs up to an update, adds its gradients, and waits there until the last one has made the step.

K micro-batches in each of N processes compute what N K processes do, and, where the recipe draws for all
(`joint_draws`), what one does with the joined batch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import nn


class _Abandoned(BaseException):
    """Ends the other micro-batches of a step when one has failed."""


class Turn(NamedTuple):
    """A micro-batch's place among those that share an update."""

    is_first: bool
    is_last: bool


class MicroBatches:
    """Runs the micro-batches of a step in turns.

    Args:
        count: of micro-batches per step, at least 1; a single one runs without any of this.

    Attributes:
        number: of the micro-batch whose turn it is, from 0 on.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.number = 0
        self._turns = [threading.Semaphore(0) for _ in range(count)]
        self._threads: ThreadPoolExecutor | None = None
        self._updates: list[list[str]] = []
        self._weights: list[nn.Parameter] = []
        self._device = torch.device("cpu")
        self._error: BaseException | None = None

    def run(
        self, steps: Sequence[Callable[[], object]], networks: Iterable[nn.Module], device: torch.device
    ) -> None:
        """Runs a step: each function for one micro-batch.

        torch's global random states, and which parameters of the networks are frozen, are each micro-batch's
        own while it has its turn.

        Raises:
            RuntimeError: the micro-batches do not make the same updates.
            Exception: what a micro-batch has raised; the others do not go on.
        """
        if self.count == 1:
            steps[0]()
            return
        self._weights = [parameter for network in networks for parameter in network.parameters()]
        self._device, self._error = device, None
        self._updates = [[] for _ in steps]
        frozen = self._frozen()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.count - 1, thread_name_prefix="fastgan-batch")
        others: list[Future] = [
            self._threads.submit(self._one, number, step, frozen)
            for number, step in enumerate(steps)
            if number > 0
        ]
        self._turns[0].release()
        self._one(0, steps[0], frozen)
        for other in others:
            other.result()
        self.number = 0
        if self._error is not None:
            error, self._error = self._error, None
            self._turns = [threading.Semaphore(0) for _ in range(self.count)]
            raise error

    @contextlib.contextmanager
    def update(self, name: str) -> Iterator[Turn]:
        """Within the block a micro-batch adds its gradients to an update, and the last one makes the step.

        Args:
            name: of the optimizer.
        """
        if self.count == 1:
            yield Turn(True, True)
            return
        number = self.number
        own, first = self._updates[number], self._updates[0]
        own.append(name)
        if own != first[: len(own)]:
            raise RuntimeError(f"micro-batch {number} updates {own}, micro-batch 0 {first}")
        yield Turn(number == 0, number == self.count - 1)
        random, frozen = self._random(), self._frozen()
        self._turns[(number + 1) % self.count].release()
        self._wait(number)
        self._restore(random, frozen)

    @property
    def is_last(self) -> bool:
        """Whether the last micro-batch has its turn."""
        return self.number == self.count - 1

    def close(self) -> None:
        """Ends the threads."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def _one(self, number: int, step: Callable[[], object], frozen: list[bool]) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            self._wait(number)
            self._restore(None, frozen)
            step()
            if self._updates[number] != self._updates[0]:
                raise RuntimeError(
                    f"micro-batch {number} updates {self._updates[number]}, micro-batch 0 {self._updates[0]}"
                )
            if number + 1 < self.count:
                self._turns[number + 1].release()
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
            for turn in self._turns:
                turn.release()

    def _wait(self, number: int) -> None:
        self._turns[number].acquire()
        if self._error is not None:
            raise _Abandoned
        self.number = number

    def _frozen(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self._weights]

    def _random(self) -> list[torch.Tensor]:
        states = [torch.get_rng_state()]
        return states + ([torch.cuda.get_rng_state()] if self._device.type == "cuda" else [])

    def _restore(self, random: list[torch.Tensor] | None, frozen: list[bool]) -> None:
        if random is not None:
            torch.set_rng_state(random[0])
            if len(random) > 1:
                torch.cuda.set_rng_state(random[1])
        for parameter, trained in zip(self._weights, frozen, strict=True):
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)
