"""Reading tensors without synchronization: at once on the CPU, at a later call on a GPU."""

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
    """Whether the tensors have values and copying these has no side effects.

    Meta and fake tensors and those of transforms have none; tracers, torch.compile and the capture of a CUDA
    graph would record the copy.
    """
    if torch.compiler.is_compiling() or inside_transform() or not plain_eager(*tensors):
        return False
    return all(
        tensor.numel() > 0 and (is_on_gpu(tensor) or tensor.device.type == "cpu") for tensor in tensors
    ) and not any(is_on_gpu(tensor) and is_captured(tensor.device) for tensor in tensors)


def is_on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


class PendingRead(Generic[Note]):
    """An asynchronous copy of a few values from a GPU, with a note; one at a time.

    A process forked in the meantime, such as a DataLoader's worker, inherits a pending copy but may not use
    the GPU. It leaves the copy alone: even freeing that memory would be an error.
    """

    _pending: tuple[Tensor, torch.cuda.Event, Note] | None = None
    _process = 0
    """The id of the process that started the pending copy."""

    def __getstate__(self) -> dict[str, Any]:
        """Omits the pending copy, whose event belongs to this process."""
        return {}

    @property
    def is_empty(self) -> bool:
        return self._pending is None or self._process != os.getpid()

    def send(self, values: Tensor, note: Note) -> None:
        """Enqueues a copy on the current stream of the values' device."""
        pending = (*copy_to_host_async(values), note)
        self._process = os.getpid()  # before `_pending`, since another thread may read both
        self._pending = pending

    def take(self) -> tuple[list, Note] | None:
        """The values and the note, once, if the copy has finished; else None."""
        pending = self._pending  # read once: another thread may take it
        if pending is None or self._process != os.getpid() or not pending[1].query():
            return None
        self._pending = None
        values, _, note = pending
        return values.tolist(), note


def copy_to_host_async(values: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of a GPU's tensor in pinned memory, and the event after which it is complete."""
    # An explicit device, since torch.set_default_device may name another.
    copy = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=True)
    copy.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(values.device))
    return copy, event
