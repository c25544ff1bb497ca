"""pytorch_msssim"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastgan.compat import pytorch_msssim
from fastgan.compat.pytorch_msssim import known_window
from fastgan.losses.ms_ssim import WEIGHTS, least_size
from fastgan.ops._checks import FLOATING, is_finite
from fastgan.ops.ssim import LARGEST_WINDOW
from fastgan.patching._declare import Kept, Replacement, Target
from fastgan.patching._probes import images, with_gradients

_MODULE = "pytorch_msssim.ssim"
_SERVES = (
    "of images N C H W that are not smaller than the window, in float32 and float64, with a Gaussian or "
    "uniform window and Python's numbers; MS-SSIM's gradient is 0 where it would be NaN"
)


def _is_served(
    X: Any, Y: Any, data_range: Any, win_size: Any, win_sigma: Any, win: Any, weights: Any, K: Any
) -> bool:
    if not (isinstance(X, Tensor) and isinstance(Y, Tensor) and X.shape == Y.shape and X.dim() == 4):
        return False
    # Half types are computed in float32 here, but give results of their own type there.
    if (
        X.dtype != Y.dtype
        or X.dtype not in FLOATING
        or X.itemsize < 4
        or X.device != Y.device
        or not X.numel()
    ):
        return False
    if not (_are_numbers(data_range, win_sigma, *K, *weights) and _are_numbers(win_size, kind=int)):
        return False
    if data_range <= 0 or win_sigma <= 0 or min(*K, *weights) < 0:
        return False
    size = win_size if win is None else win.shape[-1]
    if size % 2 == 0 or not 0 < size <= LARGEST_WINDOW:
        return False
    if min(X.shape[2:]) < least_size(len(weights), size, "valid", "pad"):
        return False
    # While it is compiled, a tensor's taps cannot be read.
    return win is None or (not torch.compiler.is_compiling() and known_window(win) is not None)


def _are_numbers(*values: Any, kind: Any = (int, float)) -> bool:
    """Whether these are finite numbers of Python, whereas the package computes with tensors, too."""
    return all([isinstance(value, kind) and type(value) is not bool and is_finite(value) for value in values])


def _ssim(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def ssim(
        X: Tensor,
        Y: Tensor,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        win: Tensor | None = None,
        K: Any = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> Tensor:
        served = _is_served(X, Y, data_range, win_size, win_sigma, win, (1.0,), K)
        if served:
            size_average, nonnegative_ssim = bool(size_average), bool(nonnegative_ssim)
        arguments = X, Y, data_range, size_average, win_size, win_sigma, win, K, nonnegative_ssim
        return pytorch_msssim.ssim(*arguments, check_range=False) if served else original(*arguments)

    return ssim


def _ms_ssim(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def ms_ssim(
        X: Tensor,
        Y: Tensor,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        win: Tensor | None = None,
        weights: Any = None,
        K: Any = (0.01, 0.03),
    ) -> Tensor:
        of_scales = WEIGHTS if weights is None else weights
        served = _is_served(X, Y, data_range, win_size, win_sigma, win, of_scales, K)
        if served:
            size_average = bool(size_average)
        arguments = X, Y, data_range, size_average, win_size, win_sigma, win, weights, K
        return pytorch_msssim.ms_ssim(*arguments, check_range=False) if served else original(*arguments)

    return ms_ssim


def _probe_ssim(function: Any) -> Iterator[Tensor]:
    pair = images(2, 3, 14, 17), images(2, 3, 14, 17, seed=1)
    yield from with_gradients(lambda x, y: function(x, y, 1.0), *pair)
    yield from with_gradients(
        lambda x, y: function(x, y, 2.0, False, 7, 2.0, None, (0.02, 0.04), True), *pair
    )


def _probe_ms_ssim(function: Any) -> Iterator[Tensor]:
    x = images(1, 1, 161, 163)
    yield from with_gradients(lambda x, y: function(x, y, 1.0, False), x, (x + images(*x.shape, seed=1)) / 2)


TARGET = Target(
    "pytorch_msssim",
    (
        Replacement(_MODULE, "ssim", adapt=_ssim, probe=_probe_ssim, serves=_SERVES),
        Replacement(_MODULE, "ms_ssim", adapt=_ms_ssim, probe=_probe_ms_ssim, serves=_SERVES),
    ),
    (
        Kept("pytorch_msssim.SSIM", "it calls ssim, which is replaced"),
        Kept("pytorch_msssim.MS_SSIM", "it calls ms_ssim, which is replaced"),
    ),
)
