"""Inner products of gradients and their weighted sum, in plain PyTorch. See `fastgan.ops.gradient_budget`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradient_budget(gradients: Sequence[Tensor], weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The (T, T) inner products of T gradients, and sum_t weights_t gradients_t.

    In float32, or float64 for float64; the sum is then rounded to the gradients' dtype.
    """
    dtype, indices = gradients[0].dtype, range(len(gradients))
    wide = [gradient.to(torch.promote_types(dtype, torch.float32)) for gradient in gradients]
    products = {(i, j): (wide[i] * wide[j]).sum() for i in indices for j in indices if i <= j}
    gram = torch.stack([products[min(i, j), max(i, j)] for i in indices for j in indices])
    terms = wide if weights is None else [weights[i] * wide[i] for i in indices]
    return gram.view(len(wide), len(wide)), sum(terms[1:], start=terms[0]).to(dtype)
