"""StyleGAN2's ops in rosinality's stylegan2-pytorch (`op`), of which BasicSR has a copy (`basicsr.ops`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastgan import ops
from fastgan.compat._zeros import with_zeros
from fastgan.ops._checks import as_finite, as_flag, as_whole_number, check_floating, check_same_device, shown
from fastgan.ops._filters import Margins, as_factors, as_margins, check_maps, output_size


def upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: Sequence[int] = (0, 0),
) -> Tensor:
    """Inserts zeros, pads, convolves with the kernel and drops pixels; rosinality's `op.upfirdn2d`.

    :func:`fastgan.ops.upfirdn2d`, whose dtypes, result and gradients it has.

    Args:
        input: N C H W.
        kernel: (height, width), a constant.
        up, down: a number, or (x, y).
        pad: (before, after) of both axes, or (left, right, top, bottom); negative ones crop.
    """
    check_maps("input", input)
    check_floating("kernel", kernel)
    if kernel.dim() != 2 or kernel.numel() == 0:
        raise ValueError(f"kernel must have shape (height, width), got {tuple(kernel.shape)}")
    if kernel.requires_grad:
        raise ValueError("kernel is a constant without a gradient, but requires grad: pass it detached")
    check_same_device(input=input, kernel=kernel)
    (up_x, up_y), (down_x, down_y) = as_factors("up", up), as_factors("down", down)
    left, right, top, bottom = _margins(pad)
    (height, width), taps = input.shape[2:], kernel.shape
    rows = output_size(height, up_y, down_y, top, bottom, taps[0])
    columns = output_size(width, up_x, down_x, left, right, taps[1])
    if rows < 1 or columns < 1:
        raise ValueError(
            f"the padded image must be at least as large as kernel, {taps[0]} x {taps[1]}, got "
            f"{height * up_y + top + bottom} x {width * up_x + left + right} of input's {height} x {width} "
            f"with up {shown(up)} and pad {shown(pad)}"
        )
    y: Tensor = ops.upfirdn2d(input, kernel, (up_x, up_y), (down_x, down_y), (left, right, top, bottom))
    return y


def _margins(pad: object) -> Margins:
    items: list[Any] = list(pad) if isinstance(pad, Sequence) and not isinstance(pad, str) else []
    if len(items) not in (2, 4):
        raise ValueError(f"pad must be (before, after) or (left, right, top, bottom), got {shown(pad)}")
    return as_margins("pad", (items * 2)[:4])


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    """Leaky ReLU of input + bias, times scale, in one sweep; rosinality's `op.fused_leaky_relu`.

    :func:`fastgan.ops.bias_leaky_relu`, whose dtypes, result and gradients it has; those of second order are
    zeros at input and bias, as the original's, not None. It looks at `negative_slope` on every device, where
    the original has 0.2 on the CPU.

    Args:
        input: N C ..., at least two dimensions.
        bias: (C,), or None.
    """
    check_floating("input", input)
    if input.dim() < 2 or input.numel() == 0:
        raise ValueError(f"input must have shape (N, C, ...) and not be empty, got {tuple(input.shape)}")
    if bias is not None:
        check_floating("bias", bias)
        check_same_device(input=input, bias=bias)
    slope, gain = as_finite("negative_slope", negative_slope), as_finite("scale", scale)
    return with_zeros(ops.bias_leaky_relu(input, bias, slope=slope, gain=gain), input, bias)


class FusedLeakyReLU(nn.Module):
    """:func:`fused_leaky_relu` with a bias to learn, from zeros; rosinality's `op.FusedLeakyReLU`.

    Args:
        channel: how many channels the input has.
        bias: whether there is a bias.
        negative_slope, scale: of the function.
    """

    bias: nn.Parameter | None

    def __init__(
        self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5
    ) -> None:
        super().__init__()
        channel = as_whole_number("channel", channel)
        self.bias = nn.Parameter(torch.zeros(channel)) if as_flag("bias", bias) else None
        self.negative_slope = as_finite("negative_slope", negative_slope)
        self.scale = as_finite("scale", scale)

    def forward(self, input: Tensor) -> Tensor:
        """Like the input, N C ... ."""
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)
