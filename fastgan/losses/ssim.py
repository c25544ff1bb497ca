"""SSIM: its value, the loss 1 - SSIM, and the sum of that and L1.

The names say which is which: what ends in `loss` or `Loss` is to be minimized and is 0 for equal images, what
does not is the similarity, 1 for equal images. pytorch-msssim's `SSIM` and `MS_SSIM` are modules of the
value; they are in :mod:`fastgan.compat.pytorch_msssim`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastgan.ops._checks import as_finite, as_flag, check_one_of
from fastgan.ops._dispatch import requested
from fastgan.ops._value_range import BY_DATA_RANGE, GrossRangeCheck
from fastgan.ops.ssim import PADDINGS, as_constants, as_window, ssim_distance

REDUCTIONS = ("mean", "sum", "none")

_PAIR = ("x", "y")
_ssim_range, _ssim_loss_range, _ssim_l1_range = (
    GrossRangeCheck(name, _PAIR, BY_DATA_RANGE) for name in ("ssim", "ssim_loss", "ssim_l1_loss")
)


def ssim(
    x: Tensor,
    y: Tensor,
    data_range: float = 1.0,
    *,
    reduction: str = "mean",
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "valid",
    nonnegative: bool = False,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    r"""The structural similarity of images, at most 1, which it is exactly for equal images.

    With means, variances and the covariance of windows, and c_i = (k_i data_range)^2, it is the mean over all
    windows, channels and images of

    .. math::
        \frac{2 \mu_x \mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1} \cdot
        \frac{2 \sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2}

    Args:
        x: N C H W; float32, bfloat16, float16 or float64; any number of channels, any strides.
        y: as x; may have another dtype.
        data_range: the largest minus the smallest possible value: 1 for images in [0, 1], 2 for [-1, 1], 255
            for 8-bit values.
        reduction: "mean" over images, 0-d; "sum" over images, each the mean over its channels; or "none",
            (N,).
        window: "gaussian", or "uniform" for equal weights.
        window_size: odd.
        sigma: standard deviation of the Gaussian in pixels.
        k: K1 and K2.
        padding: "valid": windows within the image alone, as in the paper, in MATLAB and in pytorch-msssim.
            "same": windows around every pixel, with zeros beyond the border, as in fused-ssim and Gaussian
            splatting. "reflect": the same with the image mirrored, as in torchmetrics and kornia.
        nonnegative: replace a channel's negative similarity by 0; its gradient is then 0.
        backend: "native", "triton" or "reference"; None chooses the kernel of the device.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1] with a data range of 1, or in [0, 1] with 255. Never
            synchronizes with a GPU.

    Returns:
        float32, or float64 if an image is, computed in that dtype; flat areas and edges lose no digits (see
        :func:`fastgan.ops.ssim_distance`). The same input gives the same bits for any number of threads.

    Gradients with respect to x and y are exact. One gradient-sized tensor is saved for each that is needed,
    for float16 images in float32. A gradient of the gradient needs ``backend="reference"``.

    Raises:
        TypeError: images that are not floating-point tensors, or another argument of the wrong kind.
        ValueError: other or unequal shapes, fewer pixels than the window needs (11 x 11 for the default,
            6 x 6 with "reflect", 1 x 1 with "same"), several devices, or an argument out of its range.
        RuntimeError: the requested backend cannot serve the call.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 2004.
    """
    check_one_of("reduction", reduction, REDUCTIONS)
    nonnegative, check_range = as_flag("nonnegative", nonnegative), as_flag("check_range", check_range)
    distance = ssim_distance(
        x, y, data_range, window=window, window_size=window_size, sigma=sigma, k=k, padding=padding,
        backend=backend,
    )  # fmt: skip
    if check_range:
        _ssim_range.look((0, data_range), x, y)
    similarity = 1 - distance
    return reduced(similarity.relu() if nonnegative else similarity, reduction)


def ssim_loss(
    x: Tensor,
    y: Tensor,
    data_range: float = 1.0,
    *,
    reduction: str = "mean",
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "valid",
    nonnegative: bool = False,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """1 - SSIM, in [0, 2], and exactly 0 for equal images. Arguments, gradients and errors: :func:`ssim`.

    It is computed without subtracting similarities from 1, so that it keeps its digits where images are
    nearly equal, as at the end of a training.
    """
    check_one_of("reduction", reduction, REDUCTIONS)
    nonnegative, check_range = as_flag("nonnegative", nonnegative), as_flag("check_range", check_range)
    distance = ssim_distance(
        x, y, data_range, window=window, window_size=window_size, sigma=sigma, k=k, padding=padding,
        backend=backend,
    )  # fmt: skip
    if check_range:
        _ssim_loss_range.look((0, data_range), x, y)
    return reduced(distance.clamp(max=1) if nonnegative else distance, reduction)


def ssim_l1_loss(
    x: Tensor,
    y: Tensor,
    ssim_weight: float = 0.2,
    data_range: float = 1.0,
    *,
    reduction: str = "mean",
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "same",
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """(1 - ssim_weight) mean |x - y| + ssim_weight (1 - SSIM), in one sweep over the images.

    That is the loss of Gaussian splatting, with its weight and its padding by zeros as the defaults. The
    mean of |x - y| is over all pixels, whatever the padding; its gradient is 0 where x = y.

    Args:
        ssim_weight: lambda of the formula, in [0, 1].

    Further arguments, gradients and errors: :func:`ssim`.

    Source: Kerbl, Kopanas, Leimkühler and Drettakis, "3D Gaussian Splatting for Real-Time Radiance Field
    Rendering", SIGGRAPH 2023, eq. 7.
    """
    check_one_of("reduction", reduction, REDUCTIONS)
    check_range = as_flag("check_range", check_range)
    ssim_weight = as_finite("ssim_weight", ssim_weight)
    if not 0 <= ssim_weight <= 1:
        raise ValueError(f"ssim_weight must lie in [0, 1], got {ssim_weight}")
    loss = ssim_distance(
        x, y, data_range, window=window, window_size=window_size, sigma=sigma, k=k, padding=padding,
        weight=ssim_weight, l1_weight=1 - ssim_weight, backend=backend,
    )  # fmt: skip
    if check_range:
        _ssim_l1_range.look((0, data_range), x, y)
    return reduced(loss, reduction)


def reduced(of_channels: Tensor, reduction: str) -> Tensor:
    """From (N, C): the mean over channels, and the mean or sum over images."""
    if reduction == "mean":
        return of_channels.mean()
    of_images = of_channels.mean(dim=1)
    return of_images.sum() if reduction == "sum" else of_images


class SSIMLoss(nn.Module):
    """:func:`ssim_loss` as a module: 1 - SSIM, 0 for equal images.

    Args:
        data_range, reduction, window, window_size, sigma, k, padding, nonnegative, backend: as in
            :func:`ssim`.
        check_range: as in :func:`ssim`, for this module's first images.

    Input and output: as of :func:`ssim_loss`.

    Raises:
        TypeError, ValueError: as :func:`ssim`, in the constructor and in the call.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        *,
        reduction: str = "mean",
        window: str = "gaussian",
        window_size: int = 11,
        sigma: float = 1.5,
        k: tuple[float, float] = (0.01, 0.03),
        padding: str = "valid",
        nonnegative: bool = False,
        backend: str | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__()
        check_one_of("reduction", reduction, REDUCTIONS)
        check_one_of("padding", padding, PADDINGS)
        as_window(window, window_size, sigma)
        as_constants(data_range, k)
        requested(backend)
        self.data_range = data_range
        self.options: dict[str, Any] = {
            "reduction": reduction, "window": window, "window_size": window_size, "sigma": sigma, "k": k,
            "padding": padding, "nonnegative": as_flag("nonnegative", nonnegative), "backend": backend,
        }  # fmt: skip
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("SSIMLoss", _PAIR, BY_DATA_RANGE)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = ssim_loss(x, y, self.data_range, **self.options, check_range=False)
        if self.check_range:
            self._range_check.look((0, self.data_range), x, y)
        return loss

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, padding={self.options['padding']!r}"
