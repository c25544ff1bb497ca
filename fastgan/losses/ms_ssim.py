"""MS-SSIM: its value, and the loss 1 - MS-SSIM; see :mod:`fastgan.losses.ssim` on the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.losses.ssim import REDUCTIONS, reduced
from fastgan.ops._checks import (
    as_flag,
    as_numbers,
    check_alike,
    check_image,
    check_one_of,
    described,
    shown,
)
from fastgan.ops._dispatch import requested
from fastgan.ops._value_range import BY_DATA_RANGE, GrossRangeCheck
from fastgan.ops.ssim import PADDINGS, as_constants, as_window, ssim_distance
from fastgan.reference.precision import both_double, wide

# Of the five scales, from the images' own to one sixteenth of it, as the paper found them by experiment.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
NORMALIZATIONS = ("relu", "simple", "none")
ODD_SIZES = ("pad", "crop")

_PAIR = ("x", "y")
_value_range, _loss_range = (
    GrossRangeCheck(name, _PAIR, BY_DATA_RANGE) for name in ("ms_ssim", "ms_ssim_loss")
)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    data_range: float = 1.0,
    *,
    reduction: str = "mean",
    weights: Sequence[float] = WEIGHTS,
    normalize: str = "relu",
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "valid",
    odd_sizes: str = "pad",
    per_channel: bool = True,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    r"""The structural similarity of images at several scales, at most 1, which it is for equal images.

    .. math::
        s_L^{w_L} \prod_{i < L} c_i^{w_i}

    with the SSIM s of the coarsest of L scales and the contrasts c (SSIM without luminance) of the others,
    each a mean over all windows of a channel. A scale has the averages of 2 x 2 pixels of the one before.

    A contrast can be negative, and a negative number has no such power: the usual cause of NaN in trainings,
    mostly with untrained networks. With ``normalize="relu"`` the similarity of such a channel is 0, and so is
    its gradient, where the derivative of the power would be infinite. If many are, use "simple", which always
    has a gradient, or a larger K2, such as 0.4.

    Args:
        x, y, data_range, reduction, window, window_size, sigma, k, backend, check_range: as in
            :func:`fastgan.losses.ssim`.
        weights: of the scales, the images' own first; their number is L.
        normalize: "relu" replaces negative contrasts and similarities by 0, as in pytorch-msssim and
            torchmetrics; "simple" replaces each by (1 + c) / 2, as an option of torchmetrics; "none" leaves
            them, and gives NaN for negative ones.
        padding: of the coarsest scale, as in :func:`fastgan.losses.ssim`; contrasts are always those of
            windows within the image. pytorch-msssim: "valid"; torchmetrics: "reflect".
        odd_sizes: what happens to an odd number of rows or columns: "pad" adds zeros above or to the left, as
            in pytorch-msssim; "crop" leaves out the last row or column, as in torchmetrics.
        per_channel: multiply the scales of each channel, as in pytorch-msssim; False: those of an image, each
            a mean over channels, as in torchmetrics.

    Returns:
        As :func:`fastgan.losses.ssim`. Coarser scales are computed in float64 on the CPU; elsewhere in
        float32, or in float64 if an image is.

    Gradients are those of :func:`fastgan.losses.ssim`. On a GPU averages of float32 images are rounded, too:
    the largest error is 2e-5 of the largest gradient on photographs, and grows as images become equal.

    Raises:
        TypeError, ValueError: as :func:`fastgan.losses.ssim`; fewer pixels than the coarsest scale needs,
            161 x 161 for the defaults.
        RuntimeError: the requested backend cannot serve the call.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment",
    Asilomar 2003.
    """
    check_one_of("reduction", reduction, REDUCTIONS)
    check_range = as_flag("check_range", check_range)
    distance = _distances(
        x, y, data_range, weights=weights, normalize=normalize, odd_sizes=odd_sizes, per_channel=per_channel,
        window=window, window_size=window_size, sigma=sigma, k=k, padding=padding, backend=backend,
    )  # fmt: skip
    if check_range:
        _value_range.look((0, data_range), x, y)
    return reduced(1 - distance, reduction)


def ms_ssim_loss(
    x: Tensor,
    y: Tensor,
    data_range: float = 1.0,
    *,
    reduction: str = "mean",
    weights: Sequence[float] = WEIGHTS,
    normalize: str = "relu",
    window: str = "gaussian",
    window_size: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    padding: str = "valid",
    odd_sizes: str = "pad",
    per_channel: bool = True,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """1 - MS-SSIM, exactly 0 for equal images. Arguments, gradients and errors: :func:`ms_ssim`.

    On the CPU it keeps its digits where images are nearly equal, as :func:`fastgan.losses.ssim_loss` does,
    except with ``normalize="none"``.
    """
    check_one_of("reduction", reduction, REDUCTIONS)
    check_range = as_flag("check_range", check_range)
    distance = _distances(
        x, y, data_range, weights=weights, normalize=normalize, odd_sizes=odd_sizes, per_channel=per_channel,
        window=window, window_size=window_size, sigma=sigma, k=k, padding=padding, backend=backend,
    )  # fmt: skip
    if check_range:
        _loss_range.look((0, data_range), x, y)
    return reduced(distance, reduction)


def as_weights(weights: Sequence[float]) -> tuple[float, ...]:
    listed = weights.tolist() if type(weights).__module__ == "numpy" else weights  # type: ignore[attr-defined]
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        raise TypeError(f"weights must be a list of numbers, got {described(weights)}")
    numbers = as_numbers("weights", weights, len(listed))
    if not numbers or min(numbers) < 0:
        raise ValueError(f"weights must be numbers of which none is negative, got {shown(tuple(listed))}")
    return numbers


def least_size(scales: int, window_size: int, padding: str, odd_sizes: str) -> int:
    """The least height and width of images: the coarsest scale, and all contrasts, need a window."""
    coarsest = {"valid": window_size, "same": 1, "reflect": window_size // 2 + 1}[padding]
    least = coarsest
    for _ in range(scales - 1):
        least = max(2 * least - 1 if odd_sizes == "pad" else 2 * least, window_size)
    return least


def check_least_size(
    name: str, image: Tensor, weights: Sequence[float], window_size: int, padding: str, odd_sizes: str
) -> None:
    scales = len(weights)
    least = least_size(scales, window_size, padding, odd_sizes)
    if image.shape[2] < least or image.shape[3] < least:
        raise ValueError(
            f"{name} must have at least {least} x {least} pixels for {scales} scales and windows of "
            f"{window_size} x {window_size}, got shape {tuple(image.shape)} and weights {described(weights)}"
        )


def _distances(
    x: Tensor,
    y: Tensor,
    data_range: float,
    *,
    weights: Sequence[float],
    normalize: str,
    odd_sizes: str,
    per_channel: bool,
    padding: str,
    **options: Any,
) -> Tensor:
    """1 - MS-SSIM: (N, C), or (N, 1) of whole images."""
    powers = as_weights(weights)
    check_one_of("normalize", normalize, NORMALIZATIONS)
    check_one_of("odd_sizes", odd_sizes, ODD_SIZES)
    check_one_of("padding", padding, PADDINGS)
    per_channel = as_flag("per_channel", per_channel)
    check_image("x", x, channels=None)
    check_image("y", y, channels=None)
    check_alike("x", x, "y", y)
    window_size, _ = as_window(options["window"], options["window_size"], options["sigma"])
    check_least_size("x", x, weights, window_size, padding, odd_sizes)
    x, y = both_double(x, y)  # before they are halved
    dtype = torch.promote_types(x.dtype, torch.float32)
    of_scales = []
    for scale in range(len(powers)):
        is_last = scale == len(powers) - 1
        distance = ssim_distance(
            x, y, data_range, contrast=not is_last, padding=padding if is_last else "valid", **options
        )
        of_scales.append((distance if per_channel else distance.mean(dim=1, keepdim=True)).to(dtype))
        if not is_last:
            x, y = _coarser(x, y, odd_sizes)
    return _lost(torch.stack(of_scales), powers, normalize)


def _coarser(x: Tensor, y: Tensor, odd_sizes: str) -> tuple[Tensor, Tensor]:
    """Averages of 2 x 2 pixels; on the CPU as float64, with a difference as exact as that of the images.

    Rounded to float32, averages of nearly equal images have a difference of few digits. Averaging in float64
    would take twice as long: instead one image's averages are rounded, and the other's are these plus the
    averages of the difference. The Triton kernel takes no float64: elsewhere all stay float32.
    """
    x, y = wide(x), wide(y)  # once: each gradient is rounded to a half type once
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return _halved(x, odd_sizes), _halved(y, odd_sizes)
    # The other one depends on both images. It is the one that requires grad, if one alone does.
    if y.requires_grad and not x.requires_grad:
        coarse = _halved(x, odd_sizes).double()
        return coarse, coarse + _halved(y - x, odd_sizes).double()
    coarse = _halved(y, odd_sizes).double()
    return coarse + _halved(x - y, odd_sizes).double(), coarse


def _halved(image: Tensor, odd_sizes: str) -> Tensor:
    height, width = image.shape[2:]
    if odd_sizes == "crop":
        return F.avg_pool2d(image, 2)
    if torch.compiler.is_compiling():
        # As an argument of the pooling, the remainder of a dynamic size would be a reason to recompile. From
        # the other end, windows that reach beyond an odd size are the last ones.
        turned = image.flip(2, 3)
        return F.avg_pool2d(turned, 2, ceil_mode=True, divisor_override=4).flip(2, 3)
    return F.avg_pool2d(image, 2, padding=(height % 2, width % 2))


def _lost(distances: Tensor, weights: tuple[float, ...], normalize: str) -> Tensor:
    """1 minus the product over the first dimension of powers of 1 - distance."""
    if normalize == "none":
        powers = [(1 - distance) ** weight for distance, weight in zip(distances, weights, strict=True)]
        return 1 - torch.stack(powers).prod(dim=0)
    if normalize == "simple":
        distances = distances / 2
    # The slope of a power at 0 is infinite, and times a slope of 0 NaN: leave these numbers out, and set the
    # whole product to 0, unless their weight is 0. NaN itself is not hidden.
    is_gone = distances >= 1
    kept = torch.where(is_gone, 0.0, distances)
    # The product's logarithm keeps the digits that the product itself loses close to 1.
    logarithms = zip(torch.log1p(-kept), weights, strict=True)
    lost = 0 - torch.expm1(sum(weight * one for one, weight in logarithms))  # not -0 for equal images
    counts = [gone for gone, weight in zip(is_gone, weights, strict=True) if weight > 0]
    return torch.where(torch.stack(counts).any(dim=0), 1.0, lost) if counts else lost


class MSSSIMLoss(nn.Module):
    """:func:`ms_ssim_loss` as a module: 1 - MS-SSIM, 0 for equal images.

    Args:
        data_range, reduction, weights, normalize, window, window_size, sigma, k, padding, odd_sizes,
            per_channel, backend: as in :func:`ms_ssim`.
        check_range: as in :func:`ms_ssim`, for this module's first images.

    Input and output: as of :func:`ms_ssim_loss`.

    Raises:
        TypeError, ValueError: as :func:`ms_ssim`, in the constructor and in the call.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        *,
        reduction: str = "mean",
        weights: Sequence[float] = WEIGHTS,
        normalize: str = "relu",
        window: str = "gaussian",
        window_size: int = 11,
        sigma: float = 1.5,
        k: tuple[float, float] = (0.01, 0.03),
        padding: str = "valid",
        odd_sizes: str = "pad",
        per_channel: bool = True,
        backend: str | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__()
        check_one_of("reduction", reduction, REDUCTIONS)
        check_one_of("normalize", normalize, NORMALIZATIONS)
        check_one_of("padding", padding, PADDINGS)
        check_one_of("odd_sizes", odd_sizes, ODD_SIZES)
        as_window(window, window_size, sigma)
        as_constants(data_range, k)
        requested(backend)
        self.data_range = data_range
        self.options: dict[str, Any] = {
            "reduction": reduction, "weights": as_weights(weights), "normalize": normalize, "window": window,
            "window_size": window_size, "sigma": sigma, "k": k, "padding": padding, "odd_sizes": odd_sizes,
            "per_channel": as_flag("per_channel", per_channel), "backend": backend,
        }  # fmt: skip
        self.check_range = as_flag("check_range", check_range)
        self._range_check = GrossRangeCheck("MSSSIMLoss", _PAIR, BY_DATA_RANGE)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = ms_ssim_loss(x, y, self.data_range, **self.options, check_range=False)
        if self.check_range:
            self._range_check.look((0, self.data_range), x, y)
        return loss

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, weights={self.options['weights']}"
