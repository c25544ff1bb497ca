"""The Triton kernels' arithmetic on the CPU, in Triton's interpreter.

The interpreter must be chosen before triton is first imported, so these tests run in a process of their
own, which `tests/kernels/test_triton_interpreted.py` starts; elsewhere they are skipped.
"""

import os

import pytest
import torch

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETING, reason="runs in the interpreter's process")

VECTORS = ["contiguous", "cropped", "channels_last", "channels_last, cropped"]


def rows(size, dtype, layout):
    """A random image whose pixels vectors of 16 bytes hold, W a multiple of 16."""
    n, h, w = size
    picture = torch.rand(n, 3, h, w + 32).to(dtype)
    if layout.startswith("channels_last"):
        picture = picture.to(memory_format=torch.channels_last)
    picture = picture[..., 16:-16]
    if layout.endswith("cropped"):
        return picture
    return picture.contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )
