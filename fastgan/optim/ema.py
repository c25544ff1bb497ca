"""Exponential moving averages of networks' weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NOTHING = torch.empty(0)


class EMA:
    """The moving average of a model's parameters; buffers, as batch norm's statistics, are the model's own.

    average += (1 - decay) (model - average). Given to an optimizer of :mod:`fastgan.optim`, parameters
    follow in its launch; with any other optimizer call :meth:`update` after its step.

    Args:
        model: what is averaged; nn.ModuleDict or nn.ModuleList for several networks that share an optimizer.
        decay: in [0, 1]; 0.999 averages over about the last thousand steps.
        warmup: whether the n-th update, from 0, decays by (1 + n) / (10 + n) where that is less, so that the
            untrained start is forgotten.

    Attributes:
        average: a frozen copy of the model, in evaluation mode.

    Raises:
        ValueError: a decay out of range.

    Source: Polyak and Juditsky 1992; for generators Yazici et al., "The unusual effectiveness of averaging
    in GAN training", ICLR 2019.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        self.model, self.decay, self.warmup = model, decay, warmup
        self.average = make_average(model)
        self.num_updates = 0
        self._pair()

    @torch.no_grad()
    def update(self) -> None:
        """Follows the model by one step."""
        update_ema(self.model, self.average, decay=1 - self.advance())

    def advance(self) -> float:
        """Counts an update; returns 1 - its decay."""
        count = self.num_updates
        self.num_updates += 1
        return 1 - (warmed_up(self.decay, count) if self.warmup else self.decay)

    def average_of(self, parameter: Tensor) -> Tensor:
        """The average of one of the model's parameters; of another one an empty tensor."""
        return self._averages.get(id(parameter), _NOTHING)

    def check_updated_by(self, parameters: Iterable[Tensor]) -> None:
        """Raises a ValueError that names the model's trainable parameters which are not among these."""
        known = {id(parameter) for parameter in parameters}
        missing = [
            name
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and id(parameter) not in known
        ]
        if missing:
            raise ValueError(
                f"ema averages a {type(self.model).__name__} with parameters that this optimizer does not "
                f"update: {', '.join(missing)}"
            )

    @torch.no_grad()
    def follow_all_but(self, parameters: Iterable[Tensor], weight: float) -> None:
        """What remains after a launch that `parameters` took part in: the others, and the buffers."""
        done = {id(parameter) for parameter in parameters}
        others: list[Tensor] = [
            parameter for parameter in self.model.parameters() if id(parameter) not in done
        ]
        if others:
            torch._foreach_lerp_([self.average_of(parameter) for parameter in others], others, weight)
        _copy_buffers(self.model, self.average)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        self.num_updates = state["num_updates"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_averages"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pair()

    def _pair(self) -> None:
        pairs = zip(self.model.parameters(), self.average.parameters(), strict=True)
        self._averages: dict[int, Tensor] = {id(parameter): average for parameter, average in pairs}


def make_average(model: nn.Module) -> nn.Module:
    """A frozen copy of the model in evaluation mode, to start its average from."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def warmed_up(decay: float, count: int) -> float:
    """The decay of the update after `count` others: less at first, to forget the untrained start."""
    return min(decay, (1 + count) / (10 + count))


@torch.no_grad()
def update_ema(model: nn.Module, average: nn.Module, decay: float) -> None:
    """Average += (1 - decay) (model - average) for parameters; buffers are copied.

    Args:
        model, average: modules with the same parameters and buffers, on one device.
        decay: in [0, 1].

    Raises:
        ValueError: a decay out of range, or modules whose parameters or buffers differ; names them.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], got {decay}")
    for kind in ("parameters", "buffers"):
        first, second = (dict(getattr(module, f"named_{kind}")()) for module in (model, average))
        differing = sorted(first.keys() ^ second.keys())
        if differing:
            raise ValueError(f"model and average differ in their {kind}: {', '.join(differing)}")
        wrong = [name for name in first if first[name].shape != second[name].shape]
        if wrong:
            raise ValueError(f"model and average differ in the shapes of {', '.join(wrong)}")
    if any(True for _ in model.parameters()):
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    _copy_buffers(model, average)


def _copy_buffers(model: nn.Module, average: nn.Module) -> None:
    for kept, current in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(current)
