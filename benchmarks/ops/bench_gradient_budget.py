"""Inner products of gradients and their weighted sum against eager PyTorch, torch.compile and norms alone.

Run by `fastgan bench gradient_budget`. "norms alone" computes less: a norm for each gradient, and the sum.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.ops import gradient_budget

# The number of gradients, and the size of each.
CASES = {
    "cpu": [(4, (4, 3, 400, 400)), (4, (16, 3, 64, 64)), (8, (4, 3, 400, 400))],
    "cuda": [(4, (4, 3, 400, 400)), (4, (32, 3, 400, 400)), (8, (32, 3, 400, 400))],
}
PROVIDERS = ["fastgan", "eager", "compiled", "norms alone"]


def stacked(gradients: list[Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix with one gradient in each row, times its transpose and times the weights."""
    rows = torch.stack([gradient.flatten() for gradient in gradients])
    return rows @ rows.T, (weights @ rows).view_as(gradients[0])


def norms_alone(gradients: list[Tensor], weights: Tensor) -> tuple[list[Tensor], Tensor]:
    total = torch.zeros_like(gradients[0])
    for gradient, weight in zip(gradients, weights.unbind(), strict=True):
        total.addcmul_(gradient, weight)
    return [gradient.norm() for gradient in gradients], total


def setup(provider: str) -> Callable[[list[Tensor], Tensor], object]:
    """The provider's budget(gradients, weights)."""
    return {
        "fastgan": gradient_budget,
        "eager": stacked,
        "compiled": torch.compile(stacked, fullgraph=True),
        "norms alone": norms_alone,
    }[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("case_index", [0, 1, 2])
def test_gradient_budget(measure, device, case_index, provider):
    count, size = CASES[device][case_index]
    gradients = [torch.randn(size, device=device) for _ in range(count)]
    weights = torch.rand(count, device=device)
    budget = setup(provider)
    measure(
        op="gradient_budget",
        provider=provider,
        size=f"{count} of {'x'.join(map(str, size))}",
        mode="forward",
        run=lambda: budget(gradients, weights),
        # reads each gradient and writes their sum
        floor_bytes=(count + 1) * gradients[0].numel() * gradients[0].element_size(),
    )
