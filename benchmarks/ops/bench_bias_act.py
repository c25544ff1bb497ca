"""Bias + activation + gain + clamp against PyTorch's operations, one after the other and compiled.

Run by `fastgan bench bias_act`. "eager" is the formula of StyleGAN's plug-in where that does not run: a pass
over memory for each of bias, activation, gain and clamp. "forward" is without a gradient, "full" forward and
backward, "double" forward, backward with a graph and the gradient of that with respect to the incoming
gradient alone, and "r1" the same with respect to everything, as R1 needs it. torch.compile cannot
differentiate a compiled activation twice.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.ops import bias_act
from fastgan.ops.bias_act import GAINS

SIZES = {"cpu": [(16, 64, 64, 64), (16, 256, 16, 16)], "cuda": [(32, 64, 256, 256), (32, 256, 32, 32)]}
PROVIDERS = ["fastgan", "eager", "compiled"]
# forward: read x, write y; full: also read a gradient, write one; double and r1: also read two tangents and
# write two results.
FLOOR_TENSORS = {"forward": 2, "full": 4, "double": 8, "r1": 8}
ACTIVATIONS: dict[str, tuple[float | None, Callable[[Tensor], Tensor]]] = {
    "lrelu": (256.0, lambda x: F.leaky_relu(x, 0.2)),
    "swish": (None, lambda x: torch.sigmoid(x) * x),
    "tanh": (None, torch.tanh),
}
"""The clamp and the formula of each."""


def setup(provider: str, act: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The provider's function of x and bias."""
    clamp, function = ACTIVATIONS[act]

    def eager(x: Tensor, bias: Tensor) -> Tensor:
        y = function(x + bias.reshape(1, -1, 1, 1))
        if GAINS[act] != 1:
            y = y * GAINS[act]
        return y if clamp is None else y.clamp(-clamp, clamp)

    if provider == "fastgan":
        return lambda x, bias: bias_act(x, bias, act=act, clamp=clamp)
    return eager if provider == "eager" else torch.compile(eager, fullgraph=True)


@pytest.mark.parametrize("mode", list(FLOOR_TENSORS))
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("size_index", [0, 1])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act(measure, device, act, size_index, provider, mode):
    if provider == "compiled" and mode in ("double", "r1"):
        pytest.skip("cannot be differentiated twice")
    size = SIZES[device][size_index]
    x = torch.randn(size, device=device, requires_grad=True)
    bias = torch.randn(size[1], device=device, requires_grad=True)
    gradient = torch.randn(size, device=device, requires_grad=mode in ("double", "r1"))
    tangent = torch.randn(size, device=device)
    function = setup(provider, act)

    def forward() -> Tensor:
        return function(x, bias)

    def without_gradient() -> None:
        with torch.no_grad():
            forward()

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
        op="bias_act",
        provider=provider,
        size=f"{act} {'x'.join(str(length) for length in size)}",
        mode=mode,
        run={"forward": without_gradient, "full": full, "double": double, "r1": r1}[mode],
        floor_bytes=FLOOR_TENSORS[mode] * x.numel() * x.element_size(),
        forward=None if mode == "forward" else forward,
        inputs=(x, bias),
    )
