"""Evaluation metrics: distortion, perception, distributions, bits; by torchmetrics where it has them.

Needs torchmetrics, which the extra `train` installs, and imports it at first use, which takes a second.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from fastgan._sets_of_images import FrechetDistance, nearness, precision_recall
from fastgan.losses import LPIPS, LPIPSLoss
from fastgan.losses._backbones import MissingWeights
from fastgan.ops._checks import (
    as_finite,
    as_flag,
    as_whole_number,
    check_alike,
    check_image,
    check_real,
    check_same_device,
)
from fastgan.ops._value_range import BY_DATA_RANGE, GrossRangeCheck
from fastgan.ops.ssim import ssim_distance

# At once, rather than when a run evaluates for the first time.
if importlib.util.find_spec("torchmetrics") is None:
    raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

__all__ = [
    "LPIPS",
    "FrechetDistance",
    "bit_accuracy",
    "luma",
    "nearness",
    "precision_recall",
    "psnr",
    "psnr_y",
    "ssim",
    "ssim_y",
]

SSIM_RADIUS = 5  # of the Gaussian window with sigma 1.5
_PAIR = ("images", "references")
_psnr_range = GrossRangeCheck("psnr", _PAIR, BY_DATA_RANGE)
_ssim_range = GrossRangeCheck("ssim", _PAIR, BY_DATA_RANGE)
_psnr_y_range, _ssim_y_range = GrossRangeCheck("psnr_y", _PAIR), GrossRangeCheck("ssim_y", _PAIR)
_luma_range = GrossRangeCheck("luma", ("images",))


def psnr(images: Tensor, references: Tensor, data_range: float = 1.0, *, check_range: bool = True) -> Tensor:
    """The peak signal-to-noise ratio in dB, mean over images, 0-d.

    Args:
        images, references: N C H W.
        data_range: the largest minus the smallest possible value.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1] with a data range of 1, or in [0, 1] with 255. Never
            synchronizes with a GPU.

    Raises:
        TypeError, ValueError: arguments that are not such images, unequal shapes, or a range that is not
            positive.
    """
    _check_pair(images, references)
    data_range = _positive("data_range", data_range)
    if as_flag("check_range", check_range):
        _psnr_range.look((0, data_range), images, references)
    from torchmetrics.functional.image import peak_signal_noise_ratio

    per_image = peak_signal_noise_ratio(
        images, references, data_range=data_range, reduction="none", dim=(1, 2, 3)
    )
    return per_image.mean()


def ssim(images: Tensor, references: Tensor, data_range: float = 1.0, *, check_range: bool = True) -> Tensor:
    """The mean structural similarity, 0-d; Wang et al. 2004. Arguments and errors are those of :func:`psnr`.

    The value is torchmetrics', computed by :func:`fastgan.ops.ssim_distance`; :func:`fastgan.losses.ssim` has
    other windows and borders.

    Raises:
        ValueError: fewer than 6x6 pixels, since images are mirrored at the border for windows of 11x11.
    """
    check_image("images", images, channels=None)
    check_image("references", references, channels=None)
    _check_pair(images, references)
    if min(images.shape[2:]) <= SSIM_RADIUS:
        raise ValueError(f"images must have at least 6 x 6 pixels, got shape {tuple(images.shape)}")
    data_range = _positive("data_range", data_range)
    if as_flag("check_range", check_range):
        _ssim_range.look((0, data_range), images, references)
    return 1 - ssim_distance(images, references, data_range, padding="reflect").mean()


def luma(images: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """Y of ITU-R BT.601 as by MATLAB's rgb2ycbcr, not rounded: N 3 H W in [0, 1] to N 1 h w in [16, 235].

    Args:
        border: pixels cropped from each side; super-resolution crops `scale` of them.
        check_range: whether to check the process's first images and to issue a RuntimeWarning, once, for
            8-bit values or images in [-1, 1]. Never synchronizes with a GPU.

    Raises:
        TypeError, ValueError: the images are no colour images, or the border leaves nothing.
    """
    inner = _luma("images", images, border)
    if as_flag("check_range", check_range):
        _luma_range.look((0, 1), images)
    return inner


def _luma(name: str, images: Tensor, border: int) -> Tensor:
    check_image(name, images)
    border = as_whole_number("border", border, least=0)
    height, width = images.shape[2:]
    if min(height, width) <= 2 * border:
        raise ValueError(
            f"border must leave something of {height}x{width}, got {border} for {name} of shape "
            f"{tuple(images.shape)}"
        )
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=images.dtype, device=images.device)
    inner = images[:, :, border : height - border, border : width - border]
    return (inner * weights.view(3, 1, 1)).sum(1, keepdim=True) + 16


def _check_pair(images: Tensor, references: Tensor) -> None:
    """Checks two batches of images of equal shape, which may be 8-bit."""
    for name, batch in (("images", images), ("references", references)):
        check_real(name, batch)
        if batch.dim() != 4 or batch.numel() == 0:
            raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(batch.shape)}")
    check_alike("images", images, "references", references)


def _positive(name: str, value: float) -> float:
    number = as_finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return number


def psnr_y(images: Tensor, references: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """:func:`psnr` of the lumas in dB with a data range of 255, the usual measure of super-resolution.

    Args:
        images, references: N 3 H W in [0, 1].
        border, check_range: as those of :func:`luma`.

    Raises:
        TypeError, ValueError: as :func:`luma`; unequal shapes.
    """
    _check_pair(images, references)
    a, b = _luma("images", images, border), _luma("references", references, border)
    if as_flag("check_range", check_range):
        _psnr_y_range.look((0, 1), images, references)
    return psnr(a, b, data_range=255.0, check_range=False)


def ssim_y(images: Tensor, references: Tensor, border: int = 0, *, check_range: bool = True) -> Tensor:
    """The mean structural similarity of the lumas, 0-d, over windows that lie within the image.

    That is the definition of Wang et al. 2004 and of super-resolution; :func:`ssim` also counts windows that
    reach over the border into the mirrored image. Arguments are those of :func:`psnr_y`.

    Raises:
        TypeError, ValueError: as :func:`psnr_y`; the border leaves fewer than 11x11 pixels, a window's size.
    """
    _check_pair(images, references)
    a, b = _luma("images", images, border), _luma("references", references, border)
    if min(a.shape[2:]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(
            f"border must leave at least 11x11 pixels of images, got {a.shape[2]}x{a.shape[3]} for border "
            f"{border} and shape {tuple(images.shape)}"
        )
    if as_flag("check_range", check_range):
        _ssim_y_range.look((0, 1), images, references)
    return 1 - ssim_distance(a, b, data_range=255.0).mean()


def installed_lpips(device: torch.device | str = "cpu", download: bool = False) -> LPIPSLoss | None:
    """LPIPS (AlexNet) of images in [0, 1]; prints a line and returns None where its weights are missing.

    Args:
        download: whether torch hub downloads missing weights, see :class:`fastgan.losses.LPIPS`.
    """
    try:
        return LPIPSLoss("alex", download=download).to(device)
    except MissingWeights as error:
        print(f"LPIPS is left out of the evaluation: {error.needed}")
        return None


def bit_accuracy(logits: Tensor, bits: Tensor) -> Tensor:
    """The share of logits whose sign agrees with the bit, 0-d.

    Args:
        logits, bits: equal shapes; bits are 0 and 1.

    Raises:
        TypeError, ValueError: arguments that are not tensors of real numbers, or unequal shapes.
    """
    check_real("logits", logits)
    check_real("bits", bits)
    check_same_device(logits=logits, bits=bits)
    if logits.shape != bits.shape:
        raise ValueError(
            f"logits and bits must have one shape, got {tuple(logits.shape)}, {tuple(bits.shape)}"
        )
    return ((logits > 0) == (bits > 0.5)).float().mean()
