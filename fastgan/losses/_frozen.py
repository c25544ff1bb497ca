"""Networks whose weights get no gradient, run in less memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan._torch_internals import batched_by_autograd, forward_mode_active, inside_transform
from fastgan.ops._dispatch import requested
from fastgan.ops.bias_leaky_relu import bias_leaky_relu
from fastgan.reference.precision import has_autocast, wide, without_autocast


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Lets gradients pass through the networks without computing any for their weights.

    Weights that were frozen before stay frozen afterwards.
    """
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def run_frozen(layers: nn.Module, inputs: list[Tensor]) -> Tensor:
    """The output of a module whose weights get no gradient.

    For backward, convolutions and batch normalizations then save only their weights, ReLUs one byte per
    element, poolings four bytes per index and L2 poolings input and output, whereas autograd saves every
    activation and eight bytes per index. Modules of other kinds are called, and so is everything under
    torch.compile and torch.jit.trace, in transforms and forward mode, with ``use("reference")``, or where no
    gradient is needed.

    Args:
        layers: a sequence of layers.
        inputs: a list of the input alone, which is removed: a reference in the caller would keep its memory
            alive while the following layers run.
    """
    wants_gradient = torch.is_grad_enabled() and inputs[0].requires_grad
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    is_transformed = inside_transform() or forward_mode_active()
    if not wants_gradient or is_traced or is_transformed or requested() == "reference":
        return layers(inputs.pop())
    return _run(layers, inputs)


def _run(layer: nn.Module, inputs: list[Tensor]) -> Tensor:
    if isinstance(layer, nn.Sequential):
        children = list(layer)
        for position, child in enumerate(children):
            follows_relu = position + 1 < len(children) and isinstance(children[position + 1], nn.ReLU)
            if isinstance(child, nn.ReLU) and position > 0 and isinstance(children[position - 1], nn.Conv2d):
                continue  # computed with its convolution
            if isinstance(child, nn.Conv2d):
                inputs.append(_convolve(child, inputs, follows_relu))
            else:
                inputs.append(_run(child, inputs))
        return inputs.pop()
    if isinstance(layer, nn.Conv2d):
        return _convolve(layer, inputs, relu=False)
    if isinstance(layer, nn.ReLU):
        return bias_leaky_relu(inputs.pop(), slope=0.0)
    if isinstance(layer, nn.MaxPool2d):
        return _Pool.apply(inputs.pop(), layer)
    if isinstance(layer, L2Pooling):
        return _L2Pool.apply(inputs.pop(), layer.filter)
    if isinstance(layer, nn.BatchNorm2d) and not layer.training:
        return _BatchNorm.apply(inputs.pop(), layer)
    return layer(inputs.pop())


def _convolve(layer: nn.Conv2d, inputs: list[Tensor], relu: bool) -> Tensor:
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    device = inputs[0].device.type
    if has_autocast(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs[0], weight = inputs[0].to(dtype), weight.to(dtype)
    y = _Convolution.apply(inputs.pop(), weight, layer)
    if relu:
        return bias_leaky_relu(y, bias, slope=0.0)
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


class _Convolution(torch.autograd.Function):
    """A convolution without bias, with zero padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.layer, ctx.layout = layer, (x.shape, x.stride())
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        layer = ctx.layer
        grad_x, _, _ = torch.ops.aten.convolution_backward(
            grad, _placeholder(grad, *ctx.layout), weight, None, layer.stride, layer.padding,
            layer.dilation, False, [0, 0], layer.groups, [True, False, False],
        )  # fmt: skip
        return grad_x, None, None


def _placeholder(grad: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """A stand-in for an input whose values a backward does not read, in the gradient's memory if it fits."""
    if batched_by_autograd(grad):
        return torch.empty_strided(shape, stride, dtype=grad.dtype, device=grad.device)
    grad = grad.detach()
    is_dense = grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)
    if is_dense and grad.numel() >= shape.numel():
        return grad.as_strided(shape, stride)
    if stride[1] == 1:
        return torch.empty_strided(shape, stride, dtype=grad.dtype, device=grad.device)
    return grad.new_empty(1).expand(shape)


class _BatchNorm(torch.autograd.Function):
    """Batch normalization in evaluation mode: a factor and a summand per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        factor = (layer.running_var + layer.eps).rsqrt()
        if layer.weight is not None:
            factor = factor * layer.weight
        return (grad * factor.view(-1, 1, 1)).to(grad.dtype), None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.MaxPool2d) -> Tensor:
        y, indices = torch.ops.aten.max_pool2d_with_indices(x, *_pairs(layer), layer.ceil_mode)
        ctx.save_for_backward(indices.to(torch.int32))
        ctx.layer, ctx.layout = layer, (x.shape, x.stride())
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        grad_x = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, _placeholder(grad, *ctx.layout), *_pairs(ctx.layer), ctx.layer.ceil_mode, indices.long()
        )
        return grad_x, None


class L2Pooling(nn.Module):
    """The root of a weighted mean of squares at every other pixel; weights [1 2 1] / 4 in both directions.

    As in DISTS's VGG, in place of max pooling: a low-pass filter before the sampling avoids aliasing.
    """

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filter", torch.outer(taps, taps).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _root_mean_square(x, self.filter).to(x.dtype)


def _root_mean_square(x: Tensor, weights: Tensor) -> Tensor:
    """In float32 at least: in half types squares overflow, and the summand would vanish."""
    with without_autocast(x):
        squares = wide(x).square()
        return (F.conv2d(squares, weights.to(squares.dtype), None, 2, 1, 1, len(weights)) + 1e-12).sqrt()


class _L2Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        y = _root_mean_square(x, weights)
        ctx.save_for_backward(x, y, weights)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            y = _root_mean_square(x, weights)  # as a function of x, for the second order
        of_squares, _, _ = torch.ops.aten.convolution_backward(
            grad / y, wide(x), weights.to(y.dtype), None, [2, 2], [1, 1], [1, 1], False, [0, 0], len(weights),
            [True, False, False],
        )  # fmt: skip
        return (of_squares * x).to(x.dtype), None


def _pairs(layer: nn.MaxPool2d) -> list[tuple[int, int]]:
    sizes: list[Any] = [layer.kernel_size, layer.stride, layer.padding, layer.dilation]
    return [size if isinstance(size, tuple) else (size, size) for size in sizes]
