"""Shared by kernels that compute one number per sample of a batch: summing its parts, scaling by it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def finish(
    partial_sums,  # [samples, parts] float32
    results,  # [samples] float32
    parts,
    divisor,
    BLOCK: tl.constexpr,
):
    """Adds a sample's parts in a fixed order, so that the same input gives the same bits, and divides."""
    sample = tl.program_id(0).to(tl.int64)
    partial_sums += sample * parts
    lane = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, parts, BLOCK):
        sums += tl.load(partial_sums + begin + lane, begin + lane < parts, 0.0).to(tl.float64)
    tl.store(results + sample, (tl.sum(sums) / divisor).to(tl.float32))


@triton.jit
def scale(
    x,  # [samples, elements]
    grad,  # [samples]
    result,  # [samples, elements]; may be x itself
    elements,
    parts,
    factor,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Multiplies each sample by the factor and by its own gradient."""
    sample = (tl.program_id(0) // parts).to(tl.int64)
    index = (tl.program_id(0) % parts).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale_of_sample = factor * tl.load(grad + sample).to(tl.float32)
    inside = index < elements
    if IN_PLACE:  # a factor of 1, which is only known on the device, must not cost a pass over memory
        inside = index < tl.where(scale_of_sample == 1.0, 0, elements)
    values = tl.load(x + sample * elements + index, inside, 0.0).to(tl.float32)
    tl.store(
        result + sample * elements + index, (scale_of_sample * values).to(result.dtype.element_ty), inside
    )
