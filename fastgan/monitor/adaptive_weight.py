"""Weights of loss terms that follow from their gradients' norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from fastgan.monitor._heads import Cut, averaged
from fastgan.ops._checks import (
    as_factor,
    as_not_negative,
    as_numbers,
    check_instance,
    described,
    shown,
)

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


# --- ratios of norms ----------------------------------------------------------------------------------------


def norms_at_layer(
    weight: nn.Parameter,
    adaptive: Mapping[str, AdaptiveWeight],
    names: tuple[str, ...],
    at_cuts: list[list[Tensor | None]],
    at_parameters: list[dict[Tensor, Tensor]],
    cuts: list[Cut],
    scale: Tensor | None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Norms of the gradients of the layer's weight: of the other terms together, and of the term."""

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
                f"layer has no part in what was cut: no gradient of {', '.join(selected)} reaches its weight"
            )
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        # Terms that pass the generator a second time reach the weight there, too.
        for name, of_term in zip(names, at_parameters, strict=True):
            if name in selected and weight in of_term:
                gradient = gradient + of_term[weight]
        return torch.linalg.vector_norm(averaged(gradient if scale is None else gradient / scale))

    norms: dict[tuple[str, ...], Tensor] = {}
    for name, weight_of_term in adaptive.items():
        for selected in (weight_of_term.relative_to, (name,)):
            key = tuple(selected)
            if key not in norms:
                norms[key] = norm(key)
    return {name: (norms[tuple(each.relative_to)], norms[name,]) for name, each in adaptive.items()}


def norms_at_cut(
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


def adaptive_factors(
    adaptive: Mapping[str, AdaptiveWeight],
    names: tuple[str, ...],
    norms: Mapping[str, tuple[Tensor, Tensor]],
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """(factors, ratios, undefined).

    Factors (T,) are the adaptive weights, and 1 for terms whose gradient has its weight already. Ratios are
    those of the adaptive weights before their scales. Undefined counts weights with a norm of 0 or one that
    is not finite.
    """
    device = next(iter(norms.values()))[1].device
    factors, ratios = dict.fromkeys(names, torch.ones((), device=device)), {}
    undefined = torch.zeros((), dtype=torch.int64, device=device)
    for name, (others, own) in norms.items():
        low, high = adaptive[name].clamp
        ratio = others / (own + adaptive[name].epsilon)
        ratios[name] = torch.where(ratio.isfinite(), ratio.clamp(low, high), 0.0)
        factors[name] = (adaptive[name].scale * ratios[name]).to(torch.float32)
        undefined += ~((own > 0) & (others > 0) & (own + others).isfinite())
    return torch.stack(list(factors.values())), ratios, undefined


# --- checks -------------------------------------------------------------------------------------------------


def check_weights(terms: Mapping[str, Tensor], weights: object) -> None:
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


def sorted_weights(
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


def checked_layer(layer: object) -> nn.Module | nn.Parameter:
    check_instance("layer", layer, (nn.Module, nn.Parameter), "a module with a weight, or a parameter")
    weight_of(cast(nn.Module, layer))
    return cast(nn.Module, layer)


def weight_of(layer: nn.Module | nn.Parameter) -> nn.Parameter:
    """The layer's weight, looked up anew: it may be replaced."""
    weight = layer if isinstance(layer, nn.Parameter) else getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"layer must have a parameter `weight` (of a parametrized layer, pass the parameter itself), got "
            f"{type(layer).__name__}"
        )
    return weight
