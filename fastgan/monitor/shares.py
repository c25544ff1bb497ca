"""Norms, shares and cosines of the gradients of loss terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastgan.ops._checks import check_one_of


class Shares:
    r"""What each loss term contributes to the gradient at the generator's output, see :class:`LossBudget`.

    With :math:`g_i` the gradient of term *i* times its weight, at all measured cuts together:

    .. math::
        \text{norm}_i = \lVert g_i \rVert, \qquad
        \text{share}_i = \frac{\lVert g_i \rVert}{\sum_j \lVert g_j \rVert}, \qquad
        \text{cosine}_{ij} = \frac{\langle g_i, g_j \rangle}{\lVert g_i \rVert \lVert g_j \rVert}

    Everything is a detached 0-d tensor on the device, float32 or better: reading it does not wait for the
    device, `.item()` does. Where norms are 0, shares and cosines are 0. A gradient that is not finite makes
    its norm, share and cosines not finite; other shares are then 0 or NaN.

    Attributes:
        names: the terms, in their order.
        norm: of each term's weighted gradient, by name.
        share: in [0, 1] by name; their sum is 1.
        weight: by name: as given, as computed by an :class:`AdaptiveWeight`, or that gives the wanted share.
        ratio: of each :class:`AdaptiveWeight`, by name: its clamped ratio before the scale, which may be 0.
        gram: (T, T), the inner products of the weighted gradients.
        total: the weighted sum of the terms' values in this process.
    """

    def __init__(
        self,
        gram: Tensor,
        weights: Mapping[str, Tensor],
        total: Tensor,
        ratios: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.names = names = tuple(weights)
        self.weight = weights
        self.ratio = {} if ratios is None else ratios
        self.gram = gram
        self.total = total
        self._position = {name: index for index, name in enumerate(names)}
        norms = gram.diagonal().sqrt()
        sum_of_norms = norms.sum()
        self.norm = self._by_name(norms)
        self.share = self._by_name(norms / torch.where(sum_of_norms == 0, 1.0, sum_of_norms))
        inverse = torch.where(norms == 0, 0.0, norms.reciprocal())
        # Scaled in two steps: the product of two small norms would underflow.
        self._cosines = inverse[:, None] * gram * inverse

    def _by_name(self, values: Tensor) -> Mapping[str, Tensor]:
        return dict(zip(self.names, values.unbind(), strict=True))

    def cosine(self, first: str, second: str) -> Tensor:
        """Cosine of the angle between two terms' gradients, in [-1, 1]: below 0 they work against each other.

        Raises:
            ValueError: a name that is not one of the terms'.
        """
        check_one_of("first", first, self.names)
        check_one_of("second", second, self.names)
        return self._cosines[self._position[first], self._position[second]]

    def cosines(self) -> dict[tuple[str, str], Tensor]:
        """The cosines of all pairs of different terms, by their names."""
        return {
            (first, second): self._cosines[i, j]
            for i, first in enumerate(self.names)
            for j, second in enumerate(self.names[i + 1 :], start=i + 1)
        }

    def __repr__(self) -> str:
        """Names only: values would wait for the device."""
        return f"Shares of {', '.join(self.names)}"
