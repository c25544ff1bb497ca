"""Exponential moving averages of networks' weights."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.ops._checks import (
    FLOATING,
    as_flag,
    as_list,
    as_number,
    as_whole_number,
    check_floating,
    check_instance,
    check_one_of,
    described,
)
from fastgan.ops.optimizer_step import layout_backend, optimizer_step
from fastgan.optim._order import check_order, remember
from fastgan.optim._pairs import (
    Pairs,
    copy_all,
    first_names,
    parameters_by_name,
    present,
    unwrapped,
    unwrapped_copy,
    without_wrappers,
)
from fastgan.optim._shards import beside, local
from fastgan.reference.optimizer_step import StepOptions

_NOTHING = torch.empty(0)


class EMA:
    """The moving average of a model's parameters; buffers, such as batch norm's statistics, are copied.

    average += (1 - decay) (model - average). If it is given to an optimizer of :mod:`fastgan.optim`, each
    step's launch updates the average, too. With another optimizer, or for networks with several optimizers,
    do not pass it to any of them, but call :meth:`update` after their steps::

        ema = EMA(nn.ModuleDict({"generator": generator, "mapping": mapping}))
        ...
        generator_optimizer.step()
        mapping_optimizer.step()
        ema.update()

    The number of updates matters as much as the decay: k updates per iteration forget as fast as one with
    decay ** k. StarGAN v2 (clovaai) averages once per iteration, after both updates of its generator;
    StyleGAN2 and 3 (NVlabs) once per batch, whether or not lazy regularization has stepped G once more, with
    decay = 0.5 ** (batch_size / (1000 ema_kimg)); BasicSR once per iteration, even if G is not stepped
    (`net_d_iters`). For these call :meth:`update`. BigGAN-PyTorch averages after each step of G. zi2zi,
    pix2pix, CycleGAN and StegaStamp do not average.

    Args:
        model: the model to average; nn.ModuleDict or nn.ModuleList for several networks. Its layers must not
            be replaced afterwards. Their parameters may be, as by load_state_dict(assign=True), but then the
            optimizer must be made anew, like torch's. DataParallel, DistributedDataParallel and torch.compile
            wrappers, around the model or inside it, are not part of the average, whose state_dict therefore
            has the bare network's names.
        decay: in [0, 1]; the default of 0.999 averages over about the last thousand updates.
        warmup: whether update n decays by (1 + n) / (10 + n) if that is less, so that the untrained start is
            forgotten.
        dtype: of the average's parameters. None: the model's, but float32 for half-precision parameters,
            whose last place is larger than the increment of one update.
        beta: StarGAN v2's name for `decay`.
        warmup_start: n of the first update. 1: like pytorch_ema and latent diffusion's LitEma, which count an
            update before they make it, and like TensorFlow's `num_updates` if that is the number of steps
            taken; the first update decays by 2 / 11. 0: like code that counts afterwards; by 1 / 10.

    Attributes:
        average: a frozen copy of the model, in evaluation mode.
        updates: n of the next update, 0-d int64, on the device of the model's first parameter. A step that
            torch.amp.GradScaler skips is no update.

    A copy (copy.deepcopy, pickle) belongs to the model that is copied with it; copied alone, it copies its
    model, too.

    Raises:
        ValueError: a decay or `warmup_start` out of range; at an update, layers or parameters that the model
            did not have when the average was made (names them), or an optimizer of replaced parameters.
        TypeError: a model that is not an nn.Module; both `decay` and `beta`.

    Source: Polyak and Juditsky 1992; for generators Yazici et al., "The unusual effectiveness of averaging
    in GAN training", ICLR 2019.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float | None = None,
        warmup: bool = True,
        dtype: torch.dtype | None = None,
        *,
        beta: float | None = None,
        warmup_start: int = 1,
    ) -> None:
        _check_module("model", model)
        warmup_start = as_whole_number("warmup_start", warmup_start, least=0)
        check_one_of("dtype", dtype, (None, *FLOATING))
        self.model, self.warmup = unwrapped(model), as_flag("warmup", warmup)
        self.decay = 0.999 if decay is None and beta is None else _decay_of(decay, beta)
        self.average = _frozen_copy(model, dtype)
        device = next((parameter.device for parameter in model.parameters()), None)
        self.warmup_start = warmup_start
        self.updates = torch.full((), warmup_start, dtype=torch.int64, device=device)
        self._pairs: Pairs | None = None
        # Not the parameters, which load_state_dict(assign=True), FSDP2 and conversions replace.
        self._parts = _parts_of(parameters_by_name(self.model))

    def update(self) -> None:
        """Updates the average from the model."""
        self.follow_all_but(set(), None, counts=True)

    @property
    def num_updates(self) -> int:
        """The number of updates so far; reading it synchronizes with the device."""
        return int(self.updates.item()) - self.warmup_start

    def average_of(self, parameter: Tensor) -> Tensor:
        """The average of one of the model's parameters, or its local part; for others an empty tensor."""
        if self._pairs is None or id(parameter) not in self._pairs.averages:
            self._pairs = self._paired()
        return self._pairs.averages.get(id(parameter), _NOTHING)

    def check_updated_by(self, parameters: Iterable[Tensor]) -> None:
        """Raises a ValueError that names the model's trainable parameters that are not among these."""
        kind = type(parameters).__name__
        known = set()
        for parameter in as_list("parameters", parameters):
            if not isinstance(parameter, Tensor):
                raise TypeError(f"parameters must be tensors, got {described(parameter)} in a {kind}")
            known.add(id(parameter))
        missing = [
            name
            for name, parameter in without_wrappers(dict(self.model.named_parameters())).items()
            if parameter.requires_grad and id(parameter) not in known
        ]
        if missing:
            raise ValueError(
                f"ema averages a {type(self.model).__name__} with parameters that this optimizer does not "
                f"update, got a {kind} of {len(known)} without {', '.join(missing)}. For networks of several "
                "optimizers leave `ema` out of all of them and call EMA.update() once per iteration, after "
                "their steps; or make one EMA for each"
            )

    @torch.no_grad()
    def follow_all_but(self, done: set[int], found_inf: Tensor | None, counts: bool = False) -> None:
        """Updates the averages of parameters whose id is not in `done`, and copies buffers.

        Args:
            done: ids of the parameters whose averages the optimizer's launches update.
            found_inf: as in :func:`fastgan.ops.optimizer_step.optimizer_step`.
            counts: whether this is a whole update, to be counted.
        """
        check_instance("done", done, (set, frozenset), "a set of ids")
        counts = as_flag("counts", counts)
        if found_inf is not None:
            check_floating("found_inf", found_inf)
            if found_inf.numel() != 1:
                raise ValueError(f"found_inf must have one element, got {described(found_inf)}")
        pairs = self._paired()
        if self._pairs is not None and pairs is not self._pairs:
            replaced = done & self._pairs.averages.keys() - pairs.averages.keys()
            if replaced:
                raise ValueError(
                    f"this optimizer updates parameters that the {type(self.model).__name__} had when they "
                    f"were last averaged, got {len(replaced)} that have been replaced since: make a new "
                    "optimizer"
                )
        self._pairs = pairs
        others = pairs.parameters
        if done:
            others = [parameter for parameter in others if id(parameter) not in done]
        options = StepOptions(
            0.0, average_weight=1 - self.decay, average_warmup=self.warmup, counts_update=counts
        )
        devices = {parameter.device for parameter in others}
        by_device = {d: [p for p in others if p.device == d] if len(devices) > 1 else others for d in devices}
        in_launch = by_device.keys() == {self.updates.device}
        for device, params in by_device.items():
            averages = pairs.averages_of(params)
            updates, inf = beside(self.updates, device), beside(found_inf, device)
            _launch(params, averages, options._replace(counts_update=counts and in_launch), updates, inf)
        if counts and not in_launch:
            count_update(self.updates, found_inf)
        copy_all(present(pairs.buffers))

    def state_dict(self) -> dict[str, Any]:
        return {
            "average": self.average.state_dict(),
            "num_updates": self.num_updates,
            "warmup_start": self.warmup_start,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the average and its warm-up count; the decay remains this average's."""
        check_instance("state", state, dict, "a dict")
        if not state.keys() >= {"average", "num_updates"}:
            raise ValueError(f"state must have 'average' and 'num_updates', got {described(state)}")
        average = state["average"]
        if average.keys() != self.average.state_dict().keys():  # saved from a wrapped model
            average = without_wrappers(average)
        self.average.load_state_dict(average)
        # States without `warmup_start` are from versions that counted from 0.
        self.warmup_start = state.get("warmup_start", 0)
        self.updates.fill_(self.warmup_start + state["num_updates"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pairs": None, "_parts": {}}  # which refer to this model

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles without `warmup_start` are from versions that counted from 0.
        self.__dict__.update({"warmup_start": 0, **state, "_pairs": None, "_parts": {}})

    def _paired(self) -> Pairs:
        """The current pairs of model and average.

        Made when needed: while a model that holds its own EMA is copied, the copy has no parameters yet.
        """
        if self._pairs is not None and self._pairs.are_current():
            return self._pairs
        self._check_unchanged()
        return Pairs(self.model, self.average)

    def _check_unchanged(self) -> None:
        """Raises a ValueError that names the model's parameters that changed since the average was made."""
        params, averages = parameters_by_name(self.model), parameters_by_name(self.average)
        first_param, first_average = first_names(params), first_names(averages)
        changed = params.keys() ^ averages.keys()
        for name in params.keys() & averages.keys():
            (part, parameter), (_, average) = params[name], averages[name]
            is_replaced = name in self._parts and self._parts[name]() is not part
            if is_replaced or parameter.shape != average.shape or first_param[name] != first_average[name]:
                changed.add(name)
        if changed:
            raise ValueError(
                "the model has other parameters than when EMA(model) made its average: "
                f"{', '.join(sorted(changed))}. Replace layers first, then make the EMA"
            )
        if not self._parts:  # in a copy
            self._parts = _parts_of(params)


def count_update(updates: Tensor, found_inf: Tensor | None) -> None:
    """Counts an update, as a single launch for all parameters would, unless `found_inf` is set."""
    if found_inf is None:
        updates += 1
    else:
        updates += (found_inf.reshape(()) == 0).to(updates.device, updates.dtype)


@torch.no_grad()
def update_ema(
    model: nn.Module, average: nn.Module, decay: float | None = None, *, beta: float | None = None
) -> None:
    """Average += (1 - decay) (model - average) for parameters, in one launch; buffers are copied.

    The order of arguments is that of StarGAN v2's `moving_average(model, model_test, beta)`. rosinality's
    `accumulate(model1, model2, decay)` and its many copies have the average FIRST. Swapped arguments would
    overwrite the network that is trained, and are refused if detected: if `average` has or requires gradients
    and nothing (gradients, requires_grad, training mode) shows that `model` is being trained; from the second
    call on also if `average` was changed in the meantime, as by an optimizer, and `model` was not. A frozen
    average, as made by ``copy.deepcopy(model).eval().requires_grad_(False)``, is never taken for the model.

    Args:
        model, average: modules with the same parameters and buffers, on one device; either may be wrapped in
            DataParallel, DistributedDataParallel, torch.compile or Lightning Fabric's modules.
        decay: in [0, 1]; 0 copies the model.
        beta: another name for `decay`.

    Raises:
        ValueError: a decay out of range; arguments that look swapped; modules whose parameters or buffers
            differ, which are named.
        TypeError: arguments that are not modules; both `decay` and `beta`, or neither.
    """
    _check_module("model", model)
    _check_module("average", average)
    decay = _decay_of(decay, beta)
    params, averages = _matched("parameters", model, average)
    average_buffers, model_buffers = _matched("buffers", average, model)
    check_order(model, average, params, averages)
    if params:
        _launch(params, local(averages), StepOptions(0.0, average_weight=1 - decay), None, None)
    copy_all(zip(average_buffers, model_buffers, strict=True))
    remember(model, average, params, averages)


def _matched(kind: str, first: nn.Module, second: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Both modules' parameters or buffers, in the same order; a ValueError names those that differ."""
    first_tensors, second_tensors = (dict(getattr(module, f"named_{kind}")()) for module in (first, second))
    if first_tensors.keys() != second_tensors.keys():
        first_tensors, second_tensors = without_wrappers(first_tensors), without_wrappers(second_tensors)
    differing = sorted(first_tensors.keys() ^ second_tensors.keys())
    if differing:
        raise ValueError(
            f"model and average must have the same tensors, got {type(first).__name__} and "
            f"{type(second).__name__}, which differ in their {kind}: {', '.join(differing)}"
        )
    for name, tensor in first_tensors.items():
        for attribute in ("shape", "device"):
            one, other = getattr(tensor, attribute), getattr(second_tensors[name], attribute)
            if one != other:
                raise ValueError(f"model and average differ in the {attribute} of {name}: {one}, {other}")
    return list(first_tensors.values()), [second_tensors[name] for name in first_tensors]


def _parts_of(named: dict[str, tuple[nn.Module, nn.Parameter]]) -> dict[str, weakref.ref[nn.Module]]:
    return {name: weakref.ref(part) for name, (part, _) in named.items()}


def _check_module(name: str, module: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {described(module)}")


def _decay_of(decay: float | None, beta: float | None) -> float:
    if (decay is None) == (beta is None):
        raise TypeError(
            f"give either decay or beta, which are the same, got {_briefly(decay)} and {_briefly(beta)}"
        )
    name, value = ("decay", decay) if beta is None else ("beta", beta)
    number = as_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return number


def _briefly(value: object) -> str:
    return str(value) if isinstance(value, Real) else described(value)


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
    average = unwrapped_copy(model).requires_grad_(False).eval()
    for parameter in average.parameters():
        default = torch.float32 if parameter.element_size() == 2 else parameter.dtype
        parameter.data = parameter.data.to(dtype or default)
        parameter.grad = None  # copied if the model was in the middle of training
    return average
