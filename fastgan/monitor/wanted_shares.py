"""Weights that give each loss term a wanted share of the generator's gradient.

The balancer of Defossez et al., "High Fidelity Neural Audio Compression", 2022: a term's weight is its share
over the exponential average of its gradient's norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.ops._checks import as_not_negative, check_instance, described, shown

MOST_TERMS = 16


class Averages(NamedTuple):
    """Exponential averages of the norms: sums and weights, by the position of a name among the shares."""

    sums: Tensor
    counts: Tensor
    decay: float

    def add(self, norms: Tensor) -> Tensor:
        """The averages after these norms, (N,); one that is not finite leaves its average as it was."""
        finite = norms.isfinite()
        sums, counts = self.sums[: len(norms)], self.counts[: len(norms)]
        sums.copy_(torch.where(finite, sums * self.decay + norms, sums))
        counts.copy_(torch.where(finite, counts * self.decay + 1, counts))
        return sums / counts


def checked_shares(
    shares: object, terms: Mapping[str, Tensor], earlier: Mapping[str, float]
) -> dict[str, float]:
    """The wanted shares as numbers.

    Args:
        earlier: those of the call before; empty for the first.

    Raises:
        TypeError, ValueError: no shares, or not one for each of the terms; other names than before.
    """
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
    if earlier and list(earlier) != list(wanted):
        raise ValueError(
            f"shares must name the same terms in every call, in the same order, got {', '.join(wanted)} "
            f"after {', '.join(earlier)}"
        )
    return wanted


def factors_of_shares(
    wanted: Mapping[str, float],
    names: tuple[str, ...],
    gram: Tensor,
    averages: Averages,
    total_norm: float | None,
) -> tuple[Tensor, Tensor]:
    """The weights that give each term its share, where its norm is at the average.

    Args:
        wanted: shares by name; those of terms that are absent from this step do not count.
        names: of the T terms.
        gram: (T, T), the products of their gradients.
        averages: of the norms, by the order of `wanted`; this step's are added.
        total_norm: of the weighted sum's gradient where all norms are at their averages; None: the norm that
            the unweighted sum's has in this step.

    Returns:
        (weights, undefined): (T,), and how many of them, 0-d, had nothing to be computed from and are 0.
    """
    norms = gram.diagonal().sqrt().float().unbind()
    absent = torch.full((), torch.nan, device=gram.device)
    means = averages.add(torch.stack([norms[names.index(n)] if n in names else absent for n in wanted]))
    mean_of = dict(zip(wanted, means.unbind(), strict=True))

    sum_of_shares = sum(wanted[name] for name in names)
    directions = torch.stack([wanted[name] / sum_of_shares / mean_of[name] for name in names])
    usable = directions.isfinite()
    undefined = (~usable).sum()
    directions = torch.where(usable, directions, 0.0)
    if total_norm is not None:
        return total_norm * directions, undefined
    norm = gram.sum().clamp(min=0).sqrt().float()
    # Not by matrix products, which autocast would run in half precision.
    length = (directions[:, None] * gram.float() * directions).sum().clamp(min=0).sqrt()
    factor = norm / length
    return torch.where(factor.isfinite(), factor, 0.0) * directions, undefined
