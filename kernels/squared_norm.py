"""Triton kernels of `fastgan.ops.squared_norm`, which documents the formula.

A small sample is summed by one program, in one launch. Larger ones are divided among programs of
`sum_squares`, and `finish` adds a sample's parts: in a fixed order, so the same input gives the same bits,
and without atomics. One launch backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels._indexing import cdiv, next_power_of_2
from fastgan.kernels._samples import finish, scale

# Chosen by arithmetic, not yet by measurement: 4 warps give each thread 8 elements, two 16-byte accesses in
# float32, and a program adds PASSES of these blocks before its only reduction.
BLOCK = 1024
PASSES = 8
WARPS = 4
# The most elements of a sample that one program sums alone, with 64 KiB of float32 in flight: that takes some
# 3 us more than dividing it, which is what a second launch would take.
ALONE = 1 << 15
ALONE_BLOCK, ALONE_PASSES, ALONE_WARPS = 4096, 4, 16


@triton.jit
def sum_squares(
    x,  # [samples, elements]
    sums,  # [samples, parts] float32
    elements,
    parts,
    share,  # elements per part
    BLOCK: tl.constexpr,
    PASSES: tl.constexpr,
):
    sample = (tl.program_id(0) // parts).to(tl.int64)
    part = (tl.program_id(0) % parts).to(tl.int64)
    x += sample * elements
    squares = tl.zeros([BLOCK], tl.float32)
    for begin in range(part * share, tl.minimum((part + 1) * share, elements), BLOCK * PASSES):
        for step in tl.static_range(PASSES):
            index = begin + step * BLOCK + tl.arange(0, BLOCK)
            values = tl.load(x + index, index < elements, 0.0).to(tl.float32)
            squares += values * values
    tl.store(sums + tl.program_id(0), tl.sum(squares))


def squared_norm(x: Tensor) -> Tensor:
    """(N,) float32, on x's device and current stream; x is dense, sample after sample."""
    samples = x.shape[0]
    elements = x.numel() // samples
    norms = x.new_empty(samples, dtype=torch.float32)
    with torch.cuda.device_of(x):
        if elements <= ALONE:
            sum_squares[(samples,)](
                x, norms, elements, 1, elements, BLOCK=ALONE_BLOCK, PASSES=ALONE_PASSES,
                num_warps=ALONE_WARPS,
            )  # fmt: skip
            return norms
        share = BLOCK * PASSES
        parts = cdiv(elements, share)
        sums = x.new_empty((samples, parts), dtype=torch.float32)
        sum_squares[(samples * parts,)](
            x, sums, elements, parts, share, BLOCK=BLOCK, PASSES=PASSES, num_warps=WARPS
        )
        finish[(samples,)](sums, norms, parts, 1, BLOCK=min(BLOCK, next_power_of_2(parts)))
    return norms


def squared_norm_backward(x: Tensor, grad: Tensor) -> Tensor:
    """2 grad x, like x."""
    samples = x.shape[0]
    elements = x.numel() // samples
    parts = cdiv(elements, BLOCK)
    result = torch.empty_like(x)
    with torch.cuda.device_of(x):
        scale[(samples * parts,)](
            x, grad, result, elements, parts, 2.0, IN_PLACE=False, BLOCK=BLOCK, num_warps=WARPS
        )
    return result
