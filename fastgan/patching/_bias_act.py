"""`bias_act` of StyleGAN's code, which others have a copy of."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.ops import bias_leaky_relu
from fastgan.patching._declare import Replacement
from fastgan.patching._probes import numbers, with_gradients

# Values of the published table of activations for "lrelu".
SLOPE, GAIN = 0.2, 2**0.5


def bias_act(module: str) -> Replacement:
    """Of the implementation in plain PyTorch, which runs on the CPU and where the plugin is not wanted."""
    return Replacement(
        module, "_bias_act_ref", adapt=_adapted, probe=_probe,
        serves='act="lrelu" in float32 and float64, where the CUDA plugin does not run',
    )  # fmt: skip


class _WithZeros(torch.autograd.Function):
    """The gradient itself, whose own gradient at the bias is 0.

    The activation's gradient does not depend on the bias. PyTorch's composition says so by zeros, with which
    an optimizer steps, and ours by None, which it skips: R1's backward would leave other moments in Adam.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (bias,) = ctx.saved_tensors
        return grad, torch.zeros_like(bias)


def _adapted(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def _bias_act_ref(
        x: Tensor,
        b: Tensor | None = None,
        dim: int = 1,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
    ) -> Tensor:
        ours = (
            act == "lrelu"
            and x.dtype in (torch.float32, torch.float64)
            and x.dim() > 1
            and x.numel() > 0
            and (b is None or (dim == 1 and b.dtype == x.dtype and b.shape == x.shape[1:2]))
            and (clamp is None or clamp > 0)
        )
        if not ours:
            return original(x=x, b=b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
        slope, factor = SLOPE if alpha is None else alpha, GAIN if gain is None else gain
        y = bias_leaky_relu(x, b, slope=slope, gain=factor, clamp=clamp)
        if b is not None and b.requires_grad and y.requires_grad:
            y.register_hook(lambda grad: _WithZeros.apply(grad, b) if torch.is_grad_enabled() else grad)
        return y

    return _bias_act_ref


def _probe(function: Any) -> Iterator[Tensor]:
    x, b = numbers(2, 3, 4, 4), numbers(3, seed=1)
    yield from with_gradients(lambda x, b: function(x=x, b=b, act="lrelu"), x, b)
    yield from with_gradients(
        lambda x, b: function(x=x, b=b, act="lrelu", alpha=0.1, gain=2.0, clamp=1.5), x, b
    )
