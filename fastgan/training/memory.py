"""Memory of training on the CPU."""

from __future__ import annotations

import ctypes

# From glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Has this process keep freed memory for its next allocations instead of returning it to the system.

    By default glibc maps every tensor above 32 MB afresh and returns it when it is freed, so that each
    step takes its activations' pages from the kernel again: at 400x400 that is 1.1 million page faults
    and a third of StegaStamp's step. The process then stays at its largest size until it ends.

    Returns:
        Whether the C library could be told; others than glibc are left as they are.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
