"""RMSprop as WGAN training uses it: gradient clip before the step, weight clip after it, in one launch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastgan._torch_internals import init_group
from fastgan.optim._options import as_groups
from fastgan.optim._step import FusedStep, StateNames
from fastgan.optim.ema import EMA


class RMSprop(FusedStep, torch.optim.RMSprop):
    """torch.optim.RMSprop with clips, moving average and TensorFlow's variants, in one launch.

    Formulas: :mod:`fastgan.ops.optimizer_step`. State dicts are interchangeable with torch's.

    Args:
        params, lr, alpha, eps, weight_decay, momentum, centered, capturable, foreach, maximize: as torch's;
            `capturable` and `foreach` are accepted without effect: every step but the first can be captured.
        differentiable: must be False.
        eps_inside_sqrt: add epsilon under the root, as TensorFlow does; StegaStamp and many GANs were tuned
            with it.
        initial_square_avg: start of the average of squares: 0 in torch, 1 in TensorFlow.
        grad_clip_value: the step uses gradients clamped to +-this; `grad` itself is not changed.
        grad_clip_norm: the step uses gradients scaled down to this norm, taken over all groups with this
            option, as by torch.nn.utils.clip_grad_norm_; before `grad_clip_value`, if both are given.
        weight_clip: clamp parameters after the step, to +-this or to a pair (low, high), for WGAN.
        stochastic_rounding: whether half-precision parameters are rounded up or down at random, so that steps
            smaller than their last place are not lost; the constructor draws the seed from torch's generator.
        ema: the average to update in the same launch.
        statistics: whether each step stores its :class:`StepStatistics` in ``self.statistics``.

    Groups may have their own value of every option but the last two. States of half-precision parameters
    are float32. Sharded parameters (DTensor, FSDP2) are updated shard by shard, in place.

    A NaN gradient makes its parameter NaN, as in torch, and with `grad_clip_norm` all of them; under
    torch.amp.GradScaler such a step changes neither parameters nor the average.

    Raises:
        ValueError: an argument out of range; `ema` of a model with parameters that are not among `params`.
        TypeError: parameters that are not real floating-point tensors.

    Sources: Tieleman and Hinton 2012; Arjovsky et al., "Wasserstein GAN", 2017 (weight clip); TensorFlow's
    RMSPropOptimizer.
    """

    algorithm = "rmsprop"
    neutral: ClassVar = {**FusedStep.neutral, "eps_inside_sqrt": False, "initial_square_avg": 0.0}

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        eps_inside_sqrt: bool = False,
        initial_square_avg: float = 0.0,
        grad_clip_value: float | None = None,
        grad_clip_norm: float | None = None,
        weight_clip: float | tuple[float, float] | None = None,
        stochastic_rounding: bool = False,
        ema: EMA | None = None,
        statistics: bool = False,
    ) -> None:
        extra = {
            "eps_inside_sqrt": eps_inside_sqrt,
            "initial_square_avg": initial_square_avg,
            "grad_clip_value": grad_clip_value,
            "grad_clip_norm": grad_clip_norm,
            "weight_clip": weight_clip,
            "stochastic_rounding": stochastic_rounding,
        }
        torch_options = {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
            "centered": centered, "capturable": capturable, "foreach": foreach, "maximize": maximize,
        }  # fmt: skip
        checked = self._prepare(torch_options, extra, differentiable)
        super().__init__(as_groups(params), **checked)
        self._finish(ema, statistics)

    @classmethod
    def tensorflow_style(
        cls, params: Iterable[Tensor], lr: float, alpha: float = 0.9, eps: float = 1e-10, **options
    ) -> RMSprop:
        """The defaults and the formula of tf.train.RMSPropOptimizer."""
        return cls(params, lr, alpha, eps, eps_inside_sqrt=True, initial_square_avg=1.0, **options)

    def _state_names(self, group: dict[str, Any]) -> StateNames:
        return StateNames(
            "square_avg",
            "grad_avg" if group["centered"] else None,
            "momentum_buffer" if group["momentum"] > 0 else None,
        )

    def _init_states(self, group: dict[str, Any]) -> None:
        uninitialized = [p for p in group["params"] if p.grad is not None and not self.state.get(p)]
        init_group(self, group)
        for parameter in uninitialized if group["initial_square_avg"] else ():
            self.state[parameter]["square_avg"].fill_(group["initial_square_avg"])

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "momentum": group["momentum"],
            "decay": group["alpha"],
            "eps": group["eps"],
            "eps_inside_sqrt": group["eps_inside_sqrt"],
        }
