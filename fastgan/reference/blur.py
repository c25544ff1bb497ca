"""Blur of each image with its own kernel, in plain PyTorch. See `fastgan.ops.blur`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Window = tuple[int, int, int, int]
"""The first row and the one after the last, then the same for columns."""


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Convolves all channels of image n with kernel n; zeros beyond the border, like TensorFlow's SAME.

    Tap by tap, although a convolution would be faster, since that would also multiply by taps of weight zero,
    and NaN times zero is NaN.

    Args:
        image: N C H W.
        kernels: N k k with k odd; applied unflipped, like convolutions in deep learning.

    Returns:
        N C H W.
    """
    total = torch.zeros_like(image)
    for row, column, source, target in _taps(image, kernels.shape[-1]):
        weight, pixels = kernels[:, row, column].reshape(-1, 1, 1, 1), _cut(image, source)
        term = weight * torch.where(weight == 0, 0, pixels)
        if kernels.requires_grad:  # taps of weight zero have a gradient, too
            zero = torch.where(weight == 0, weight - weight.detach(), 0)
            term = term + zero * _finite(pixels.detach())
        total = total + F.pad(term, _margins(target, image))
    return total


def blur_kernel_gradient(image: Tensor, kernels: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the kernels, (N, k, k), from the image and the gradient of its blur."""
    moments = torch.zeros_like(kernels)
    for row, column, source, target in _taps(image, kernels.shape[-1]):
        weight, pixels = kernels[:, row, column].reshape(-1, 1, 1, 1), _cut(image, source)
        pixels = torch.where(weight == 0, _finite(pixels), pixels)
        moment = (pixels * _cut(grad, target)).sum(dim=(1, 2, 3))
        moments = moments + F.pad(
            moment[:, None, None], _margins((row, row + 1, column, column + 1), moments)
        )
    return moments


def _finite(image: Tensor) -> Tensor:
    return torch.where(image.isfinite(), image, 0)


def _taps(image: Tensor, size: int) -> Iterator[tuple[int, int, Window, Window]]:
    """Row and column of each tap that reads pixels, the window that it reads, and that of its outputs."""
    height, width = image.shape[2:]
    for row in range(size):
        for column in range(size):
            down, right = row - size // 2, column - size // 2
            if abs(down) < height and abs(right) < width:
                source = (max(down, 0), height + min(down, 0), max(right, 0), width + min(right, 0))
                target = (max(-down, 0), height + min(-down, 0), max(-right, 0), width + min(-right, 0))
                yield row, column, source, target


def _cut(whole: Tensor, window: Window) -> Tensor:
    # Not by indexing, which makes an alias of a whole tensor, for which autograd's own vmap has no rule.
    top, bottom, left, right = window
    return whole.narrow(-2, top, bottom - top).narrow(-1, left, right - left)


def _margins(window: Window, whole: Tensor) -> list[int]:
    """The margins left, right, above and below of a window, in the order of `F.pad`."""
    top, bottom, left, right = window
    height, width = whole.shape[-2:]
    return [left, width - right, top, height - bottom]
