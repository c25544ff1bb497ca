"""Names and signatures of pytorch-msssim: values, not losses, with its default data range of 255.

The results are float32 (float64 of float64 images) and computed in float32, where pytorch-msssim computes in
half precision. A window must be the same for all channels, with a sum of 1: a Gaussian, or of equal taps.
Others are refused, and so are images of five dimensions and those that are smaller than the window.
`SSIM` and `MS_SSIM` have no parameters and no state, as in the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.losses.ms_ssim import WEIGHTS, as_weights, check_least_size
from fastgan.losses.ms_ssim import ms_ssim as _ms_ssim
from fastgan.losses.ssim import ssim as _ssim
from fastgan.ops._checks import (
    as_flag,
    as_whole_number,
    check_alike,
    check_image,
    check_one_of,
    described,
    is_floating,
)
from fastgan.ops._dispatch import requested
from fastgan.ops._value_range import BY_DATA_RANGE, GrossRangeCheck
from fastgan.ops.ssim import LARGEST_WINDOW, as_constants, as_positive, as_window_size, check_size
from fastgan.reference.ssim import window_taps

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]

# Windows are float32 tensors, of which a sum differs from 1 by some roundings.
_WINDOW_TOLERANCE = 1e-5
_ssim_range, _ms_ssim_range = (
    GrossRangeCheck(name, ("X", "Y"), BY_DATA_RANGE) for name in ("ssim", "ms_ssim")
)


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),
    nonnegative_ssim: bool = False,
    *,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """SSIM with the signature of `pytorch_msssim.ssim`: the value, 1 for equal images.

    Args:
        X, Y: N C H W.
        data_range: largest minus smallest possible value.
        size_average: the mean over images, 0-d; False: (N,).
        win_size, win_sigma: of the Gaussian window.
        win: a window (C, 1, 1, size) in their place, on the CPU, since its taps are read.
        K: K1 and K2.
        nonnegative_ssim: replace negative means of a channel by 0.
        backend, check_range: as in :func:`fastgan.losses.ssim`.

    Raises:
        TypeError, ValueError: as :func:`fastgan.losses.ssim`; a window that is not one of those above.
    """
    _check_images(X, Y)
    window = _window(win, win_size, win_sigma)
    check_size("X", X, window["window_size"], "valid")
    options = _options(data_range, size_average, K, check_range)
    similarity = _ssim(
        X, Y, data_range, **window, **options, nonnegative=as_flag("nonnegative_ssim", nonnegative_ssim),
        backend=backend,
    )  # fmt: skip
    if check_range:
        _ssim_range.look((0, data_range), X, Y)
    return similarity


def ms_ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | None = None,
    K: Sequence[float] = (0.01, 0.03),
    *,
    backend: str | None = None,
    check_range: bool = True,
) -> Tensor:
    """MS-SSIM with the signature of `pytorch_msssim.ms_ssim`: the value, 1 for equal images.

    A channel with a contrast that is not positive has the value 0, as there, and the gradient 0, where the
    package's is NaN.

    Args:
        X, Y: N C H W.
        data_range, size_average, win_size, win_sigma, win, K, backend, check_range: as in :func:`ssim`.
        weights: of the scales; None: the paper's five.

    Raises:
        TypeError, ValueError: as :func:`fastgan.losses.ms_ssim`; a window as in :func:`ssim`.
    """
    _check_images(X, Y)
    window = _window(win, win_size, win_sigma)
    weights = WEIGHTS if weights is None else as_weights(weights)
    check_least_size("X", X, weights, window["window_size"], "valid", "pad")
    options = _options(data_range, size_average, K, check_range)
    similarity = _ms_ssim(X, Y, data_range, **window, **options, weights=weights, backend=backend)
    if check_range:
        _ms_ssim_range.look((0, data_range), X, Y)
    return similarity


class SSIM(nn.Module):
    """:func:`ssim` as a module, with the signature of `pytorch_msssim.SSIM`: the value, not a loss.

    Args:
        channel, spatial_dims: of the images; only 2 dimensions.
        data_range, size_average, win_size, win_sigma, K, nonnegative_ssim, backend, check_range: as in
            :func:`ssim`.

    Raises:
        TypeError, ValueError: as :func:`ssim`; other dimensions than 2.
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
        *,
        backend: str | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__()
        self.win = _gaussian(win_size, win_sigma, channel, spatial_dims)
        self.win_size, self.win_sigma = win_size, win_sigma
        self.size_average, self.data_range, self.K = size_average, data_range, K
        self.nonnegative_ssim = as_flag("nonnegative_ssim", nonnegative_ssim)
        _options(data_range, size_average, K, check_range)
        requested(backend)
        self._options: dict[str, Any] = {"backend": backend, "check_range": check_range}

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, K=self.K,
            nonnegative_ssim=self.nonnegative_ssim, **self._options,
        )  # fmt: skip


class MS_SSIM(nn.Module):
    """:func:`ms_ssim` as a module, with the signature of `pytorch_msssim.MS_SSIM`: the value, not a loss.

    Args:
        channel, spatial_dims: of the images; only 2 dimensions.
        data_range, size_average, win_size, win_sigma, weights, K, backend, check_range: as in
            :func:`ms_ssim`.

    Raises:
        TypeError, ValueError: as :func:`ms_ssim`; other dimensions than 2.
    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: Sequence[float] = (0.01, 0.03),
        *,
        backend: str | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__()
        self.win = _gaussian(win_size, win_sigma, channel, spatial_dims)
        self.win_size, self.win_sigma = win_size, win_sigma
        self.size_average, self.data_range, self.K = size_average, data_range, K
        self.weights = None if weights is None else as_weights(weights)
        _options(data_range, size_average, K, check_range)
        requested(backend)
        self._options: dict[str, Any] = {"backend": backend, "check_range": check_range}

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return ms_ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, weights=self.weights,
            K=self.K, **self._options,
        )  # fmt: skip


# --- arguments ------------------------------------------------------------------------------------------


def _check_images(X: Tensor, Y: Tensor) -> None:
    check_image("X", X, channels=None)
    check_image("Y", Y, channels=None)
    check_alike("X", X, "Y", Y)


def _options(
    data_range: float, size_average: bool, K: Sequence[float], check_range: bool
) -> dict[str, Any]:  # fmt: skip
    """The arguments of the losses, checked under this package's names."""
    as_constants(data_range, K, "K")
    as_flag("check_range", check_range)
    reduction = "mean" if as_flag("size_average", size_average) else "none"
    return {"k": K, "reduction": reduction, "check_range": False}


def _window(win: Tensor | None, win_size: int, win_sigma: float) -> dict[str, Any]:
    """The arguments of a window."""
    if win is None:
        size, sigma = as_window_size("win_size", win_size), as_positive("win_sigma", win_sigma)
        return {"window_size": size, "sigma": sigma}
    window = known_window(win)
    if window is None:
        raise ValueError(
            "win must be a Gaussian or of equal taps, alike in all channels, with a sum of 1, on the CPU, "
            f"got {described(win)}"
        )
    return window


def known_window(win: Any) -> dict[str, Any] | None:
    """The arguments of a window that is given by its taps, or None of one that has none."""
    if not isinstance(win, Tensor) or win.device.type != "cpu" or win.dim() == 0 or win.shape[-1] % 2 == 0:
        return None
    if win.numel() == 0 or not is_floating(win) or win.shape[-1] > LARGEST_WINDOW:
        return None
    rows = win.detach().double().reshape(-1, win.shape[-1])
    taps = rows[0]
    size, centre = len(taps), len(taps) // 2
    if not (rows - taps).abs().max() <= _WINDOW_TOLERANCE:  # nor if it is NaN
        return None
    inner, outer = float(taps[centre]), float(taps[centre - 1]) if size > 1 else 0.0
    if size == 1 or abs(inner - outer) <= _WINDOW_TOLERANCE / size:
        window, sigma = "uniform", 1.5
    elif 0 < outer < inner:
        window, sigma = "gaussian", 1 / math.sqrt(2 * math.log(inner / outer))
    else:
        return None
    half = window_taps(size, sigma if window == "gaussian" else 0.0)
    expected = torch.tensor(half[:0:-1] + half, dtype=torch.float64)
    if (taps - expected).abs().max() > _WINDOW_TOLERANCE:
        return None
    return {"window": window, "window_size": size, "sigma": sigma}


def _gaussian(size: int, sigma: float, channels: int, dimensions: int) -> Tensor:
    """(C, 1, 1, size), as the package's modules keep it."""
    check_one_of("spatial_dims", dimensions, (2,))
    size, sigma = as_window_size("win_size", size), as_positive("win_sigma", sigma)
    half = window_taps(size, sigma)
    return torch.tensor(half[:0:-1] + half).repeat(as_whole_number("channel", channels), 1, 1, 1)
