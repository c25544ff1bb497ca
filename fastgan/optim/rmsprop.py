"""RMSprop as WGAN training uses it: gradient clip before the step, weight clip after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class RMSprop(torch.optim.Optimizer):
    """RMSprop with value clipping of gradients and weights in the same step.

    v = alpha v + (1 - alpha) g^2, then p -= lr g / (sqrt(v) + eps), or lr g / sqrt(v + eps) with
    `eps_inside_sqrt`, as TensorFlow has it.

    Args:
        params: parameters or groups.
        lr: learning rate.
        alpha: decay of the squared gradients' average.
        eps: epsilon.
        eps_inside_sqrt: TensorFlow's place for epsilon; StegaStamp and many GANs were tuned with it.
        initial_square_avg: where the average starts: 0 in torch, 1 in TensorFlow.
        grad_clip_value: clamp gradients to +-this before the step; the gradients themselves are clamped.
        weight_clip: clamp parameters to +-this after the step, as WGAN demands.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        eps_inside_sqrt: bool = False,
        initial_square_avg: float = 0.0,
        grad_clip_value: float | None = None,
        weight_clip: float | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("initial_square_avg", initial_square_avg)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        for name, bound in (("grad_clip_value", grad_clip_value), ("weight_clip", weight_clip)):
            if bound is not None and bound <= 0:
                raise ValueError(f"{name} must be positive, got {bound}")
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "eps_inside_sqrt": eps_inside_sqrt,
            "initial_square_avg": initial_square_avg,
            "grad_clip_value": grad_clip_value,
            "weight_clip": weight_clip,
        }
        super().__init__(params, defaults)

    @classmethod
    def tensorflow_style(
        cls, params: Iterable[Tensor], lr: float, alpha: float = 0.9, eps: float = 1e-10, **options
    ) -> RMSprop:
        """The defaults and the formula of tf.train.RMSPropOptimizer."""
        return cls(params, lr, alpha, eps, eps_inside_sqrt=True, initial_square_avg=1.0, **options)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, *, applies: Tensor | None = None
    ) -> float | None:
        """One update of every parameter that has a gradient.

        Args:
            closure: computes the loss again, as in torch.
            applies: 0-d bool on the parameters' device: where it is false, parameters and averages stay as
                they are, and nobody waits to see it. Gradients must be finite all the same.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            averages = [self._square_avg(p, group["initial_square_avg"]) for p in parameters]
            if group["grad_clip_value"] is not None:
                _clamp(gradients, group["grad_clip_value"])
            kept = [] if applies is None else [tensor.clone() for tensor in (*parameters, *averages)]
            torch._foreach_mul_(averages, group["alpha"])
            torch._foreach_addcmul_(averages, gradients, gradients, value=1 - group["alpha"])
            if group["eps_inside_sqrt"]:
                denominators = torch._foreach_add(averages, group["eps"])
                torch._foreach_sqrt_(denominators)
            else:
                denominators = torch._foreach_sqrt(averages)
                torch._foreach_add_(denominators, group["eps"])
            torch._foreach_addcdiv_(parameters, gradients, denominators, value=-group["lr"])
            if group["weight_clip"] is not None:
                _clamp(parameters, group["weight_clip"])
            if applies is not None:
                for new, old in zip((*parameters, *averages), kept, strict=True):
                    torch.where(applies, new, old, out=new)
        return loss

    def _square_avg(self, parameter: Tensor, initial: float) -> Tensor:
        state = self.state[parameter]
        if "square_avg" not in state:
            state["square_avg"] = torch.full_like(parameter, initial)
        return state["square_avg"]


def _clamp(tensors: list[Tensor], bound: float) -> None:
    torch._foreach_clamp_max_(tensors, bound)
    torch._foreach_clamp_min_(tensors, -bound)
