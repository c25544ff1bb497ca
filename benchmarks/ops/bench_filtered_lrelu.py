"""filtered_lrelu against the same by convolutions, eager and under torch.compile.

Run by `fastgan bench filtered_lrelu`. The layers of StyleGAN3-T: twice the rate, and four times where the
resolution grows. "r1" is forward, backward with a graph, and the gradient of that: the double backward of a
penalty or of path lengths. What torch.compile compiles as one function cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastgan.bench.ops import by_convolution
from fastgan.ops import filtered_lrelu

# Up, taps of the upsampling filter, padding before and after, and the shape on either device.
LAYERS = {
    "up 2, down 2": (2, 12, (9, 9), {"cpu": (2, 32, 52, 52), "cuda": (16, 256, 148, 148)}),
    "up 4, down 2": (4, 24, (13, 14), {"cpu": (2, 32, 36, 36), "cuda": (16, 256, 84, 84)}),
}
PROVIDERS = ["fastgan", "eager", "compiled"]
# forward reads x and writes y; backward reads a gradient and writes one; each order once more
FLOOR_PASSES = {"forward": 1, "full": 2, "r1": 4}


def setup(provider: str) -> Callable[..., Tensor]:
    """The provider's filtered_lrelu(x, fu, fd, b, up, down, padding, clamp=)."""
    eager: Callable[..., Tensor] = by_convolution.filtered_lrelu
    return {"fastgan": filtered_lrelu, "eager": eager, "compiled": torch.compile(eager, fullgraph=True)}[
        provider
    ]


@pytest.mark.parametrize("mode", list(FLOOR_PASSES))
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("layer", list(LAYERS))
def test_filtered_lrelu(measure, device, layer, provider, mode):
    if provider == "compiled" and mode == "r1":
        pytest.skip("cannot be differentiated twice")
    up, taps, (before, after), shapes = LAYERS[layer]
    fu, fd = by_convolution.low_pass(taps, up).to(device), by_convolution.low_pass(12, 2).to(device)
    x = torch.randn(shapes[device], device=device, requires_grad=True)
    b = torch.randn(x.shape[1], device=device, requires_grad=True)
    function, margins = setup(provider), (before, after, before, after)

    def forward() -> Tensor:
        return function(x, fu, fd, b, up, 2, margins, clamp=256.0)

    with torch.no_grad():
        y = forward()
    gradient = torch.randn_like(y).requires_grad_(mode == "r1")
    tangent = torch.randn_like(x)

    @torch.no_grad()
    def alone() -> None:
        forward()

    def full() -> None:
        x.grad = b.grad = None
        forward().backward(gradient)

    def r1() -> None:
        gradient.grad = x.grad = b.grad = None
        (grad_x,) = torch.autograd.grad(forward(), x, gradient, create_graph=True)
        grad_x.backward(tangent)

    measure(
        op="filtered_lrelu",
        provider=provider,
        size=f"{layer}, {'x'.join(str(length) for length in x.shape)}",
        mode=mode,
        run={"forward": alone, "full": full, "r1": r1}[mode],
        floor_bytes=FLOOR_PASSES[mode] * (x.numel() + y.numel()) * x.element_size(),
        forward=forward if mode != "forward" else None,
        inputs=(x, b),
    )
