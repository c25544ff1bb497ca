"""Starts the process in which the Triton kernels are interpreted on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.interpreted import INTERPRETING


@pytest.mark.skipif(INTERPRETING, reason="is already running")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_in_the_interpreter():
    folder = Path(__file__).parent / "interpreted"
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "passed" in process.stdout
