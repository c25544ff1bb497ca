"""`upfirdn2d` and `fused_leaky_relu` of rosinality's stylegan2-pytorch, of which others have a copy.

Both are functions of a module that compiles a CUDA extension while it is imported, or that BasicSR's
installation has compiled, or nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan import ops
from fastgan.compat import rosinality
from fastgan.patching._bias_act import DTYPES, are_finite
from fastgan.patching._declare import Replacement
from fastgan.patching._probes import numbers, with_gradients

SERVES = "in float32 and float64, on any device"

# --- the extensions ---------------------------------------------------------------------------------------


def _fused_bias_act(
    input: Tensor, bias: Tensor, refer: Tensor, act: int, grad: int, alpha: float, scale: float
) -> Tensor:
    """The extension's function: act 1 is linear, 3 leaky ReLU, whose slope at order `grad` is of `refer`."""
    x = input
    if bias.numel():
        x = x + bias.reshape(-1, *(1,) * (x.dim() - 2))
    if grad == 2:
        return torch.zeros_like(x)
    if act == 3:
        x = F.leaky_relu(x, alpha) if grad == 0 else torch.where(refer > 0, x, x * alpha)
    return x * scale


def _upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up_x: int,
    up_y: int,
    down_x: int,
    down_y: int,
    pad_x0: int,
    pad_x1: int,
    pad_y0: int,
    pad_y1: int,
) -> Tensor:
    """The extension's function, of planes that have their channels last."""
    padding = pad_x0, pad_x1, pad_y0, pad_y1
    y: Tensor = ops.upfirdn2d(input.movedim(3, 1), kernel, (up_x, up_y), (down_x, down_y), padding)
    return y.movedim(1, 3).contiguous()


FUSED_BIAS_ACT = SimpleNamespace(fused_bias_act=_fused_bias_act)
UPFIRDN2D = SimpleNamespace(upfirdn2d=_upfirdn2d)

# --- their functions --------------------------------------------------------------------------------------


def upfirdn2d(module: str, extension: str, *, takes_pairs: bool = False) -> Replacement:
    """Of any copy.

    Args:
        extension: the name that the module has its extension by.
        takes_pairs: whether factors may be (x, y), and pads have four numbers, as in rosinality's.
    """

    def adapted(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def upfirdn2d(
            input: Tensor,
            kernel: Tensor,
            up: int | Sequence[int] = 1,
            down: int | Sequence[int] = 1,
            pad: Sequence[int] = (0, 0),
        ) -> Tensor:
            is_served = _are_maps(input, kernel) and (takes_pairs or len(pad) == 2)
            is_served = is_served or not _runs(original, extension, input, on_cpu=True)
            function: Callable[..., Tensor] = rosinality.upfirdn2d if is_served else original
            return function(input, kernel, up=up, down=down, pad=pad)

        return upfirdn2d

    def probe(function: Any) -> Iterator[Tensor]:
        with _on_the_cpu(function, extension, UPFIRDN2D):
            yield from _probe_upfirdn2d(function, takes_pairs)

    return Replacement(module, "upfirdn2d", adapt=adapted, probe=probe, serves=SERVES)


def fused_leaky_relu(module: str) -> Replacement:
    """Rosinality's, which has 0.2 for the slope on the CPU, whatever it is given."""

    def adapted(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def fused_leaky_relu(
            input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
        ) -> Tensor:
            is_served = _is_activation(input, bias, negative_slope, scale) and (
                negative_slope == 0.2 or input.device.type != "cpu"
            )
            if is_served:
                return rosinality.fused_leaky_relu(input, bias, negative_slope, scale)
            return original(input, bias, negative_slope, scale)

        return fused_leaky_relu

    return Replacement(module, "fused_leaky_relu", adapt=adapted, probe=_probe_relu, serves=SERVES)


def fused_leaky_relu_of_extension(module: str, extension: str) -> Replacement:
    """Of copies that have no CPU path, such as BasicSR's: without the extension, ours serves all dtypes.

    Args:
        extension: the name that the module has its extension by.
    """

    def adapted(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def fused_leaky_relu(
            input: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5
        ) -> Tensor:
            is_served = _is_activation(input, bias, negative_slope, scale)
            if is_served or not _runs(original, extension, input, on_cpu=False):
                return rosinality.fused_leaky_relu(input, bias, negative_slope, scale)
            return original(input, bias, negative_slope, scale)

        return fused_leaky_relu

    def probe(function: Any) -> Iterator[Tensor]:
        with _on_the_cpu(function, extension, FUSED_BIAS_ACT):
            yield from _probe_relu_with_bias(function)

    return Replacement(module, "fused_leaky_relu", adapt=adapted, probe=probe, serves=SERVES)


def _are_maps(x: Any, kernel: Any) -> bool:
    """Whether ours takes these; the originals refuse some others themselves, as they did."""
    if not isinstance(x, Tensor) or x.dtype not in DTYPES or x.dim() != 4 or x.numel() == 0:
        return False
    return isinstance(kernel, Tensor) and kernel.dtype == x.dtype and not kernel.requires_grad


def _is_activation(x: Any, bias: Any, slope: object, scale: object) -> bool:
    """Likewise. With a negative slope or scale the extension gives the gradient of another function."""
    if not isinstance(x, Tensor) or x.dtype not in DTYPES or x.dim() < 2 or x.numel() == 0:
        return False
    if not are_finite(slope, scale) or slope < 0 or scale <= 0:  # type: ignore[operator]
        return False
    return bias is None or (isinstance(bias, Tensor) and bias.dtype == x.dtype and bias.shape == x.shape[1:2])


def _runs(original: Callable[..., Tensor], extension: str, x: Any, *, on_cpu: bool) -> bool:
    """Whether the original can serve a call that ours is not sure of."""
    is_on_gpu = isinstance(x, Tensor) and x.is_cuda
    return extension in getattr(original, "__globals__", {}) if is_on_gpu else on_cpu


# --- comparisons ------------------------------------------------------------------------------------------


@contextmanager
def _on_the_cpu(function: Any, extension: str, formula: object) -> Iterator[None]:
    """Gives an original another object for its extension, which takes no tensors on the CPU."""
    namespace = {} if hasattr(function, "_stands_in_for") else function.__globals__
    before = {extension: namespace[extension]} if extension in namespace else {}
    namespace[extension] = formula
    try:
        yield
    finally:
        del namespace[extension]
        namespace.update(before)


def _probe_upfirdn2d(function: Any, takes_pairs: bool) -> Iterator[Tensor]:
    x, kernel = numbers(2, 3, 6, 5), numbers(4, 3, seed=1)
    for up, down, pad in ((2, 1, (3, -1)), (1, 2, (1, 2)), (3, 2, (1, 1))):
        options = {"up": up, "down": down, "pad": pad}
        yield from with_gradients(lambda x, options=options: function(x, kernel, **options), x)
    yield function(x, kernel)
    if takes_pairs:
        yield from with_gradients(lambda x: function(x, kernel, (2, 1), (1, 2), (3, 2, 1, -1)), x)


def _probe_relu_with_bias(function: Any) -> Iterator[Tensor]:
    for shape in ((4, 3), (2, 3, 4, 4)):
        x, b = numbers(*shape).requires_grad_(), numbers(3, seed=1).requires_grad_()
        y = function(x.tanh(), b)
        # Gradients of both signs, whatever the sign of y.
        first = torch.autograd.grad((y - 1).square().sum(), (x, b), create_graph=True)
        yield from (y, *first, *torch.autograd.grad(first[0].square().sum(), (x, b)))
    yield function(x, b, 0.2, 1.5)


def _probe_relu(function: Any) -> Iterator[Tensor]:
    yield from _probe_relu_with_bias(function)
    yield from with_gradients(lambda x: function(x, scale=2.0), numbers(2, 3, 5))
