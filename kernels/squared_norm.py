"""Triton kernels of `fastgan.ops.squared_norm`, which tells what is computed.

`partial` gives each program a part of one sample; `finish` adds a sample's parts in a fixed order, so the
same input gives the same bits. Two launches forward, no atomics; one backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from fastgan.kernels._samples import finish, scale
from torch import Tensor

# Chosen by arithmetic, not yet by measurement: 4 warps give each thread 8 elements, two 16-byte accesses in
# float32, and a program adds PASSES of these before its one reduction.
BLOCK = 1024
PASSES = 8
WARPS = 4


@triton.jit
def partial(
    x,  # [samples, elements]
    partial_sums,  # [samples, parts] float32
    elements,
    parts,
    BLOCK: tl.constexpr,
    PASSES: tl.constexpr,
):
    sample = (tl.program_id(0) // parts).to(tl.int64)
    part = (tl.program_id(0) % parts).to(tl.int64)
    x += sample * elements
    sums = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(PASSES):
        index = (part * PASSES + step) * BLOCK + tl.arange(0, BLOCK)
        values = tl.load(x + index, index < elements, 0.0).to(tl.float32)
        sums += values * values
    tl.store(partial_sums + tl.program_id(0), tl.sum(sums))


def squared_norm(x: Tensor) -> Tensor:
    """(N,) float32, on x's device and current stream; x is dense, sample after sample."""
    samples = x.shape[0]
    elements = x.numel() // samples
    parts = triton.cdiv(elements, BLOCK * PASSES)
    partial_sums = x.new_empty((samples, parts), dtype=torch.float32)
    norms = x.new_empty(samples, dtype=torch.float32)
    with torch.cuda.device_of(x):
        partial[(samples * parts,)](
            x, partial_sums, elements, parts, BLOCK=BLOCK, PASSES=PASSES, num_warps=WARPS
        )
        finish[(samples,)](partial_sums, norms, parts, 1, BLOCK=min(BLOCK, triton.next_power_of_2(parts)))
    return norms


def squared_norm_backward(x: Tensor, grad: Tensor) -> Tensor:
    """2 grad x, like x."""
    samples = x.shape[0]
    elements = x.numel() // samples
    parts = triton.cdiv(elements, BLOCK)
    result = torch.empty_like(x)
    with torch.cuda.device_of(x):
        scale[(samples * parts,)](
            x, grad, result, elements, parts, 2.0, IN_PLACE=False, BLOCK=BLOCK, num_warps=WARPS
        )
    return result
