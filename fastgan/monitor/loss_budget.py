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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from fastgan._torch_internals import clear_error_about_donated_buffers, has_gradient_hooks
from fastgan.monitor._graph import Reach, needed_again, reach
from fastgan.monitor.shares import Shares
from fastgan.ops import gradient_budget
from fastgan.ops._checks import (
    as_factor,
    as_finite,
    as_flag,
    as_not_negative,
    as_numbers,
    check_floating,
    check_instance,
    check_scaler,
    described,
    shown,
)

MOST_TERMS = 16

Weight: TypeAlias = "float | Tensor | AdaptiveWeight"


@dataclass(frozen=True)
class AdaptiveWeight:
    r"""The weight at which a term's gradient is as large as that of other terms together.

    .. math::
        w = \text{scale} \cdot \text{clamp}\Big( \frac{\lVert \sum_{j} w_j g_j \rVert}{\lVert g \rVert +
        \epsilon} \Big)

    with the gradients of the last layer's weight (:class:`LossBudget`'s `layer`), or, without a layer, at the
    cut. A ratio that is not finite gives the weight 0.

    Args:
        relative_to: names of the other terms, which have weights that are numbers.
        scale: factor of the result, such as the weight of the adversarial term or 0 before its start.
        clamp: smallest and largest ratio.
        epsilon: added to the term's norm.

    Raises:
        TypeError, ValueError: no name, or values that are not finite numbers or not in order.

    Source: :math:`\lambda` of Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image
    Synthesis", CVPR 2021, with the defaults of the authors' code.
    """

    relative_to: tuple[str, ...]
    scale: float | Tensor = 1.0
    clamp: tuple[float, float] = (0.0, 1e4)
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        names = self.relative_to
        is_list = isinstance(names, Sequence) and not isinstance(names, (str, bytes))
        if not is_list or not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"relative_to must be names of terms, at least one, got {described(names)}")
        if len(set(names)) < len(names):
            raise ValueError(f"relative_to must name each term once, got {shown(tuple(names))}")
        scale = as_factor("scale", self.scale)
        if isinstance(scale, Tensor) and scale.requires_grad:
            raise ValueError(f"scale must be detached, got {described(scale)} that requires grad")
        clamp = as_numbers("clamp", self.clamp, 2)
        if clamp[0] > clamp[1]:
            raise ValueError(f"clamp must be in order, got {shown(self.clamp)}")
        epsilon = as_not_negative("epsilon", self.epsilon)
        # As Python's floats: numpy's numbers and large integers do not go together with tensors.
        for name, value in (
            ("relative_to", tuple(names)), ("scale", scale), ("clamp", clamp), ("epsilon", epsilon),
        ):  # fmt: skip
            object.__setattr__(self, name, value)


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
        self._layer: tuple[nn.Module | nn.Parameter, ...] = () if layer is None else (_checked_layer(layer),)
        self.decay = as_finite("decay", decay)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {shown(decay)}")
        self.total_norm = None if total_norm is None else as_finite("total_norm", total_norm)
        if self.total_norm is not None and self.total_norm <= 0:
            raise ValueError(f"total_norm must be positive, got {shown(total_norm)}")
        self._cuts: list[_Cut] = []
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
        earlier = _index_by_node(self._cuts)
        cuts: list[_Cut] = []
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
            cuts.append(_Cut.of(tensor, measured))
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
        loss = _RestOfBackward.apply(rest, *rest.tensors)
        return BudgetedLoss(loss if beside is None else loss + beside, rest.shares)

    # --- the backward pass in parts -------------------------------------------------------------------------

    def _run_heads(
        self,
        terms: Mapping[str, Tensor],
        weights: Mapping[str, Weight] | None,
        shares: Mapping[str, float] | None,
        beside: Tensor | None,
        scaler: torch.amp.GradScaler | None,
    ) -> _Rest:
        """Runs the heads backward, and computes what the rest of the pass starts from."""
        names = self._check(terms, weights, shares, beside, scaler)
        given, adaptive = _sorted_weights(names, weights, shares)
        reaches, upstream = self._reaches(terms, beside)
        cuts, self._cuts = self._cuts, []
        device = cuts[0].leaf.device
        if self.undefined.device != device or self.averages.dtype != torch.float32:
            self.to(device, torch.float32)
        scale = None if scaler is None else cast(Tensor, scaler.scale(torch.ones((), device=device)))
        at_cuts, at_parameters = _gradients(terms, given, reaches, cuts, upstream, scale)
        factors: Tensor | None = None
        ratios: dict[str, Tensor] = {}
        if adaptive and self._layer:
            norms = self._norms_at_layer(adaptive, names, at_cuts, at_parameters, cuts, scale)
            factors, ratios = self._adaptive_factors(adaptive, names, norms)
        gram, sums = _sweep(at_cuts, cuts, len(names), factors)
        gram = _averaged(gram if scale is None else gram / scale / scale, power=2)
        if factors is None and len(given) < len(names):
            if shares is not None:
                factors = self._factors_of_shares(gram, names)
            else:
                norms = _norms_at_cut(adaptive, names, gram)
                factors, ratios = self._adaptive_factors(adaptive, names, norms)
            sums = _sweep(at_cuts, cuts, len(names), factors)[1]

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
        present += _summed(at_parameters, factors).items()
        return _Rest(
            [tensor for tensor, _ in present], [gradient for _, gradient in present], measured, scale
        )

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
            self._check_shares(terms, shares)
        elif weights is not None:
            _check_weights(terms, weights)
            adaptive = any(isinstance(weight, AdaptiveWeight) for weight in weights.values())
            if adaptive and self._layer and not _weight_of(self._layer[0]).requires_grad:
                raise ValueError("layer must be trained where weights are adaptive: its weight is frozen")
        return tuple(terms)

    def _check_shares(self, terms: Mapping[str, Tensor], shares: object) -> None:
        if not isinstance(shares, Mapping):
            raise TypeError(f"shares must map the terms' names to numbers, got {described(shares)}")
        for name in shares:
            check_instance("the name in shares", name, str, "a string")
        wanted = {name: as_not_negative(f"shares[{name!r}]", share) for name, share in shares.items()}
        if not 1 <= len(wanted) <= MOST_TERMS:
            raise ValueError(f"shares must name 1 to {MOST_TERMS} terms, got a dict of {len(wanted)}")
        missing = [name for name in terms if name not in wanted]
        if missing:
            raise ValueError(
                f"shares must name every term, got none for {', '.join(missing)} in {described(dict(shares))}"
            )
        if sum(wanted[name] for name in terms) == 0:
            raise ValueError(f"shares of the terms must not all be 0, got {shown(dict(wanted))}")
        if self._wanted and list(self._wanted) != list(wanted):
            raise ValueError(
                f"shares must name the same terms in every call, in the same order, got {', '.join(wanted)} "
                f"after {', '.join(self._wanted)}"
            )
        self._wanted = wanted

    def _reaches(self, terms: Mapping[str, Tensor], beside: Tensor | None) -> tuple[list[Reach], list[Any]]:
        """What each term's backward pass visits, and the nodes that are run backward after all of them.

        Raises:
            ValueError, RuntimeError: as :meth:`backward`.
        """
        leaves = _index_by_node(self._cuts)
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

    # --- weights that follow from the gradients -------------------------------------------------------------

    def _norms_at_layer(
        self,
        adaptive: Mapping[str, AdaptiveWeight],
        names: tuple[str, ...],
        at_cuts: list[list[Tensor | None]],
        at_parameters: list[dict[Tensor, Tensor]],
        cuts: list[_Cut],
        scale: Tensor | None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Norms of the gradients of the layer's weight: of the other terms together, and of the term."""
        weight = _weight_of(self._layer[0])

        def norm(selected: tuple[str, ...]) -> Tensor:
            present = []
            for cut, gradients in zip(cuts, at_cuts, strict=True):
                parts = [
                    g for name, g in zip(names, gradients, strict=True) if name in selected and g is not None
                ]
                if parts:
                    present.append((cut.tensor, sum(parts[1:], start=parts[0])))
            gradient = None
            if present:
                (gradient,) = torch.autograd.grad(
                    [tensor for tensor, _ in present], [weight], [gradient for _, gradient in present],
                    retain_graph=True, allow_unused=True,
                )  # fmt: skip
            if gradient is None:
                raise ValueError(
                    f"layer has no part in what was cut: no gradient of {', '.join(selected)} reaches its "
                    "weight"
                )
            gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            # Terms that pass the generator a second time reach the weight there, too.
            for name, of_term in zip(names, at_parameters, strict=True):
                if name in selected and weight in of_term:
                    gradient = gradient + of_term[weight]
            return torch.linalg.vector_norm(_averaged(gradient if scale is None else gradient / scale))

        norms: dict[tuple[str, ...], Tensor] = {}
        for name, weight_of_term in adaptive.items():
            for selected in (weight_of_term.relative_to, (name,)):
                key = tuple(selected)
                if key not in norms:
                    norms[key] = norm(key)
        return {name: (norms[tuple(each.relative_to)], norms[name,]) for name, each in adaptive.items()}

    def _adaptive_factors(
        self,
        adaptive: Mapping[str, AdaptiveWeight],
        names: tuple[str, ...],
        norms: Mapping[str, tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(T,): the adaptive weights, and 1 for terms whose gradient has its weight already; their ratios."""
        ratios: dict[str, Tensor] = {}
        factors = dict.fromkeys(names, torch.ones((), device=self.undefined.device))
        for name, (others, own) in norms.items():
            low, high = adaptive[name].clamp
            ratio = others / (own + adaptive[name].epsilon)
            ratios[name] = torch.where(ratio.isfinite(), ratio.clamp(low, high), 0.0)
            factors[name] = (adaptive[name].scale * ratios[name]).to(torch.float32)
            self.undefined += ~((own > 0) & (others > 0) & (own + others).isfinite())
        return torch.stack(list(factors.values())), ratios

    def _factors_of_shares(self, gram: Tensor, names: tuple[str, ...]) -> Tensor:
        """(T,): the weights that give each term its share, where its norm is at the average."""
        norms = gram.diagonal().sqrt().float().unbind()
        count = len(self._wanted)
        absent = torch.full((), torch.nan, device=gram.device)
        by_slot = torch.stack([norms[names.index(n)] if n in names else absent for n in self._wanted])
        finite = by_slot.isfinite()
        averages, counts = self.averages[:count], self.counts[:count]
        averages.copy_(torch.where(finite, averages * self.decay + by_slot, averages))
        counts.copy_(torch.where(finite, counts * self.decay + 1, counts))
        means = dict(zip(self._wanted, (averages / counts).unbind(), strict=True))

        sum_of_shares = sum(self._wanted[name] for name in names)
        directions = torch.stack([self._wanted[name] / sum_of_shares / means[name] for name in names])
        usable = directions.isfinite()
        directions = torch.where(usable, directions, 0.0)
        self.undefined += (~usable).sum()
        if self.total_norm is not None:
            return self.total_norm * directions
        wanted = gram.sum().clamp(min=0).sqrt().float()
        # Not by matrix products, which autocast would run in half precision.
        length = (directions[:, None] * gram.float() * directions).sum().clamp(min=0).sqrt()
        factor = wanted / length
        return torch.where(factor.isfinite(), factor, 0.0) * directions


# --- parts of the backward pass -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """A place at which the graph ends for the heads."""

    tensor: Tensor
    leaf: Tensor
    end: Tensor
    """A view of the leaf, which the heads get."""
    nodes: tuple[Any, ...]
    """Of the graph: the view's, and the one that accumulates the leaf's gradient."""
    measured: bool

    @classmethod
    def of(cls, tensor: Tensor, measured: bool) -> _Cut:
        leaf = tensor.detach().requires_grad_()
        # A view: hooks on a module's inputs, such as FlopCounterMode's, fail in autograd.grad on leaves.
        with torch.enable_grad():
            end = leaf.view_as(leaf)
        return cls(tensor, leaf, end, (end.grad_fn, get_gradient_edge(leaf).node), measured)


@dataclass(frozen=True)
class _Rest:
    """What is left of a backward pass once the heads have run."""

    tensors: list[Tensor]
    """The cut tensors, then the heads' trained parameters."""
    gradients: list[Tensor]
    shares: Shares
    scale: Tensor | None
    """What the gradients have been multiplied by."""


class _RestOfBackward(torch.autograd.Function):
    """A loss whose backward pass has been run down to the cut."""

    @staticmethod
    def forward(ctx: Any, rest: _Rest, *tensors: Tensor) -> Tensor:
        ctx.rest = rest
        return rest.shares.total.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("the loss of a LossBudget has no second gradient: create_graph must be False")
        rest = ctx.rest
        if rest is None:
            raise RuntimeError("the loss of a LossBudget can be run backward once")
        ctx.rest = None
        factor = grad if rest.scale is None else grad / rest.scale
        return (None, *(times(gradient, factor) for gradient in rest.gradients))


def _index_by_node(cuts: list[_Cut]) -> dict[Any, int]:
    return {node: index for index, cut in enumerate(cuts) for node in cut.nodes}


def times(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product, computed in float32 at least: a GradScaler's first scale, 65536, overflows float16."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return (gradient.to(wide) * factor.to(wide)).to(gradient.dtype)


def _gradients(
    terms: Mapping[str, Tensor],
    weights: Mapping[str, float | Tensor],
    reaches: list[Reach],
    cuts: list[_Cut],
    upstream: list[Any],
    scale: Tensor | None,
) -> tuple[list[list[Tensor | None]], list[dict[Tensor, Tensor]]]:
    """Each term's gradients, times its weight if that is given: at each cut by term, and those of parameters.

    Args:
        upstream: the nodes that are run backward after the heads.
    """
    at_cuts: list[list[Tensor | None]] = [[None] * len(terms) for _ in cuts]
    at_parameters: list[dict[Tensor, Tensor]] = [{} for _ in terms]
    # What a term shares with a later one is kept, and with it all that the term itself has saved: the terms
    # with the largest graphs come last.
    order = sorted(range(len(terms)), key=lambda position: len(reaches[position].nodes))
    kept = needed_again([*(reaches[position].nodes for position in order), upstream])
    names = list(terms)
    for position, keeps_graph in zip(order, kept, strict=False):
        name, reached = names[position], reaches[position]
        term = terms[name]
        leaves = [cuts[index].leaf for index in reached.leaves]
        with torch.enable_grad():  # the weighted scale may be a float16, the scale itself may not
            root = term.to(torch.promote_types(term.dtype, torch.float32))
        seed = torch.ones_like(root) if scale is None else scale.to(root.dtype)
        with clear_error_about_donated_buffers():
            found = torch.autograd.grad(
                root,
                [*leaves, *reached.parameters],
                weights.get(name, 1.0) * seed,
                retain_graph=keeps_graph,
                allow_unused=True,
            )
        for index, gradient in zip(reached.leaves, found, strict=False):
            at_cuts[index][position] = gradient
        # Where all weights are known, gradients of parameters need not be kept per term.
        sums = at_parameters[position if len(weights) < len(terms) else 0]
        for parameter, gradient in zip(reached.parameters, found[len(leaves) :], strict=True):
            if gradient is not None:
                sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return at_cuts, at_parameters


def _sweep(
    at_cuts: list[list[Tensor | None]], cuts: list[_Cut], count: int, factors: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    """The gram matrix at all measured cuts together, and the weighted sum at each; None without gradients."""
    gram: Tensor | None = None
    sums: list[Tensor | None] = []
    for cut, gradients in zip(cuts, at_cuts, strict=True):
        present = [gradient for gradient in gradients if gradient is not None]
        if not present:
            sums.append(None)
            continue
        if len(present) < count:
            zero = torch.zeros_like(present[0])
            present = [zero if gradient is None else gradient for gradient in gradients]
        wide = torch.float64 if present[0].dtype == torch.float64 else torch.float32
        products, total = gradient_budget(present, None if factors is None else factors.to(wide))
        if cut.measured:
            gram = products if gram is None else gram + products
        sums.append(total)
    if gram is None:
        gram = torch.zeros((count, count), device=cuts[0].leaf.device)
    return gram, sums


def _summed(by_term: list[dict[Tensor, Tensor]], factors: Tensor | None) -> dict[Tensor, Tensor]:
    """The weighted gradients of the heads' parameters, summed over the terms."""
    sums: dict[Tensor, Tensor] = {}
    for position, gradients in enumerate(by_term):
        for parameter, gradient in gradients.items():
            if factors is not None:
                gradient = times(gradient, factors[position])
            sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
    return sums


def _averaged(values: Tensor, power: int = 1) -> Tensor:
    """What the joined batch of all processes has, from what this one has; divided by the count to a power."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        values = values.clone(memory_format=torch.contiguous_format)  # autograd may hold this very tensor
        distributed.all_reduce(values)
        values = values / distributed.get_world_size() ** power
    return values


def _norms_at_cut(
    adaptive: Mapping[str, AdaptiveWeight], names: tuple[str, ...], gram: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Norms of the gradients at the cut: of the other terms together, and of the term."""
    norms = {}
    for name, weight in adaptive.items():
        others = [names.index(other) for other in weight.relative_to]
        square = torch.stack([gram[i, j] for i in others for j in others]).sum()
        own = names.index(name)
        norms[name] = (square.clamp(min=0).sqrt(), gram[own, own].sqrt())
    return norms


def _as_tensor(weight: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        return weight.detach().clone()  # which may be a schedule's, and change
    return torch.full((), weight, dtype=like.dtype, device=like.device)


# --- checks -------------------------------------------------------------------------------------------------


def _check_loss(name: str, value: object) -> None:
    check_floating(name, value)
    if cast(Tensor, value).dim() != 0:
        raise ValueError(f"{name} must be a 0-d tensor: reduce it to a mean, got {described(value)}")


def _check_weights(terms: Mapping[str, Tensor], weights: object) -> None:
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must map the terms' names to weights, got {described(weights)}")
    if set(weights) != set(terms):
        missing, unknown = set(terms) - set(weights), set(weights) - set(terms)
        wrong = [f"none for {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"some for {', '.join(map(str, unknown))}"] if unknown else []
        given = described(dict(weights))
        raise ValueError(f"weights must name the same terms as terms, got {' and '.join(wrong)} in {given}")
    for name, weight in weights.items():
        if not isinstance(weight, AdaptiveWeight):
            as_factor(f"weights[{name!r}]", weight)
            if isinstance(weight, Tensor) and weight.requires_grad:
                raise ValueError(
                    f"weights[{name!r}] must be detached, got {described(weight)} that requires grad"
                )
            continue
        for other in weight.relative_to:
            if other not in terms or other == name or isinstance(weights[other], AdaptiveWeight):
                raise ValueError(
                    f"relative_to of weights[{name!r}] must name other terms whose weights are numbers, got "
                    f"{other!r}"
                )


def _sorted_weights(
    names: tuple[str, ...], weights: Mapping[str, Weight] | None, shares: Mapping[str, float] | None
) -> tuple[dict[str, float | Tensor], dict[str, AdaptiveWeight]]:
    """(given, adaptive): the weights that are known beforehand, and those that are computed from others."""
    if shares is not None:
        return {}, {}
    given: dict[str, float | Tensor] = {}
    adaptive: dict[str, AdaptiveWeight] = {}
    for name in names:
        weight = 1.0 if weights is None else weights[name]
        if isinstance(weight, AdaptiveWeight):
            adaptive[name] = weight
        else:
            given[name] = as_factor("weight", weight)
    return given, adaptive


def _checked_layer(layer: object) -> nn.Module | nn.Parameter:
    check_instance("layer", layer, (nn.Module, nn.Parameter), "a module with a weight, or a parameter")
    _weight_of(cast(nn.Module, layer))
    return cast(nn.Module, layer)


def _weight_of(layer: nn.Module | nn.Parameter) -> nn.Parameter:
    """The layer's weight, looked up anew: it may be replaced."""
    weight = layer if isinstance(layer, nn.Parameter) else getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"layer must have a parameter `weight` (of a parametrized layer, pass the parameter itself), got "
            f"{type(layer).__name__}"
        )
    return weight
