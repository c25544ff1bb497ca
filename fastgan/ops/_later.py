"""A look at values that waits for no device: at once on the CPU, at a later call on a GPU."""

from __future__ import annotations

import os
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fastgan._torch_internals import inside_transform
from fastgan.ops._autograd import plain_eager
from fastgan.ops._streams import is_captured

Note = TypeVar("Note")


def can_be_read(*tensors: Tensor) -> bool:
    """Whether there are values, and a copy of them disturbs nothing.

    There are none of meta and fake tensors and in transforms; tracers, torch.compile and the capture of a
    CUDA graph would record the copy.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if inside_transform() or not plain_eager(*tensors):
        return False
    return all(
        tensor.numel() > 0 and (is_on_gpu(tensor) or tensor.device.type == "cpu") for tensor in tensors
    ) and not any(is_on_gpu(tensor) and is_captured(tensor.device) for tensor in tensors)


def is_on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


class OnItsWay(Generic[Note]):
    """Some numbers of one look, with a note, while they are copied from a GPU. One look at a time.

    A process that was forked meanwhile, as workers of a DataLoader are, has a pending look for which it may
    ask no GPU. It leaves it where it is: even to free that memory would be an error.
    """

    _pending: tuple[Tensor, torch.cuda.Event, Note] | None = None
    _process = 0
    """That of the pending look."""

    def __getstate__(self) -> dict[str, Any]:
        """An event belongs to its process: a copy does without the look that is on its way."""
        return {}

    @property
    def is_empty(self) -> bool:
        return self._pending is None or self._process != os.getpid()

    def send(self, values: Tensor, note: Note) -> None:
        """Copies when the stream of the values' device gets there."""
        pending = (*copied_later(values), note)
        self._process = os.getpid()  # first, since another thread may ask
        self._pending = pending

    def take(self) -> tuple[list, Note] | None:
        """What has arrived, once."""
        pending = self._pending  # read once: another thread may take it
        if pending is None or self._process != os.getpid() or not pending[1].query():
            return None
        self._pending = None
        values, _, note = pending
        return values.tolist(), note


def copied_later(there: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of something on a GPU, for the host, and the event after which it is there."""
    # The device is named because of torch.set_default_device.
    here = torch.empty(there.shape, dtype=there.dtype, device="cpu", pin_memory=True)
    here.copy_(there, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(there.device))
    return here, event
