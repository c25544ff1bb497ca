"""Images in unusual memory layouts, and the error of a result."""

from __future__ import annotations

import torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = ["contiguous", "channels_last", "strided", "expanded"]


def image(size, dtype=torch.float32, device="cpu", layout="contiguous", channels=3):
    """A fresh random image N C H W in [0, 1] that requires grad."""
    n, h, w = size
    if layout == "channels_last":
        picture = torch.rand(n, h, w, channels).permute(0, 3, 1, 2)
    elif layout == "strided":
        picture = torch.rand(n, channels + 2, w + 3, 2 * h)[:, 1:-1, 2:-1, ::2].transpose(-1, -2)
    elif layout == "expanded":
        picture = torch.rand(1, channels, h, 1).expand(n, channels, h, w)
    else:
        picture = torch.rand(n, channels, h, w)
    return picture.to(device=device, dtype=dtype).detach().requires_grad_()


def exact(picture):
    """The same values in float64 on the CPU, requiring grad."""
    return picture.detach().double().cpu().requires_grad_()


def relative_error(actual, expected):
    error = (actual.detach().cpu().double() - expected.detach()).norm()
    return (error / expected.detach().norm().clamp(min=1e-30)).item()


def largest_error(actual, expected):
    """The largest error relative to the largest expected value: few pixels vanish in `relative_error`."""
    error = (actual.detach().cpu().double() - expected.detach().cpu()).abs().max()
    return (error / expected.detach().cpu().abs().max()).item()
