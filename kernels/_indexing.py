"""What the kernels share about counting elements."""

from __future__ import annotations

import triton.language as tl


def cdiv(count: int, size: int) -> int:
    """How many blocks of the size hold so many. Triton's own takes the host 2 us, a fifth of a launch."""
    return -(-count // size)


def next_power_of_2(count: int) -> int:
    """The smallest that is no less than a positive number; Triton's own takes as long as its `cdiv`."""
    return 1 << (count - 1).bit_length()


def index_type(count: int, block: int) -> tl.dtype:
    """int32 as long as the indices of the last program's block fit in it: 64-bit division is slow."""
    return tl.int32 if count + block < 2**31 else tl.int64
