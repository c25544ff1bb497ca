r"""What each loss term contributes to the generator's gradient, measured within the step's own backward pass.

A generator's loss is a sum of terms, each computed from the output by a head of its own: a pixel loss, VGG,
a discriminator, a decoder. The backward pass visits every head once. Cut at the output, it does so one head
after the other: each leaves its own gradient at the cut, and one pass from there on does the rest.

.. math::
    g_i = w_i \frac{\partial t_i}{\partial x}, \qquad \frac{\partial}{\partial \theta} \sum_i w_i t_i = \Big(
    \sum_i g_i \Big) \frac{\partial x}{\partial \theta}

Weights may follow from these gradients: wanted shares (the balancer of Defossez et al., "High Fidelity Neural
Audio Compression", 2022), or :class:`AdaptiveWeight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fastgan._torch_internals import has_gradient_hooks
from fastgan.monitor._graph import Reach, reach
from fastgan.monitor._heads import (
    Cut,
    Rest,
    RestOfBackward,
    averaged,
    head_gradients,
    index_by_node,
    summed,
    sweep,
)
from fastgan.monitor.adaptive_weight import (
    AdaptiveWeight,
    Weight,
    adaptive_factors,
    check_weights,
    checked_layer,
    norms_at_cut,
    norms_at_layer,
    sorted_weights,
    weight_of,
)
from fastgan.monitor.shares import Shares
from fastgan.monitor.wanted_shares import MOST_TERMS, Averages, checked_shares, factors_of_shares
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    check_floating,
    check_instance,
    check_scaler,
    described,
    shown,
)


class BudgetedLoss(NamedTuple):
    """What :meth:`LossBudget.loss` returns."""

    loss: Tensor
    """The weighted sum of the terms, 0-d: its `backward()` runs what remains."""
    shares: Shares


class LossBudget(nn.Module):
    """Measures the loss terms' shares of the generator's gradient, and sets weights by them.

    .. code-block:: python

        budget = LossBudget()
        leaf = budget.cut(fake)                     # in place of fake in every loss
        terms = {"l1": l1(leaf, real), "gan": g_loss(D(leaf))}
        shares = budget.backward(terms, weights={"l1": 1.0, "gan": 0.1})
        shares.share["gan"], shares.cosine("l1", "gan")

    :meth:`backward` leaves in every parameter the gradient of `sum(w * t).backward()`: also in the heads' own
    parameters, and in those of a generator that a term passes a second time (cycles). What terms share, such
    as one pass through D for two of them, is run backward once per term; what else such terms have saved is
    freed when the caller drops them. Activation checkpointing in heads needs `use_reentrant=False`.

    In several processes (`torch.distributed`) the measures are those of the joined batch, for terms that are
    means over the batch: one all-reduce of T x T numbers, and those of the layer's gradients, in which every
    process takes part. Each process's `total` and gradients are its own; averaging the latter is for DDP or
    the trainer.

    The module's state, for checkpoints, is the averages of `shares` and the count `undefined`.

    Args:
        layer: the generator's last layer, a module with a `weight` or this parameter, whose gradients
            :class:`AdaptiveWeight` compares: one weight gradient for the term, and one for the others. None:
            those at the cut. Compiled together with the whole generator, a layer costs a whole backward pass
            each: leave it uncompiled.
        decay: of the exponential averages of the norms, for `shares`, in [0, 1).
        total_norm: for `shares`: the sum of the terms' norms where each norm is at its average (EnCodec: 1).
            None keeps the norm that the gradient of the unweighted sum has in each step.

    Attributes:
        undefined: 0-d int64 buffer: how many computed weights had nothing to be computed from: an
            :class:`AdaptiveWeight` a norm of 0 or one that was not finite, a wanted share an average of 0.

    Raises:
        TypeError, ValueError: a layer without weight, or invalid numbers.
    """

    undefined: Tensor
    averages: Tensor
    counts: Tensor

    def __init__(
        self,
        layer: nn.Module | nn.Parameter | None = None,
        *,
        decay: float = 0.999,
        total_norm: float | None = None,
    ) -> None:
        super().__init__()
        # In a tuple, so that it is not a submodule.
        self._layer: tuple[nn.Module | nn.Parameter, ...] = () if layer is None else (checked_layer(layer),)
        self.decay = as_finite("decay", decay)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {shown(decay)}")
        self.total_norm = None if total_norm is None else as_finite("total_norm", total_norm)
        if self.total_norm is not None and self.total_norm <= 0:
            raise ValueError(f"total_norm must be positive, got {shown(total_norm)}")
        self._cuts: list[Cut] = []
        self._wanted: dict[str, float] = {}
        # The exponential averages of the norms: sums and weights, by the position of a name in `shares`.
        self.register_buffer("averages", torch.zeros(MOST_TERMS))
        self.register_buffer("counts", torch.zeros(MOST_TERMS))
        self.register_buffer("undefined", torch.zeros((), dtype=torch.int64))

    def forward(self, *_: Any) -> None:
        raise TypeError("a LossBudget is not called: see cut and backward")

    # --- before the losses ----------------------------------------------------------------------------------

    def cut(self, *tensors: Tensor, measured: bool = True) -> Any:
        """Ends the graph at these tensors, until :meth:`backward` joins it again.

        Every loss must use what is returned in place of the tensors: a term that uses a tensor itself beside
        it gets the right gradients, but only what passes the cut is measured. The generator must not use it.
        Several calls before one :meth:`backward` add up; gradients at all measured cuts count together.

        Args:
            tensors: the generator's outputs, floating point, with a graph.
            measured: False for a tensor whose gradient is to pass on but not to count, such as a style code
                from which the generator has made its output, and which a term compares with that output's.

        Returns:
            A tensor with the same memory and no graph; a tuple of them for several tensors.

        Raises:
            TypeError: no tensor, or one that is not floating-point.
            ValueError: a tensor without a graph or without elements, one that was cut before, or one that is
                computed from what an earlier call returned.
        """
        if not tensors:
            raise TypeError("cut takes at least one tensor, got none")
        measured = as_flag("measured", measured)
        earlier = index_by_node(self._cuts)
        cuts: list[Cut] = []
        for index, tensor in enumerate(tensors):
            name = "tensor" if len(tensors) == 1 else f"tensors[{index}]"
            check_floating(name, tensor)
            if tensor.numel() == 0:
                raise ValueError(f"{name} must not be empty, got shape {tuple(tensor.shape)}")
            if tensor.grad_fn is None:
                raise ValueError(
                    f"{name} must have a graph to cut: computed from parameters with requires_grad, outside "
                    f"of torch.no_grad(), got {described(tensor)}"
                )
            if any(tensor is cut.tensor for cut in (*self._cuts, *cuts)):
                raise ValueError(f"{name} has been cut already")
            if earlier and reach([tensor], earlier).leaves:
                raise ValueError(
                    f"{name} is computed from what an earlier cut returned: only losses may use that, the "
                    "generator must use the tensor itself"
                )
            cuts.append(Cut.of(tensor, measured))
        self._cuts += cuts
        ends = tuple(cut.end for cut in cuts)
        return ends if len(ends) > 1 else ends[0]

    @property
    def is_cut(self) -> bool:
        """Whether there is a cut that waits for :meth:`backward`."""
        return bool(self._cuts)

    def discard(self) -> None:
        """Forgets cuts for which there will be no :meth:`backward`, and frees their graphs."""
        self._cuts = []

    # --- after the losses -----------------------------------------------------------------------------------

    def backward(
        self,
        terms: Mapping[str, Tensor],
        weights: Mapping[str, Weight] | None = None,
        *,
        shares: Mapping[str, float] | None = None,
        beside: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Shares:
        """Accumulates the gradients of `sum(w * t) + beside` in all parameters, and measures the terms.

        Args:
            terms: 1 to 16 unweighted loss terms by name, each 0-d and computed from a cut.
            weights: a weight per term: a number, a 0-d tensor or an :class:`AdaptiveWeight`. None: all 1.
            shares: in place of weights: each term's wanted share of the gradient. The weights follow from
                averages of the norms; the shares of the terms that are given are scaled to a sum of 1, so
                that a term may be left out of a step.
            beside: a further 0-d loss of weight 1 that does not depend on a cut, such as a codebook loss.
            scaler: multiplies everything by its scale, as `scaler.scale(loss).backward()` does. Norms are
                those without it. (Terms that are scaled beforehand have the right shares as well, but larger
                norms: not with `total_norm`.)

        Raises:
            TypeError, ValueError: no cut since the last call; a term that is not 0-d or does not depend on a
                cut, by name; names that differ between terms and weights; both weights and shares; names of
                shares that differ from those of earlier calls; invalid weights; a layer that no gradient
                reaches.
            RuntimeError: trained parameters of a head have tensor hooks, which would run twice.
        """
        rest = self._run_heads(terms, weights, shares, beside, scaler)
        tensors, gradients = rest.tensors, rest.gradients
        if beside is not None and beside.requires_grad:
            tensors.append(beside)
            gradients.append(torch.ones_like(beside) if rest.scale is None else rest.scale.to(beside.dtype))
        torch.autograd.backward(tensors, gradients)
        return rest.shares

    def loss(
        self,
        terms: Mapping[str, Tensor],
        weights: Mapping[str, Weight] | None = None,
        *,
        shares: Mapping[str, float] | None = None,
        beside: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> BudgetedLoss:
        """As :meth:`backward`, for trainers that call `backward` on a loss, such as Lightning and accelerate.

        The heads are run backward at once; `loss.backward()` then runs the generator, and accumulates all
        gradients there, times whatever the trainer multiplies the loss by. Gradients reach each parameter
        once, as DDP needs it. `scaler` keeps the heads' gradients from vanishing in float16; the trainer
        still calls `scaler.scale(loss).backward()`.

        Returns:
            (loss, shares); the loss is `sum(w * t) + beside`, and can be run backward once.

        Raises:
            As :meth:`backward`.
        """
        rest = self._run_heads(terms, weights, shares, beside, scaler)
        loss = RestOfBackward.apply(rest, *rest.tensors)
        return BudgetedLoss(loss if beside is None else loss + beside, rest.shares)

    # --- the backward pass in parts -------------------------------------------------------------------------

    def _run_heads(
        self,
        terms: Mapping[str, Tensor],
        weights: Mapping[str, Weight] | None,
        shares: Mapping[str, float] | None,
        beside: Tensor | None,
        scaler: torch.amp.GradScaler | None,
    ) -> Rest:
        """Runs the heads backward, and computes what the rest of the pass starts from."""
        names = self._check(terms, weights, shares, beside, scaler)
        given, adaptive = sorted_weights(names, weights, shares)
        reaches, upstream = self._reaches(terms, beside)
        cuts, self._cuts = self._cuts, []
        device = cuts[0].leaf.device
        if self.undefined.device != device or self.averages.dtype != torch.float32:
            self.to(device, torch.float32)
        scale = None if scaler is None else cast(Tensor, scaler.scale(torch.ones((), device=device)))
        at_cuts, at_parameters = head_gradients(terms, given, reaches, cuts, upstream, scale)
        factors: Tensor | None = None
        ratios: dict[str, Tensor] = {}
        if adaptive and self._layer:
            layer = weight_of(self._layer[0])
            norms = norms_at_layer(layer, adaptive, names, at_cuts, at_parameters, cuts, scale)
            factors, ratios, undefined = adaptive_factors(adaptive, names, norms)
            self.undefined += undefined
        gram, sums = sweep(at_cuts, cuts, len(names), factors)
        gram = averaged(gram if scale is None else gram / scale / scale, power=2)
        if factors is None and len(given) < len(names):
            if shares is not None:
                averages = Averages(self.averages, self.counts, self.decay)
                factors, undefined = factors_of_shares(self._wanted, names, gram, averages, self.total_norm)
                self.undefined += undefined
            else:
                norms = norms_at_cut(adaptive, names, gram)
                factors, ratios, undefined = adaptive_factors(adaptive, names, norms)
                self.undefined += undefined
            sums = sweep(at_cuts, cuts, len(names), factors)[1]

        if factors is not None:
            gram = factors[:, None] * gram * factors
        used = {
            # Not torch.tensor, whose copy to the device would wait for it.
            name: _as_tensor(given[name], gram) if name in given else cast(Tensor, factors)[position]
            for position, name in enumerate(names)
        }
        values = [(used[name] * term.detach()).to(gram.dtype) for name, term in terms.items()]
        measured = Shares(gram, used, torch.stack(values).sum(), ratios)

        present = [(cut.tensor, total) for cut, total in zip(cuts, sums, strict=True) if total is not None]
        present += summed(at_parameters, factors).items()
        return Rest([tensor for tensor, _ in present], [gradient for _, gradient in present], measured, scale)

    def _check(self, terms: Any, weights: Any, shares: Any, beside: Any, scaler: Any) -> tuple[str, ...]:
        """Checks the arguments of :meth:`backward`; returns the terms' names."""
        if not self._cuts:
            raise ValueError("there is no cut to run backward from: call cut before the losses of each step")
        if not isinstance(terms, Mapping):
            raise TypeError(f"terms must map names to losses, got {described(terms)}")
        if not 1 <= len(terms) <= MOST_TERMS:
            raise ValueError(f"terms must be 1 to {MOST_TERMS} losses, got a dict of {len(terms)}")
        for name, term in terms.items():
            check_instance("the name of a term", name, str, "a string")
            _check_loss(f"terms[{name!r}]", term)
        if beside is not None:
            _check_loss("beside", beside)
        check_scaler("scaler", scaler)
        if weights is not None and shares is not None:
            raise ValueError(
                f"weights and shares exclude each other, got {described(weights)} and {described(shares)}"
            )
        if shares is not None:
            self._wanted = checked_shares(shares, terms, self._wanted)
        elif weights is not None:
            check_weights(terms, weights)
            adaptive = any(isinstance(weight, AdaptiveWeight) for weight in weights.values())
            if adaptive and self._layer and not weight_of(self._layer[0]).requires_grad:
                raise ValueError("layer must be trained where weights are adaptive: its weight is frozen")
        return tuple(terms)

    def _reaches(self, terms: Mapping[str, Tensor], beside: Tensor | None) -> tuple[list[Reach], list[Any]]:
        """What each term's backward pass visits, and the nodes that are run backward after all of them.

        Raises:
            ValueError, RuntimeError: as :meth:`backward`.
        """
        leaves = index_by_node(self._cuts)
        reaches = [reach([term], leaves) for term in terms.values()]
        for name, reached in zip(terms, reaches, strict=True):
            if not reached.leaves:
                raise ValueError(
                    f"terms[{name!r}] does not depend on a cut: compute it from what cut returned, or "
                    "pass it as beside"
                )
            if any(map(has_gradient_hooks, reached.parameters)):
                raise RuntimeError(
                    f"terms[{name!r}] has trained parameters with tensor hooks (register_hook), which would "
                    "run twice"
                )
        upstream = reach([cut.tensor for cut in self._cuts], {}).nodes
        if beside is not None:
            reached = reach([beside], leaves)
            if reached.leaves:
                raise ValueError("beside must not depend on a cut: pass it as one of the terms")
            upstream += reached.nodes
        return reaches, upstream


def _as_tensor(weight: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        return weight.detach().clone()  # which may be a schedule's, and change
    return torch.full((), weight, dtype=like.dtype, device=like.device)


# --- checks -------------------------------------------------------------------------------------------------


def _check_loss(name: str, value: object) -> None:
    check_floating(name, value)
    if cast(Tensor, value).dim() != 0:
        raise ValueError(f"{name} must be a 0-d tensor: reduce it to a mean, got {described(value)}")
