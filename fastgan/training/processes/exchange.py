"""Gradients averaged over the processes while the backward pass still runs.

Gradients lie in buckets, in a fixed order: that in which the first forward pass has used the parameters,
backwards (:class:`OrderOfUse`), which is about the order in which backward completes them. Unlike the order
of arrival it depends neither on the loss nor on the process. A hook on each parameter copies its gradient
into its place, and whichever completes a bucket starts its exchange. Then

* every process exchanges the same buckets in the same order, because bucket k starts only after those before
  it, and what has not started by the end of backward starts then. Gradients may become ready in any order,
  which differs between processes where one lacks a gradient;
* sums are in float32 at least, over the same buckets in every update, so that the same run gives the same
  bits; what is sent may be bfloat16 (`half_sum.py`);
* a missing gradient is zeros in its place. Each bucket also carries, per parameter, how many processes have a
  gradient: a parameter that none has one for keeps none, as in a single process;
* `grad` is a view of the bucket, from which the optimizer steps.

Which backward is the last of an update must be said, by :meth:`Exchange.last_backward`: gradients of earlier
ones, as of a penalty, accumulate as usual, and are exchanged with those of the last.

The buckets have a process group of their own. On the common one their exchanges would come between those of
the backward pass itself, as of batch normalization, in an order that may differ between processes.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.training.processes.half_sum import HalfSum

# The largest bucket (that of DistributedDataParallel), and the smallest worth an exchange of its own.
LARGEST, SMALLEST = 25 * 2**20, 2**20
# Buckets to aim at in between: what remains after backward is the last one, so it should be a small part.
PARTS = 16
# Elements of a bucket at whose multiples gradients begin: 64 bytes, for the optimizer's wide loads.
ALIGNED = 16

Reduce = Callable[[Tensor], Any]
"""Starts to sum a tensor over the processes, in place; returns an object with `wait()`.

It must not wait for other processes itself: they may start this bucket only after their backward pass, and
cannot finish that while a collective in it waits for this process.
"""


class OrderOfUse:
    """Records in which order a forward pass uses the parameters of networks for the first time.

    The order in which they are registered may be another one: a decoder of a U-Net may have its layers in the
    order of the encoder's, and an embedding that is used first may be registered last, and would hold up all.

    Args:
        networks: each module of them is watched until its first call.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self.positions: dict[int, int] = {}
        self._handles: dict[nn.Module, Any] = {}
        for network in networks:
            for module in network.modules():
                if module not in self._handles and next(module.parameters(recurse=False), None) is not None:
                    self._handles[module] = module.register_forward_pre_hook(self._used)

    def _used(self, module: nn.Module, inputs: Any) -> None:
        self._handles.pop(module).remove()
        for parameter in module.parameters(recurse=False):
            self.positions.setdefault(id(parameter), len(self.positions))

    def of(self, groups: Iterable[Iterable[Tensor]]) -> list[list[int]]:
        """The position of each parameter, by group; -1 for those that have not been used."""
        return [[self.positions.get(id(parameter), -1) for parameter in group] for group in groups]

    def end(self) -> None:
        """Takes the hooks off modules that were not used."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()


class Exchange:
    """Averages the gradients of an optimizer's parameters over the processes.

    .. code-block:: python

        penalty.backward()                       # any number of earlier backward passes
        with exchange.last_backward():
            loss.backward()
        optimizer.step()

    Args:
        groups: the parameters of each group. No bucket has parameters of two groups, so that groups that are
            frozen together are left out together.
        world_size: number of processes.
        reduce: sums a bucket; None: torch's all-reduce in `group`.
        group: the process group; None: torch's default.
        bucket_bytes: the size of a bucket; None: chosen by the size of all. Larger gradients have one each.
        order: of each parameter, its place in the order of use, see :meth:`OrderOfUse.of`; the same in all
            processes. None: they are used in the given order.
        half: gradients are sent as bfloat16, by :class:`HalfSum`, in place of `reduce`.
    """

    def __init__(
        self,
        groups: Iterable[Iterable[Tensor]],
        world_size: int,
        reduce: Reduce | None = None,
        group: torch.distributed.ProcessGroup | None = None,
        bucket_bytes: int | None = None,
        order: list[list[int]] | None = None,
        half: bool = False,
    ) -> None:
        self.groups = [list(parameters) for parameters in groups]
        number = itertools.count()
        self.order = order or [[next(number) for _ in group] for group in self.groups]
        self.world_size = world_size
        self.reduce = reduce or (
            lambda bucket: torch.distributed.all_reduce(bucket, group=group, async_op=True)
        )
        self.bucket_bytes = bucket_bytes
        self.half = half
        self.group = group
        self._half_sums: list[HalfSum] = []
        self._buckets: list[Bucket] = []
        self._places: dict[int, tuple[Bucket, int]] = {}
        self._armed = False
        self._started = 0
        self._lock = threading.Lock()  # with parameters on several devices, hooks run in several threads
        # Parameters may live longer than their exchange, and must not keep it alive.
        hook = _Hook(weakref.WeakMethod(self._arrived))
        self._handles = [_add_hook(parameter, hook) for parameters in self.groups for parameter in parameters]

    def serves(self, groups: Iterable[Iterable[Tensor]]) -> bool:
        """Whether these are still the parameters."""
        parameters = [parameter for group in groups for parameter in group]
        own = [parameter for group in self.groups for parameter in group]
        return len(parameters) == len(own) and all(map(lambda a, b: a is b, parameters, own))

    @contextlib.contextmanager
    def last_backward(self) -> Iterator[None]:
        """Runs the last backward pass of an update; all processes must enter it.

        At its end, each gradient is the average over the processes of what has been accumulated since it was
        None, a missing one counting as zeros, and a parameter without a gradient in any process has none.
        `requires_grad` must be the same in all processes. The host waits for the device only if a parameter
        with `requires_grad` has no gradient here.

        Raises:
            RuntimeError: a parameter gets its gradient twice in the block, as by two backward passes; a
                frozen parameter has a gradient, and all of its bucket are frozen.
        """
        if not self._buckets:
            self._lay_out()
        for bucket in self._buckets:
            bucket.begin()
        self._started = 0
        self._armed = True
        try:
            yield
            self._armed = False
            self._start(to_the_end=True)
            for bucket in self._buckets:
                bucket.finish()
        except BaseException:
            self._buckets = []  # an exchange may still write to them
            raise
        finally:
            self._armed = False

    def __del__(self) -> None:
        for handle in self._handles:
            handle.remove()

    def end(self) -> None:
        """Removes the hooks from the parameters, and forgets the buckets and the process group."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._buckets, self._places = [], [], {}
        self._half_sums, self.half, self.group, self.reduce = [], False, None, _ended

    def _lay_out(self) -> None:
        everything = [parameter for group in self.groups for parameter in group]
        size = sum(parameter.numel() * _wide(parameter).itemsize for parameter in everything)
        limit = self.bucket_bytes or min(LARGEST, max(SMALLEST, size // PARTS))
        # Groups count by their first use: the gradients of the one that is used first are complete last.
        firsts = [min((place for place in order if place >= 0), default=-1) for order in self.order]
        for number in sorted(range(len(firsts)), key=lambda number: -firsts[number]):
            waiting: list[Tensor] = []
            filled = 0
            order = self.order[number]
            for index in sorted(range(len(order)), key=lambda index: -order[index]):
                parameter = self.groups[number][index]
                alike = not waiting or (
                    (waiting[0].device, _wide(waiting[0])) == (parameter.device, _wide(parameter))
                )
                more = parameter.numel() * _wide(parameter).itemsize
                if waiting and (filled + more > limit or not alike):
                    self._buckets.append(Bucket(waiting, self.world_size))
                    waiting, filled = [], 0
                waiting.append(parameter)
                filled += more
            if waiting:
                self._buckets.append(Bucket(waiting, self.world_size))
        if self.half:
            rank, unsent = torch.distributed.get_rank(), deque[HalfSum]()
            self._half_sums = [
                HalfSum(len(bucket.parameters), self.world_size, rank, self.group, unsent)
                for bucket in self._buckets
            ]
        self._places = {
            id(parameter): (bucket, number)
            for bucket in self._buckets
            for number, parameter in enumerate(bucket.parameters)
        }

    def _arrived(self, parameter: Tensor) -> None:
        """Called by the hook of a parameter whose gradient has been accumulated."""
        if self._armed:
            with self._lock:
                bucket, number = self._places[id(parameter)]
                bucket.arrived(number)
                self._start()

    def _start(self, to_the_end: bool = False) -> None:
        """Starts the exchange of all buckets up to the first that is incomplete, or of all."""
        while self._started < len(self._buckets):
            bucket = self._buckets[self._started]
            if bucket.waiting and not to_the_end:
                return
            bucket.start(self._half_sums[self._started] if self._half_sums else self.reduce)
            self._started += 1


class Bucket:
    """Gradients that are exchanged together.

    Args:
        parameters: on one device, with gradients that are summed in one dtype.
        world_size: number of processes.

    Attributes:
        values: the places of all gradients, then the number of processes that have each gradient.
        waiting: number of parameters with `requires_grad` whose gradient has not arrived yet.
    """

    def __init__(self, parameters: list[Tensor], world_size: int) -> None:
        self.parameters = parameters
        self.factor = 1 / world_size
        first, starts, size = parameters[0], [], 0
        for parameter in parameters:
            starts.append(size)
            size += -(-parameter.numel() // ALIGNED) * ALIGNED
        self.values = torch.zeros(size + len(parameters), dtype=_wide(first), device=first.device)
        self.counts = self.values[size:]
        self.places = [
            _place(self.values, start, parameter) for start, parameter in zip(starts, parameters, strict=True)
        ]
        self.waiting = 0
        self._trained: list[bool] = []
        self._present: list[bool] = []
        self._work: Any = None
        self._patterns: dict[tuple[bool, ...], Tensor] = {}

    def begin(self) -> None:
        """Begins an update."""
        self._trained = [parameter.requires_grad for parameter in self.parameters]
        self._present = [False] * len(self.parameters)
        self.waiting = sum(self._trained)

    @torch.no_grad()
    def arrived(self, number: int) -> None:
        """Copies a gradient to its place.

        Raises:
            RuntimeError: it has been copied already.
        """
        if self._present[number]:
            shape = tuple(self.parameters[number].shape)
            raise RuntimeError(
                f"a parameter of shape {shape} got a gradient twice within last_backward: run only the last "
                "backward pass of the update in it, and activation checkpointing with use_reentrant=False"
            )
        self._copy(number)
        self.waiting -= self._trained[number]

    def _copy(self, number: int) -> None:
        parameter, place = self.parameters[number], self.places[number]
        gradient = parameter.grad
        assert gradient is not None
        if gradient.dtype == place.dtype:
            torch.mul(gradient.detach(), self.factor, out=place)
            parameter.grad = place
        else:
            place.copy_(gradient.detach()).mul_(self.factor)
        self._present[number] = True

    @torch.no_grad()
    def start(self, reduce: Reduce) -> None:
        """Starts the exchange, with zeros for gradients that are missing.

        Raises:
            RuntimeError: a gradient of a frozen parameter among frozen ones, which would not be averaged.
        """
        if not any(self._trained):
            for parameter in self.parameters:
                if parameter.grad is not None:
                    raise RuntimeError(
                        f"a frozen parameter of shape {tuple(parameter.shape)} has a gradient: freeze it "
                        "before the update's first backward pass, or after its step"
                    )
            return
        for number, parameter in enumerate(self.parameters):
            if not self._present[number]:
                if parameter.grad is None:
                    self.places[number].zero_()
                else:  # of an earlier backward pass
                    self._copy(number)
        if all(self._present):
            self.counts.fill_(1)
        else:
            self.counts.copy_(self._pattern())
        self._work = reduce(self.values)

    def _pattern(self) -> Tensor:
        """1 for each gradient that is present, else 0; each pattern is copied to the device once."""
        key = tuple(self._present)
        if key not in self._patterns:
            self._patterns[key] = torch.tensor(key, dtype=self.values.dtype, device=self.values.device)
        return self._patterns[key]

    def finish(self) -> None:
        """Waits for the exchange, and gives each parameter its gradient."""
        if self._work is None:
            return
        self._work.wait()
        self._work = None
        exists = self._present
        if any(trained and not here for trained, here in zip(self._trained, self._present, strict=True)):
            exists = (self.counts > 0).tolist()
        for parameter, place, exists_anywhere in zip(self.parameters, self.places, exists, strict=True):
            if exists_anywhere and parameter.grad is not place:
                parameter.grad = place if place.dtype == parameter.dtype else place.to(parameter.dtype)


def _wide(parameter: Tensor) -> torch.dtype:
    """The dtype in which gradients are summed."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _place(values: Tensor, start: int, parameter: Tensor) -> Tensor:
    """A parameter's place in a bucket, laid out in memory as the parameter is."""
    if parameter.is_contiguous() or not torch.ops.aten.is_non_overlapping_and_dense(parameter):
        return values[start : start + parameter.numel()].view(parameter.shape)
    return values.as_strided(parameter.shape, parameter.stride(), start)


class _Hook:
    """Calls a method of an object that may be gone."""

    def __init__(self, method: weakref.WeakMethod[Callable[[Tensor], None]]) -> None:
        self.method = method

    def __call__(self, parameter: Tensor) -> None:
        if (method := self.method()) is not None:
            method(parameter)


def _add_hook(parameter: Tensor, hook: Callable[[Tensor], None]) -> Any:
    trained = parameter.requires_grad
    parameter.requires_grad_(True)  # frozen parameters take no hooks, and may be trained later
    handle = parameter.register_post_accumulate_grad_hook(hook)
    parameter.requires_grad_(trained)
    return handle


def _ended(bucket: Tensor) -> Any:
    raise RuntimeError("the processes have been disconnected")
