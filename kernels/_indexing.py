"""What the kernels share about counting elements."""

from __future__ import annotations

import triton.language as tl


def index_type(count: int, block: int) -> tl.dtype:
    """int32 as long as the indices of the last program's block fit in it: 64-bit division is slow."""
    return tl.int32 if count + block < 2**31 else tl.int64
