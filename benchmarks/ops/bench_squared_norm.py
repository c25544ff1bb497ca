"""The squared norm of every sample, with its gradient, against eager PyTorch and torch.compile.

Run by `fastgan bench squared_norm`. "full" is a gradient penalty's use of it: forward and backward, without
the discriminator.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.ops import squared_norm

SIZES = {"cpu": [(16, 3, 64, 64), (4, 3, 400, 400)], "cuda": [(32, 3, 64, 64), (32, 3, 256, 256)]}
PROVIDERS = ["fastgan", "eager reference", "compiled reference"]
# forward reads x; backward reads it again and writes a gradient
FLOOR_TENSORS = {"full": 3, "forward": 1}


def setup(provider: str) -> Callable[[Tensor], Tensor]:
    """The provider's norm(x)."""

    def reference(x: Tensor) -> Tensor:
        return squared_norm(x, backend="reference")

    return {
        "fastgan": squared_norm,
        "eager reference": reference,
        "compiled reference": torch.compile(reference, fullgraph=True),
    }[provider]


@pytest.mark.parametrize("mode", ["full", "forward"])
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
def test_squared_norm(measure, device, size_index, provider, mode):
    size = SIZES[device][size_index]
    x = torch.randn(size, device=device, requires_grad=True)
    norm = setup(provider)

    def forward() -> Tensor:
        return norm(x).mean()

    def full() -> None:
        x.grad = None
        forward().backward()

    @torch.no_grad()
    def forward_only() -> Tensor:
        return norm(x)

    measure(
        op="squared_norm",
        provider=provider,
        size="x".join(str(length) for length in size),
        mode=mode,
        run=full if mode == "full" else forward_only,
        floor_bytes=FLOOR_TENSORS[mode] * x.numel() * x.element_size(),
        forward=forward if mode == "full" else None,
        inputs=(x,),
    )
