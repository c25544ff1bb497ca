"""upfirdn2d and filtered_lrelu of PyTorch's operations, as stylegan3's `impl='ref'` computes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, ...] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Zeros inserted, padding, a convolution per axis or one of both, slicing; no padding is negative."""
    n, channels, height, width = x.shape
    x = F.pad(x.reshape(n, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.reshape(n, channels, height * up, width * up), padding)
    taps = (f * gain ** (f.dim() / 2)).flip(tuple(range(f.dim())))
    for weight in (taps[None, :], taps[:, None]) if f.dim() == 1 else (taps,):
        x = F.conv2d(x, weight.repeat(channels, 1, 1, 1), groups=channels)
    return x[:, :, ::down, ::down]


def filtered_lrelu(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, up: int, down: int, padding: tuple[int, ...], clamp: float
) -> Tensor:
    """Bias, upsampling, activation with its gain and clamp, downsampling."""
    x = upfirdn2d(x + b[:, None, None], fu, up, 1, padding, up**2)
    x = (F.leaky_relu(x, 0.2) * math.sqrt(2)).clamp(-clamp, clamp)
    return upfirdn2d(x, fd, 1, down)


def low_pass(taps: int, factor: int) -> Tensor:
    """A windowed sinc of sum 1, as StyleGAN3's filters for a change of rate by this factor."""
    places = torch.arange(taps) - (taps - 1) / 2
    f = torch.sinc(places / factor) * torch.kaiser_window(taps, periodic=False, beta=8.0)
    return f / f.sum()
