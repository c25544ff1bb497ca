"""YUV-weighted L2 with edge gain: StegaStamp's image loss."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from fastgan import ops
from fastgan.ops._checks import as_finite, as_flag, as_numbers
from fastgan.ops._dispatch import requested
from fastgan.ops._value_range import GrossRangeCheck

_range_check = GrossRangeCheck("yuv_color_l2", ("x", "y"))


@overload
def yuv_color_l2(
    x: Tensor,
    y: Tensor,
    yuv_scales: tuple[float, float, float] = ...,
    edge_gain: float | Tensor = ...,
    *,
    return_channels: Literal[False] = ...,
    backend: str | None = ...,
    check_range: bool = ...,
) -> Tensor: ...
@overload
def yuv_color_l2(
    x: Tensor,
    y: Tensor,
    yuv_scales: tuple[float, float, float] = ...,
    edge_gain: float | Tensor = ...,
    *,
    return_channels: Literal[True],
    backend: str | None = ...,
    check_range: bool = ...,
) -> tuple[Tensor, Tensor]: ...


def yuv_color_l2(
    x: Tensor,
    y: Tensor,
    yuv_scales: tuple[float, float, float] = (1.0, 1.0, 1.0),
    edge_gain: float | Tensor = 0.0,
    *,
    return_channels: bool = False,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Squared distance of two RGB images in YUV, weighted by channel and more towards the border.

    With d = M (x - y) (1 + edge_gain f), the loss is the sum over c of ``yuv_scales[c]`` times the mean
    over N, H, W of d_c squared. M is the BT.601 RGB to YUV matrix, with rows
    Y (0.299, 0.587, 0.114), U (-0.14713, -0.28886, 0.436), V (0.615, -0.51499, -0.10001).

    The falloff f is 1 on the border and 0 beyond a quarter of the image's size: f = 1 - r(row) r(column)
    with r(i) = (cos(4 pi i / size + pi) + 1) / 2, i the distance to the nearer border. It follows StegaStamp
    except for two flaws. There row ``-i`` shares the ramp of row ``i``, so the last row (and column) has the
    weight of the second one, and columns use the image's height as their size, which fails for images that
    are not square; here both borders have weight 1 and each axis its own size. On 400x400 the two falloffs
    differ by at most 0.0204.

    Args:
        x: N 3 H W, RGB in [0, 1]; float32, bfloat16, float16 or float64; any strides.
        y: as x; may have another dtype.
        yuv_scales: weights of Y, U and V (StegaStamp: 1, 100, 100).
        edge_gain: extra weight of the difference on the border (StegaStamp: 10). A number, or a 0-d
            floating-point tensor on the images' device, which a schedule can change without
            recompiling or synchronizing. Not differentiable.
        return_channels: also return the unscaled means of d_Y, d_U, d_V squared, shape (3,),
            detached, for logging.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1]. Never synchronizes with a GPU.

    Returns:
        The loss, 0-d float32 (float64 if an image is float64), or (loss, channels). Accumulated in
        float32 or wider; the same input gives the same bits for any number of threads.

    Gradients with respect to x and y are exact to every order. One gradient-sized tensor is saved
    for backward, for float16 images in float32.

    Raises:
        TypeError: an image is not a floating-point tensor, or another argument is of the wrong kind.
        ValueError: shapes other than (N, 3, H, W), different shapes, an empty batch, tensors on
            different devices, yuv_scales other than three finite numbers, or an edge_gain that is not
            finite.
        RuntimeError: the requested backend cannot serve the call.

    Source: Tancik, Mildenhall and Ng, "StegaStamp: Invisible Hyperlinks in Physical Photographs",
    CVPR 2020, and ``build_model`` of its published code.
    """
    return_channels = as_flag("return_channels", return_channels)
    check_range = as_flag("check_range", check_range)
    loss, channels = ops.yuv_l2(x, y, yuv_scales, edge_gain, backend=backend)
    if check_range:
        _range_check.look((0, 1), x, y)
    return (loss, channels) if return_channels else loss


class YUVColorL2(nn.Module):
    """:func:`yuv_color_l2` as a module.

    The edge gain is a 0-d buffer that moves with the module, so that a schedule is
    ``loss.edge_gain.fill_(gain)``: no synchronization, no recompilation.

    Args:
        yuv_scales: weights of Y, U and V.
        edge_gain: initial gain on the border.
        return_channels: return (loss, channels) instead of the loss.
        backend: as in :func:`yuv_color_l2`.
        check_range: as in :func:`yuv_color_l2`, for this module's first images.

    Raises:
        TypeError, ValueError: as :func:`yuv_color_l2`, in the constructor and in the call.
    """

    edge_gain: Tensor

    def __init__(
        self,
        yuv_scales: tuple[float, float, float] = (1.0, 1.0, 1.0),
        edge_gain: float = 0.0,
        *,
        return_channels: bool = False,
        backend: str | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__()
        scale_y, scale_u, scale_v = as_numbers("yuv_scales", yuv_scales, 3)
        self.yuv_scales = (scale_y, scale_u, scale_v)
        self.return_channels = as_flag("return_channels", return_channels)
        requested(backend)
        self.backend = backend
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("YUVColorL2", ("x", "y"))
        gain = torch.tensor(as_finite("edge_gain", edge_gain), dtype=torch.float32)
        self.register_buffer("edge_gain", gain, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        loss, channels = ops.yuv_l2(x, y, self.yuv_scales, self.edge_gain, backend=self.backend)
        if self.check_range:
            self._range_check.look((0, 1), x, y)
        return (loss, channels) if self.return_channels else loss

    def extra_repr(self) -> str:
        return f"yuv_scales={self.yuv_scales}, return_channels={self.return_channels}"
