"""The Triton kernels' arithmetic on the CPU, in Triton's interpreter.

The interpreter must be chosen before triton is first imported, so these tests run in a process of their
own, which `tests/kernels/test_triton_interpreted.py` starts; elsewhere they are skipped.
"""

import os

import pytest

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETING, reason="runs in the interpreter's process")
