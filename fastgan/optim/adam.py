"""Adam and AdamW with clips and a moving average, in one launch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

# Imported as names, so that constructors call torch's even after `torch.optim.Adam = fastgan.optim.Adam`.
from torch.optim import Adam as TorchAdam
from torch.optim import AdamW as TorchAdamW

from fastgan._torch_internals import init_group
from fastgan.optim._options import as_groups, checked_options
from fastgan.optim._step import FusedStep, StateNames
from fastgan.optim.ema import EMA


class Adam(FusedStep, TorchAdam):
    """torch.optim.Adam with clips and moving average in one launch.

    Formulas: :mod:`fastgan.ops.optimizer_step`. State dicts are interchangeable with torch's.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay: as torch's.
        capturable, foreach, fused: accepted, without effect.
        differentiable: must be False.
        grad_clip_value, grad_clip_norm, weight_clip, stochastic_rounding, ema, statistics: as in
            :class:`fastgan.optim.RMSprop`.

    Raises:
        ValueError: an argument out of range; `ema` of a model with parameters that are not among `params`.
        TypeError: parameters that are not real floating-point tensors.

    Sources: Kingma and Ba, ICLR 2015; Reddi et al., ICLR 2018 (amsgrad); Loshchilov and Hutter, ICLR 2019
    (decoupled weight decay).
    """

    algorithm = "adam"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        grad_clip_value: float | None = None,
        grad_clip_norm: float | None = None,
        weight_clip: float | tuple[float, float] | None = None,
        stochastic_rounding: bool = False,
        ema: EMA | None = None,
        statistics: bool = False,
    ) -> None:
        extra = {
            "grad_clip_value": grad_clip_value,
            "grad_clip_norm": grad_clip_norm,
            "weight_clip": weight_clip,
            "stochastic_rounding": stochastic_rounding,
        }
        torch_options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        checked_options({"foreach": foreach, "fused": fused})
        checked = self._prepare(torch_options, extra, differentiable)
        TorchAdam.__init__(self, as_groups(params), **checked)
        self._finish(ema, statistics)

    def _state_names(self, group: dict[str, Any]) -> StateNames:
        return StateNames("exp_avg_sq", "exp_avg", "max_exp_avg_sq" if group["amsgrad"] else None)

    def _init_states(self, group: dict[str, Any]) -> None:
        init_group(self, group)

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {
            "momentum": float(beta1),
            "decay": float(beta2),
            "eps": group["eps"],
            "decoupled": group["decoupled_weight_decay"],
        }


class AdamW(Adam, TorchAdamW):
    """:class:`Adam` whose weight decay shrinks the parameters instead of adding to their gradients.

    Like torch's, it ignores the `decoupled_weight_decay` of a loaded state.

    Arguments and errors are those of :class:`Adam`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        grad_clip_value: float | None = None,
        grad_clip_norm: float | None = None,
        weight_clip: float | tuple[float, float] | None = None,
        stochastic_rounding: bool = False,
        ema: EMA | None = None,
        statistics: bool = False,
    ) -> None:
        Adam.__init__(
            self, params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, foreach=foreach,
            capturable=capturable, differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
            grad_clip_value=grad_clip_value, grad_clip_norm=grad_clip_norm, weight_clip=weight_clip,
            stochastic_rounding=stochastic_rounding, ema=ema, statistics=statistics,
        )  # fmt: skip
