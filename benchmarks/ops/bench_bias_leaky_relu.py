"""Bias + leaky ReLU against eager PyTorch and torch.compile: one pass each way, and the double backward.

Run by `fastgan bench bias_leaky_relu`. "double" is forward, backward with a graph, and the gradient of that
with respect to the incoming gradient only; "r1" is the same with respect to everything, as R1 needs it. There
eager PyTorch also writes a zero gradient of its input, sums it for the bias and, in a network, propagates it
through the preceding convolution. torch.compile cannot differentiate a compiled activation twice.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.ops import bias_leaky_relu

SIZES = {"cpu": [(16, 64, 64, 64), (16, 256, 16, 16)], "cuda": [(32, 64, 256, 256), (32, 256, 32, 32)]}
PROVIDERS = ["fastgan", "eager", "compiled"]
# full: read x, write y, read a gradient, write one; double: also read two tangents and write two results
FLOOR_TENSORS = {"full": 4, "double": 8, "r1": 8}


def setup(provider: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The provider's activation(x, bias)."""

    def eager(x: Tensor, bias: Tensor) -> Tensor:
        return F.leaky_relu(x + bias[:, None, None], 0.2)

    return {"fastgan": bias_leaky_relu, "eager": eager, "compiled": torch.compile(eager, fullgraph=True)}[
        provider
    ]


@pytest.mark.parametrize("mode", list(FLOOR_TENSORS))
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
def test_bias_leaky_relu(measure, device, size_index, provider, mode):
    if provider == "compiled" and mode != "full":
        pytest.skip("cannot be differentiated twice")
    size = SIZES[device][size_index]
    x = torch.randn(size, device=device, requires_grad=True)
    bias = torch.randn(size[1], device=device, requires_grad=True)
    gradient = torch.randn(size, device=device, requires_grad=mode != "full")
    tangent = torch.randn(size, device=device)
    activation = setup(provider)

    def forward() -> Tensor:
        return activation(x, bias)

    def full() -> None:
        x.grad = bias.grad = None
        forward().backward(gradient)

    def double() -> None:
        gradient.grad = None
        grad_x, _ = torch.autograd.grad(forward(), (x, bias), gradient, create_graph=True)
        grad_x.backward(tangent, inputs=[gradient])

    def r1() -> None:
        gradient.grad = x.grad = bias.grad = None
        (grad_x,) = torch.autograd.grad(forward(), x, gradient, create_graph=True)
        grad_x.backward(tangent)

    measure(
        op="bias_leaky_relu",
        provider=provider,
        size="x".join(str(length) for length in size),
        mode=mode,
        run={"full": full, "double": double, "r1": r1}[mode],
        floor_bytes=FLOOR_TENSORS[mode] * x.numel() * x.element_size(),
        forward=forward,
        inputs=(x, bias),
    )
