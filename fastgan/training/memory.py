"""Memory of training on the CPU."""

from __future__ import annotations

import torch

from fastgan.ops import _library


def keep_freed_memory() -> bool:
    """Has this process keep freed memory for its next allocations instead of returning it to the system.

    By default glibc maps every tensor above 32 MB afresh and returns it when it is freed, so that each
    step takes its activations' pages from the kernel again: at 400x400 that is 1.1 million page faults
    and a third of StegaStamp's step. The process then stays at its largest size until it ends.

    Returns:
        Whether the C library could be told; others than glibc are left as they are, and so is everything
        in an installation without the native library.
    """
    return _library.cpu_missing is None and torch.ops.fastgan.keep_freed_memory()
