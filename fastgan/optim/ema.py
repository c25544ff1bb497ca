"""Exponential moving averages of networks' weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.ops.optimizer_step import layout_backend, optimizer_step
from fastgan.optim._shards import local
from fastgan.reference.optimizer_step import StepOptions

_NOTHING = torch.empty(0)


class EMA:
    """The moving average of a model's parameters; buffers, as batch norm's statistics, are the model's own.

    average += (1 - decay) (model - average). Given to an optimizer of :mod:`fastgan.optim`, parameters
    follow in its launch; with any other optimizer call :meth:`update` after its step.

    Args:
        model: what is averaged; nn.ModuleDict or nn.ModuleList for several networks that share an optimizer.
            Its parameters are those it has now.
        decay: in [0, 1]; 0.999 averages over about the last thousand steps.
        warmup: whether the n-th update, from 0, decays by (1 + n) / (10 + n) where that is less, so that the
            untrained start is forgotten.
        dtype: of the average's parameters. None: as the model's, but float32 for half-precision ones, whose
            last place is larger than what one update adds.

    Attributes:
        average: a frozen copy of the model, in evaluation mode.
        updates: how many there were, 0-d int64, on the model's device. A step that a
            torch.amp.GradScaler leaves out is none.

    Raises:
        ValueError: a decay out of range.

    Source: Polyak and Juditsky 1992; for generators Yazici et al., "The unusual effectiveness of averaging
    in GAN training", ICLR 2019.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.999, warmup: bool = True, dtype: torch.dtype | None = None
    ) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        self.model, self.decay, self.warmup = model, decay, warmup
        self.average = _frozen_copy(model, dtype)
        device = next((parameter.device for parameter in model.parameters()), None)
        self.updates = torch.zeros((), dtype=torch.int64, device=device)
        self._pair()

    def update(self) -> None:
        """Follows the model by one step."""
        self.follow_all_but(set(), None, counts=True)

    @property
    def num_updates(self) -> int:
        """:attr:`updates` as a number, for which the host waits for the device."""
        return int(self.updates.item())

    def average_of(self, parameter: Tensor) -> Tensor:
        """The average of one of the model's parameters, or its local part; of another one an empty tensor."""
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
    def follow_all_but(self, done: set[int], found_inf: Tensor | None, counts: bool = False) -> None:
        """What the optimizer's launches do not do: the parameters whose id is not in `done`, and buffers.

        Args:
            done: ids of parameters.
            found_inf: as :func:`fastgan.ops.optimizer_step.optimizer_step` has it.
            counts: whether this is all of an update, and counts as one.
        """
        others = [parameter for parameter in self._parameters if id(parameter) not in done]
        options = StepOptions(
            0.0, average_weight=1 - self.decay, average_warmup=self.warmup, counts_update=counts
        )
        if others:
            averages = [self._averages[id(parameter)] for parameter in others]
            _launch(others, averages, options, self.updates, found_inf)
        elif counts:
            self.updates += 1
        _copy_buffers(self._buffers)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state["average"])
        self.updates.fill_(state["num_updates"])

    def __getstate__(self) -> dict[str, Any]:
        made = ("_parameters", "_averages", "_buffers")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pair()

    def _pair(self) -> None:
        """What belongs together, found once: walking through modules takes longer than a step."""
        self._parameters: list[Tensor] = list(self.model.parameters())
        averages = local(list(self.average.parameters()))
        self._averages = {id(p): average for p, average in zip(self._parameters, averages, strict=True)}
        self._buffers = _pair_buffers(self.model, self.average)


@torch.no_grad()
def update_ema(model: nn.Module, average: nn.Module, decay: float) -> None:
    """Average += (1 - decay) (model - average) for parameters, in one launch; buffers are copied.

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
        for name in first:
            for what in ("shape", "device"):
                ours, theirs = getattr(first[name], what), getattr(second[name], what)
                if ours != theirs:
                    raise ValueError(f"model and average differ in the {what} of {name}: {ours}, {theirs}")
    params: list[Tensor] = list(model.parameters())
    if params:
        averages = local(list(average.parameters()))
        _launch(params, averages, StepOptions(0.0, average_weight=1 - decay), None, None)
    _copy_buffers(_pair_buffers(model, average))


def _launch(
    params: list[Tensor],
    averages: list[Tensor],
    options: StepOptions,
    updates: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    params = local(params)
    optimizer_step(
        "average", params, [], [], [], [], averages, [], options,
        updates=updates, found_inf=found_inf, backend=layout_backend(params, averages),
    )  # fmt: skip


def _frozen_copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    average = copy.deepcopy(model).requires_grad_(False).eval()
    for parameter in average.parameters():
        own = torch.float32 if parameter.element_size() == 2 else parameter.dtype
        parameter.data = parameter.data.to(dtype or own)
    return average


# A module's buffers may be assigned anew, as in `self.mean = ...`: what is kept is where to look for them.
_Places = list[tuple[dict[str, Tensor | None], dict[str, Tensor | None], str]]


def _pair_buffers(model: nn.Module, average: nn.Module) -> _Places:
    return [
        (module._buffers, copied._buffers, name)
        for module, copied in zip(model.modules(), average.modules(), strict=True)
        for name in module._buffers
    ]


def _copy_buffers(places: _Places) -> None:
    pairs: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
    for source, target, name in places:
        kept, current = target[name], source[name]
        if kept is not None and current is not None:
            pairs.setdefault(kept.dtype, []).append((kept, current))
    for of_one_type in pairs.values():
        kept_ones, current_ones = zip(*of_one_type, strict=True)
        torch._foreach_copy_(kept_ones, current_ones)
