"""Filters, and upfirdn2d and filtered_lrelu step by step: zeros inserted, padding, convolution, slicing."""

from __future__ import annotations

import random

import torch
from torch.nn import functional as F


def taps(*shape, seed=0):
    """Without symmetry; their sum is positive."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) + 0.1


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def four(padding):
    if isinstance(padding, int):
        return (padding,) * 4
    return tuple(padding) if len(padding) == 4 else (padding[0],) * 2 + (padding[1],) * 2


def upfirdn2d_by_steps(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1.0):
    """In the dtype of x, by PyTorch's operations alone."""
    (up_x, up_y), (down_x, down_y), (left, right, top, bottom) = pair(up), pair(down), four(padding)
    n, c, h, w = x.shape
    spread = torch.zeros(n, c, h * up_y, w * up_x, dtype=x.dtype)
    spread[:, :, ::up_y, ::up_x] = x
    padded = F.pad(spread, [max(margin, 0) for margin in (left, right, top, bottom)])
    rows = slice(max(-top, 0), padded.shape[2] - max(-bottom, 0))
    padded = padded[:, :, rows, max(-left, 0) : padded.shape[3] - max(-right, 0)]
    f = torch.ones(1, 1, dtype=x.dtype) if f is None else f.to(x.dtype)
    plane = f[:, None] * f[None, :] if f.dim() == 1 else f
    plane = plane if flip_filter else plane.flip(0, 1)
    filtered = F.conv2d(padded, plane.expand(c, 1, *plane.shape), groups=c)
    return gain * filtered[:, :, ::down_y, ::down_x]


def filtered_lrelu_by_steps(
    x,
    fu=None,
    fd=None,
    b=None,
    up=1,
    down=1,
    padding=0,
    gain=2**0.5,
    slope=0.2,
    clamp=None,
    flip_filter=False,
):
    x = x if b is None else x + b[:, None, None]
    x = upfirdn2d_by_steps(x, fu, up, 1, padding, flip_filter, up**2)
    x = gain * F.leaky_relu(x, slope)
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return upfirdn2d_by_steps(x, fd, 1, down, 0, flip_filter)


def drawn_filter(draw: random.Random):
    """None, one axis, or two, of up to 16 taps."""
    kind, seed = draw.choice(["none", "line", "line", "plane", "outer"]), draw.randrange(1000)
    if kind == "none":
        return None
    if kind == "line":
        return taps(draw.choice([1, 2, 3, 6, 12, 13, 16]), seed=seed)
    height, width = draw.choice([1, 2, 4, 7]), draw.choice([1, 3, 4, 5])
    if kind == "plane":
        return taps(height, width, seed=seed)
    return taps(height, 1, seed=seed) * taps(1, width, seed=seed + 1)


def size_of(f):
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def drawn_margin(draw: random.Random, size: int, least: int) -> tuple[int, int]:
    """Padding of an axis of `size` pixels, negative too, that leaves at least `least` of them."""
    before = draw.randrange(-size, 9)
    after = draw.randrange(-4, 9)
    return before, max(after, least - size - before)


def drawn_upfirdn2d(draw: random.Random):
    """Valid options, and a size that is smaller than the filter at times."""
    f, size = drawn_filter(draw), (draw.choice([1, 2, 5, 16, 23]), draw.choice([1, 3, 8, 19, 33]))
    width, height = size_of(f)
    up, down = [draw.choice([1, 2, 3, 4]) for _ in "xy"], [draw.choice([1, 2, 3, 4, 5]) for _ in "xy"]
    along_x = drawn_margin(draw, size[1] * up[0], width)
    along_y = drawn_margin(draw, size[0] * up[1], height)
    options = {
        "up": up, "down": down, "padding": [*along_x, *along_y], "flip_filter": draw.random() < 0.5,
        "gain": draw.choice([1.0, 2.5, -0.5]),
    }  # fmt: skip
    return f, size, options


def drawn_filtered_lrelu(draw: random.Random):
    fu, fd, size = drawn_filter(draw), drawn_filter(draw), (draw.choice([1, 5, 16]), draw.choice([1, 8, 19]))
    (width, height), (second_width, second_height) = size_of(fu), size_of(fd)
    up, down = draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 3, 4])
    along_x = drawn_margin(draw, size[1] * up, width + second_width - 1)
    along_y = drawn_margin(draw, size[0] * up, height + second_height - 1)
    options = {
        "up": up, "down": down, "padding": [*along_x, *along_y], "flip_filter": draw.random() < 0.5,
        "gain": draw.choice([2**0.5, 0.7]), "slope": draw.choice([0.2, 0.0, 0.5]),
        "clamp": draw.choice([None, 0.8]),
    }  # fmt: skip
    return fu, fd, size, options
