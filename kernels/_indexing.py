"""Integer arithmetic on sizes and indices, shared by the kernels."""

from __future__ import annotations

import triton.language as tl


def cdiv(count: int, size: int) -> int:
    """The quotient, rounded up. triton.cdiv takes 2 us on the host, a fifth of a launch."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """The smallest power of two >= count, which is positive; Triton's function is as slow as its `cdiv`."""
    return 1 << (count - 1).bit_length()


def index_type(count: int, block: int) -> tl.dtype:
    """int32 if the indices of the last program's block fit, because 64-bit division is slow; else int64."""
    return tl.int32 if count + block < 2**31 else tl.int64
