"""Checkpoints that are written while the training goes on.

The loop waits only until its state is copied to the host: on a GPU not even for that, because the copy comes
before the next step in the stream. A thread writes the checkpoint from the copy, and model.safetensors, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastgan.training.checkpoint import State, state_of, write_checkpoint
from fastgan.training.checkpoint_files import checkpoint_files, checkpoint_path
from fastgan.training.processes.children import BEFORE_LEAVING

if TYPE_CHECKING:
    from fastgan.training.recipe import Recipe


# Seconds for a write to end after another process has failed: as many as torchrun waits before it kills.
PATIENCE = 30.0


class CheckpointWriter:
    """Writes a run's checkpoints, one at a time, each from a copy of the state in host memory.

    .. code-block:: python

        with CheckpointWriter(folder, keep=3) as writer:
            ...
            writer.save(recipe, step)  # and go on

    At the block's end the last one is on the disk, even after an error in the block. If its write fails,
    `say` tells of it, so that it hides no other error.

    Args:
        folder: the run's.
        keep: number of checkpoints to keep.
        say: prints a line.
        check_folder: raises an error if the folder is another run's by now, where nothing may be written.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        say: Callable[[str], object] = print,
        check_folder: Callable[[], object] = lambda: None,
    ) -> None:
        self.folder, self.keep, self.say, self.check_folder = folder, keep, say, check_folder
        self._copies: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastgan-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        BEFORE_LEAVING.append(self._finish)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            self.say(str(failed))
        finally:
            BEFORE_LEAVING.remove(self._finish)
            self._thread.shutdown()
            self._say_failure()  # of a write for which the wait was interrupted

    def save(self, recipe: Recipe, step: int) -> Path:
        """Copies the state after `step` steps, and starts to write it; returns the file's name to be.

        Raises:
            FloatingPointError, OSError: the write before, for which it waits, has failed.
        """
        self.wait()
        state = state_of(recipe, step)
        before, device, copying = self._copies, recipe.runtime.device, None
        self._copies = {name: _copied(tensor, before.get(name)) for name, tensor in state.tensors.items()}
        if device.type == "cuda":
            copying = torch.cuda.current_stream(device).record_event()
        state = dataclasses.replace(state, tensors=self._copies)
        self._writing = self._thread.submit(self._write, recipe, state, copying)
        return checkpoint_path(self.folder / "checkpoints", step)

    def check(self) -> None:
        """Raises the error of a write that has failed; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the checkpoint that is being written is on the disk.

        Raises:
            FloatingPointError, OSError: it was not written; see :func:`write_checkpoint`. Raised once.
        """
        if self._writing is not None:
            wait([self._writing])
            writing, self._writing = self._writing, None
            writing.result()

    def newest(self) -> Path | None:
        """The newest checkpoint, with the one that is being written; None if there is none."""
        if self._writing is not None:
            wait([self._writing])
        return next(reversed(checkpoint_files(self.folder / "checkpoints")), None)

    def _finish(self) -> None:
        """Waits, but not for ever, before the process is ended because another one has failed."""
        if self._writing is not None:
            wait([self._writing], PATIENCE)
            self._say_failure()

    def _say_failure(self) -> None:
        """Tells of a write that has failed where nobody will wait for it any more."""
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            if (error := writing.exception()) is not None:
                self.say(str(error))

    def _write(self, recipe: Recipe, state: State, copying: torch.cuda.Event | None) -> None:
        if copying is not None:
            copying.synchronize()
        self.check_folder()
        write_checkpoint(state, self.folder / "checkpoints", self.keep)
        self.check_folder()
        recipe.save_for_use(self.folder, state.tensors)


@torch.no_grad()
def _copied(tensor: Tensor, copy: Tensor | None) -> Tensor:
    """A tensor's copy in host memory: the given one if it fits, so that its pages are there already.

    That of a GPU's tensor is complete when its stream is.
    """
    if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor, non_blocking=True)
