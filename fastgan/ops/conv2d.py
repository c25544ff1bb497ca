"""A convolution for compiled gradient penalties, whose gradients of every order are dedicated primitives.

PyTorch's double backward of a convolution, which R1 and WGAN-GP need, computes the weights' gradient by an
ordinary convolution of transposed tensors, whose kernel is as large as an image. `aten::convolution_backward`
has a primitive for it. The form <g, conv(x, w)> is linear in each of x, w and g, so three operations suffice,
and the gradients of each are the other two:

========================== ============================ ==================================
operation                  along t, gradient of         gradient of
========================== ============================ ==================================
conv(x, w)                 x: input_gradient(t, w)      w: weight_gradient(t, x)
input_gradient(g, w)       g: conv(t, w)                w: weight_gradient(g, t)
weight_gradient(g, x)      g: conv(x, t)                x: input_gradient(g, t)
========================== ============================ ==================================

Measured for R1 steps on 2 cores in float32, with freed memory kept (`fastgan bench r1` repeats it): in eager
mode PyTorch's own double backward is as good as this on 3x3 kernels (StarGAN v2's discriminator: 1.71 s
against 1.74 s) and better on 4x4 kernels of stride 2 (DCGAN's: 118 ms against 143 ms), so eager mode uses it.
Under torch.compile these operations are faster (StarGAN v2's: 1.45 s against 1.74 s). GPUs: not measured.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan._torch_internals import ConvolvingConv2d, convolves_as_torch, padding_widths
from fastgan.ops._autograd import differentiable
from fastgan.ops._checks import (
    as_whole_number,
    check_floating,
    check_instance,
    check_one_of,
    check_same_device,
    described,
)
from fastgan.ops._declare import declare_composite
from fastgan.reference import conv2d as reference

_BACKWARD = torch.ops.aten.convolution_backward.default


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, with a faster double backward under `torch.compile`.

    Args:
        x: N C H W, floating point.
        weight: K C/groups kH kW, in x's dtype (under autocast both are cast).
        bias: K, or None.
        stride, padding, dilation: a number, or one for each of H and W; padding in pixels on either side, or
            "valid" for none, or "same" for the amount that preserves H and W at a stride of 1.
        groups: number of groups of channels.

    Returns:
        N K H' W'. Gradients of every order with respect to x, weight and bias.

    Raises:
        TypeError, ValueError: tensors or numbers of the wrong kind, tensors on different devices, or shapes
            that do not match.
    """
    return _checked_conv2d("x", x, weight, bias, stride, padding, dilation, groups)


def _checked_conv2d(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
    groups: int,
) -> Tensor:
    """:func:`conv2d`, whose errors call x by `name`."""
    for argument, tensor in ((name, x), ("weight", weight)):
        check_floating(argument, tensor)
        if tensor.dim() != 4:
            raise ValueError(f"{argument} must have 4 dimensions, got shape {tuple(tensor.shape)}")
    check_same_device(**{name: x, "weight": weight})
    if bias is not None:
        check_floating("bias", bias)
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    groups = as_whole_number("groups", groups)
    if isinstance(padding, str):
        x, padding = _padded(x, weight, strides, padding, dilations), 0
    options = strides, _pair("padding", padding, 0), dilations
    if torch.compiler.is_compiling():
        _check_fit(name, x, weight, bias, *options, groups)
        return _conv2d_as_compiled(x, weight, bias, *options, groups)
    try:
        return reference.conv2d(x, weight, bias, *options, groups)
    except RuntimeError:
        _check_fit(name, x, weight, bias, *options, groups)
        raise


def _padded(x: Tensor, weight: Tensor, stride: list[int], padding: str, dilation: list[int]) -> Tensor:
    """X with the named padding; an odd row or column goes to the end, as in torch."""
    check_one_of("padding", padding, ("valid", "same"))
    if padding == "valid":
        return x
    if stride != [1, 1]:
        raise ValueError(f"padding 'same' goes with a stride of 1 alone, got stride={stride}")
    widths = []
    for size, step in zip(weight.shape[:1:-1], reversed(dilation), strict=True):
        total = step * (size - 1)
        widths += [total // 2, total - total // 2]
    return F.pad(x, widths)


def _check_fit(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> None:
    """Raises a ValueError for arguments that cannot be convolved."""
    tensors = {name: x, "weight": weight, **({} if bias is None else {"bias": bias})}
    check_same_device(**tensors)
    for argument, tensor in tensors.items():
        if not torch.is_autocast_enabled(x.device.type) and tensor.dtype != weight.dtype:
            raise ValueError(f"{argument} must be of weight's {weight.dtype}, got {tensor.dtype}")
    shape, kernel = tuple(x.shape), tuple(weight.shape)
    if 0 in kernel or kernel[0] % groups:
        raise ValueError(f"weight must not be empty, and K divisible by groups={groups}, got shape {kernel}")
    if shape[1] != kernel[1] * groups:
        raise ValueError(
            f"{name} must have {kernel[1] * groups} channels for groups={groups} and a weight of shape "
            f"{kernel}, got shape {shape}"
        )
    if bias is not None and bias.shape != kernel[:1]:
        raise ValueError(f"bias must have shape ({kernel[0]},), got {tuple(bias.shape)}")
    for axis in range(2):
        extent = dilation[axis] * (kernel[axis + 2] - 1) + 1
        if shape[axis + 2] + 2 * padding[axis] < extent:
            raise ValueError(
                f"{name} with its padding={padding} must be at least as large as weight, of shape {kernel}, "
                f"with its dilation={dilation}, got {name} of shape {shape}"
            )


def _conv2d_as_compiled(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """:func:`conv2d` under `torch.compile`."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    options = _pair("stride", stride, 1), _pair("padding", padding, 0), _pair("dilation", dilation, 1)
    return _conv2d(x, weight, bias, *options, groups)


def _pair(name: str, value: int | Sequence[int], least: int) -> list[int]:
    if type(value) is int and least <= value < 2**31:
        return [value, value]
    items = [value] if isinstance(value, (int, numbers.Integral)) else value
    if not isinstance(items, (tuple, list)) or any(
        isinstance(item, bool) or not isinstance(item, (int, numbers.Integral)) for item in items
    ):
        raise TypeError(f"{name} must be a whole number, or one for each of H and W, got {described(value)}")
    if len(items) not in (1, 2) or any(not least <= item < 2**31 for item in items):
        raise ValueError(f"{name} must be a number or two, at least {least} each, got {described(value)}")
    return [int(items[0]), int(items[-1])]


class Conv2d(ConvolvingConv2d):
    """`torch.nn.Conv2d` that computes with :func:`conv2d`; same arguments, same state_dict."""

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        check_floating("input", input)
        if input.dim() not in (3, 4):
            raise ValueError(f"input must have 3 or 4 dimensions, got shape {tuple(input.shape)}")
        padding: Any = self.padding
        if self.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input = F.pad(input, padding_widths(self), mode=mode)
            padding = 0
        batch = input if input.dim() == 4 else input[None]
        y = _checked_conv2d("input", batch, weight, bias, self.stride, padding, self.dilation, self.groups)
        return y if input.dim() == 4 else y[0]


def convert_convolutions(network: nn.Module) -> nn.Module:
    """Makes every `nn.Conv2d` of a network compute with :func:`conv2d`, in place, and returns the network.

    Parameters, state_dict and hooks are unchanged, and so are subclasses with a convolution of their own.
    Convert before `torch.compile`; parametrized layers (spectral norm) are converted as well.

    Raises:
        TypeError: the network is not an nn.Module.
    """
    check_instance("network", network, nn.Module, "an nn.Module")
    for module in network.modules():
        kind: Any = type(module)
        if kind is nn.Conv2d:
            module.__class__ = Conv2d
        elif isinstance(module, nn.Conv2d) and convolves_as_torch(kind):
            module.__class__ = type(kind.__name__, (kind, Conv2d), {})
    return network


# --- ops ------------------------------------------------------------------------------------------

_OPTIONS = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"
declare_composite(f"conv2d(Tensor x, Tensor weight, Tensor? bias, {_OPTIONS}) -> Tensor")(reference.conv2d)


def _shape_only(like: Tensor, size: list[int]) -> Tensor:
    """A stand-in for a tensor of which convolution_backward reads only the shape."""
    return like.new_empty(1).expand(size)


@declare_composite(f"conv2d_input_gradient(Tensor grad, Tensor weight, SymInt[] size, {_OPTIONS}) -> Tensor")
def _input_gradient_of(grad, weight, size, stride, padding, dilation, groups):
    x = _shape_only(grad, size)
    output_mask = [True, False, False]
    return _BACKWARD(grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, output_mask)[0]


@declare_composite(f"conv2d_weight_gradient(Tensor grad, Tensor x, SymInt[] size, {_OPTIONS}) -> Tensor")
def _weight_gradient_of(grad, x, size, stride, padding, dilation, groups):
    weight = _shape_only(grad, size)
    output_mask = [False, True, False]
    return _BACKWARD(grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, output_mask)[1]


# --- batching: PyTorch's rules -------------------------------------------------------------------------


def _by_pytorch(function):
    def rule(size, batched, first, second, third, *options):
        dims = tuple(0 if is_batched else None for is_batched in batched[:3])
        return torch.vmap(lambda *tensors: function(*tensors, *options), dims)(first, second, third)

    return rule


# --- gradients: see the table above -----------------------------------------------------------------


def _save_for_conv2d(ctx, inputs, output):
    x, weight, _, *ctx.options = inputs
    ctx.save_for_backward(x, weight)


def _conv2d_gradients(ctx, grad):
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    return (
        _input_gradient(grad, weight, x.shape, *ctx.options) if needs_x else None,
        _weight_gradient(grad, x, weight.shape, *ctx.options) if needs_weight else None,
        grad.sum(dim=(0, 2, 3)) if needs_bias else None,
        *(None,) * 4,
    )


def _save_for_input_gradient(ctx, inputs, output):
    grad, weight, _, *ctx.options = inputs
    ctx.save_for_backward(grad, weight)


def _input_gradient_gradients(ctx, tangent):
    grad, weight = ctx.saved_tensors
    needs_grad, needs_weight = ctx.needs_input_grad[:2]
    return (
        _conv2d(tangent, weight, None, *ctx.options) if needs_grad else None,
        _weight_gradient(grad, tangent, weight.shape, *ctx.options) if needs_weight else None,
        *(None,) * 5,
    )


def _save_for_weight_gradient(ctx, inputs, output):
    grad, x, _, *ctx.options = inputs
    ctx.save_for_backward(grad, x)


def _weight_gradient_gradients(ctx, tangent):
    grad, x = ctx.saved_tensors
    needs_grad, needs_x = ctx.needs_input_grad[:2]
    return (
        _conv2d(x, tangent, None, *ctx.options) if needs_grad else None,
        _input_gradient(grad, tangent, x.shape, *ctx.options) if needs_x else None,
        *(None,) * 5,
    )


_conv2d = differentiable("conv2d", _save_for_conv2d, _conv2d_gradients, _by_pytorch(reference.conv2d))
_input_gradient = differentiable(
    "conv2d_input_gradient", _save_for_input_gradient, _input_gradient_gradients,
    _by_pytorch(_input_gradient_of),
)  # fmt: skip
_weight_gradient = differentiable(
    "conv2d_weight_gradient", _save_for_weight_gradient, _weight_gradient_gradients,
    _by_pytorch(_weight_gradient_of),
)  # fmt: skip
