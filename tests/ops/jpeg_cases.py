"""Images for the JPEG kernels, and pixels in which two kernels may differ."""

from __future__ import annotations

import torch


def out_of_range(size, batch=2):
    """Images that activate every clamp."""
    return torch.rand(batch, 3, *size) * 1.4 - 0.2


def undecided(image, tables, seed, options):
    """Pixels of a coefficient so near to a jump of its surrogate that the last places of float32 decide.

    "cubic" jumps by three quarters of a step between two whole numbers, "at_zero" by three eighths at 1/2;
    products and sums are contracted otherwise on a GPU, and one of a hundred thousand coefficients falls on
    the other side. What noise of ten times that size moves by more than it should, depends on such a one.
    """
    first = torch.ops.fastgan.jpeg(image, tables, seed, *options, False)[0]
    moves = torch.zeros_like(image, dtype=torch.bool)
    for _ in range(8):
        noise = 2e-6 * (2 * torch.rand_like(image) - 1)
        moved = torch.ops.fastgan.jpeg(image + noise, tables, seed, *options, False)[0]
        moves |= 255 * (moved - first).abs() > 5e-3
    return moves
