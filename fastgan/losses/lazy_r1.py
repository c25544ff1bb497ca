"""Lazy R1: the penalty on every few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan._torch_internals import sharded_modules
from fastgan.losses._input_gradient import check_output, check_samples, check_supports_penalty
from fastgan.losses.penalties import r1_penalty_of
from fastgan.ops._checks import as_flag, as_not_negative, as_whole_number


class PenaltyTerm(NamedTuple):
    """The result of :class:`R1` for a step."""

    loss: Tensor
    """The term of D's loss: weight * interval * penalty, or 0; 0-d."""
    penalty: Tensor
    """The penalty itself, detached, for logging, or 0; 0-d."""


class R1:
    """Lazy R1: the penalty on every `interval`-th step, `interval` times as strong.

    .. code-block:: python

        r1 = R1(discriminator, weight=5.0)
        loss_term, penalty = r1(real, step)
        (d_loss + loss_term).backward()

    Args:
        discriminator: samples (and further arguments) to logits.
        weight: of the penalty without factor 1/2: gamma / 2 of the paper.
        interval: steps between penalties (StyleGAN2: 16); 1: every step.
        compile: compile the penalty and its gradients with `torch.compile(fullgraph=True)`.
        output: picks the logits from what the discriminator returns, if that is not one tensor.

    R1 is not an nn.Module: as an attribute of one it registers no parameters. If it is copied, pickled or
    saved together with the discriminator, as in `copy.deepcopy((discriminator, r1))`, the copy uses the
    copied discriminator. Pickling needs an `output` that is defined in a module, not a lambda.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a negative weight, an interval below 1, a wrapper under which penalties are wrong, or
            `compile` with a discriminator that `fully_shard` has sharded.

    Source: Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020.
    """

    def __init__(
        self,
        discriminator: Callable[..., Any],
        weight: float,
        interval: int = 16,
        *,
        compile: bool = False,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        check_supports_penalty(discriminator)
        check_output(output)
        self.discriminator = discriminator
        self.weight = as_not_negative("weight", weight)
        self.interval = as_whole_number("interval", interval)
        self.compile, self.output = as_flag("compile", compile), output
        if self.compile and sharded_modules(discriminator):
            raise ValueError(
                "compile=True cannot serve a discriminator that fully_shard has sharded: use compile=False"
            )
        self._compiled: Callable[..., Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # bound to this discriminator

    def due(self, step: int) -> bool:
        """Whether the penalty is computed on this step, counted from 0; on other steps the term is 0.

        Raises:
            TypeError, ValueError: an invalid step.
        """
        return as_whole_number("step", step, least=0) % self.interval == 0

    def __call__(self, x: Tensor, step: int, *args: Any) -> PenaltyTerm:
        """The term of this step.

        Args:
            x: real samples, N ...
            step: counted from 0; a Python number.
            args: further arguments of the discriminator.

        Raises:
            TypeError, ValueError: invalid samples or step, or as :func:`fastgan.losses.r1_penalty_of`.
        """
        check_samples("x", x)
        if not self.due(step):
            zero = torch.scalar_tensor(0.0, device=x.device)
            return PenaltyTerm(zero, zero)
        penalty = self._penalty()(x.detach(), *args)
        return PenaltyTerm(self.weight * self.interval * penalty, penalty.detach())

    def _penalty(self) -> Callable[..., Tensor]:
        if not self.compile:
            return self._plain_penalty
        if self._compiled is None:
            self._compiled = torch.compile(self._plain_penalty, fullgraph=True)
        return self._compiled

    def _plain_penalty(self, x: Tensor, *args: Any) -> Tensor:
        discriminator = self.discriminator
        if self.compile and isinstance(discriminator, nn.parallel.DistributedDataParallel):
            # DDP averages the gradients without its forward as well, which cannot be compiled here.
            discriminator = discriminator.module
        return r1_penalty_of(discriminator, x, *args, output=self.output)
