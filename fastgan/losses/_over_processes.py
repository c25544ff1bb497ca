"""What a module averages over the processes of a training, by a function that the trainer sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastgan.ops._checks import check_callable, described


class AveragedOverProcesses(nn.Module):
    """Base of modules that average a value over processes; `average` is the identity until it is set."""

    average: Callable[[Tensor], Tensor] = staticmethod(lambda value: value)
    """Returns a tensor's mean over processes; set by the trainer. A module is not registered."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses an `average` that is not callable with a TypeError."""
        if name != "average":
            super().__setattr__(name, value)
            return
        check_callable("average", value)
        # nn.Module would register a module under a name by which only the class's own function is found.
        object.__setattr__(self, name, value)

    def _averaged(self, value: Tensor) -> Tensor:
        """The tensor's mean over processes.

        Raises:
            TypeError, ValueError: `average` returns no tensor, as torch.distributed.all_reduce does, which
                writes in place, or one of another shape.
        """
        found = self.average(value)
        if not isinstance(found, Tensor):
            raise TypeError(f"average must return the averaged tensor, got {described(found)}")
        if found.shape != value.shape:
            raise ValueError(
                f"average must return a tensor of shape {tuple(value.shape)}, got {described(found)}"
            )
        return found
