"""`basicsr.ops.upfirdn2d` and `basicsr.ops.fused_act`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastgan.compat import _stylegan2_ops
from fastgan.ops._checks import as_whole_number, shown


def upfirdn2d(
    input: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: Sequence[int] = (0, 0)
) -> Tensor:
    """Inserts zeros, pads, convolves with the kernel and drops pixels; `basicsr.ops.upfirdn2d.upfirdn2d`.

    :func:`fastgan.ops.upfirdn2d`, whose dtypes, result and gradients it has.

    Args:
        input: N C H W.
        kernel: (height, width), a constant.
        up, down: of both axes.
        pad: (before, after) of both axes; negative ones crop. BasicSR drops further numbers, which are
            refused here.
    """
    up, down = as_whole_number("up", up), as_whole_number("down", down)
    if not isinstance(pad, Sequence) or isinstance(pad, str) or len(pad) != 2:
        raise ValueError(f"pad must be (before, after), got {shown(pad)}")
    return _stylegan2_ops.upfirdn2d(input, kernel, up, down, pad)


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    """Leaky ReLU of input + bias, times scale; `basicsr.ops.fused_act.fused_leaky_relu`.

    On every device, where BasicSR's needs its CUDA extension. Otherwise as
    :func:`fastgan.compat.rosinality.fused_leaky_relu`.
    """
    return _stylegan2_ops.fused_leaky_relu(input, bias, negative_slope, scale)


class FusedLeakyReLU(_stylegan2_ops.FusedLeakyReLU):
    """:func:`fused_leaky_relu` with a bias to learn, from zeros; `basicsr.ops.fused_act.FusedLeakyReLU`.

    Args:
        channel: how many channels the input has.
        negative_slope, scale: of the function.
    """

    def __init__(self, channel: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__(channel, True, negative_slope, scale)
