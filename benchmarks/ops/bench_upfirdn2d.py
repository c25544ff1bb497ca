"""upfirdn2d against the same by convolutions, eager and under torch.compile.

Run by `fastgan bench upfirdn2d`. Layers of StyleGAN2 (4 x 4 taps) and of StyleGAN3 (12 taps along each axis).
"r1" is forward, backward with a graph, and the gradient of that: the double backward of a penalty. What
torch.compile compiles as one function cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastgan.bench.ops import by_convolution
from fastgan.ops import setup_filter, upfirdn2d

LINE, PLANE = by_convolution.low_pass(12, 2), setup_filter([1, 3, 3, 1])
LAYERS: dict[str, tuple[Tensor, dict[str, Any]]] = {
    "up 2, 12 taps": (LINE, {"up": 2, "padding": (6, 5, 6, 5), "gain": 4.0}),
    "down 2, 12 taps": (LINE, {"down": 2, "padding": (5, 5, 5, 5)}),
    "up 2, 4x4": (PLANE, {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0}),
    "down 2, 4x4": (PLANE, {"down": 2, "padding": (1, 1, 1, 1)}),
    "4x4": (PLANE, {"padding": (2, 1, 2, 1)}),
}
SHAPE = {"cpu": (4, 32, 64, 64), "cuda": (16, 128, 256, 256)}
PROVIDERS = ["fastgan", "eager", "compiled"]
# forward reads x and writes y; backward reads a gradient and writes one; each order once more
FLOOR_PASSES = {"forward": 1, "full": 2, "r1": 4}


def setup(provider: str) -> Callable[..., Tensor]:
    """The provider's upfirdn2d(x, f, **options)."""
    eager: Callable[..., Tensor] = by_convolution.upfirdn2d
    return {"fastgan": upfirdn2d, "eager": eager, "compiled": torch.compile(eager, fullgraph=True)}[provider]


@pytest.mark.parametrize("mode", list(FLOOR_PASSES))
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("layer", list(LAYERS))
def test_upfirdn2d(measure, device, layer, provider, mode):
    if provider == "compiled" and mode == "r1":
        pytest.skip("cannot be differentiated twice")
    f, options = LAYERS[layer]
    f, function = f.to(device), setup(provider)
    x = torch.randn(SHAPE[device], device=device, requires_grad=True)
    with torch.no_grad():
        y = function(x, f, **options)
    gradient = torch.randn_like(y).requires_grad_(mode == "r1")
    tangent = torch.randn_like(x)

    def forward() -> Tensor:
        return function(x, f, **options)

    @torch.no_grad()
    def alone() -> None:
        forward()

    def full() -> None:
        x.grad = None
        forward().backward(gradient)

    def r1() -> None:
        gradient.grad = x.grad = None
        (grad_x,) = torch.autograd.grad(forward(), x, gradient, create_graph=True)
        grad_x.backward(tangent)

    measure(
        op="upfirdn2d",
        provider=provider,
        size=f"{layer}, {'x'.join(str(length) for length in x.shape)}",
        mode=mode,
        run={"forward": alone, "full": full, "r1": r1}[mode],
        floor_bytes=FLOOR_PASSES[mode] * (x.numel() + y.numel()) * x.element_size(),
        forward=forward if mode != "forward" else None,
        inputs=(x,),
    )
