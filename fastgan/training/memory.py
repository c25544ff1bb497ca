"""Memory of training on the CPU."""

from __future__ import annotations

import torch

from fastgan.ops import _library


def keep_freed_memory() -> bool:
    """Makes this process keep freed memory for its next allocations instead of returning it to the system.

    By default glibc maps every tensor above 32 MB anew and unmaps it when it is freed, so that every step
    faults in the pages of its activations again: at 400x400 these are 1.1 million page faults and a third of
    StegaStamp's step. The price: the process keeps its peak size until it ends.

    Returns:
        Whether the C library was configured; C libraries other than glibc, and installations without the
        native library, are left as they are.
    """
    return _library.cpu_missing is None and torch.ops.fastgan.keep_freed_memory()
