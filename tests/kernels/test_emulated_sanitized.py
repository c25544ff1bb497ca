"""The tests of emulated CUDA kernels, run with gcc's address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.kernels.emulation import IS_SANITIZED, ROOT, SANITIZED

pytestmark = [
    pytest.mark.skipif(IS_SANITIZED, reason="these tests start this run"),
    pytest.mark.skipif(not SANITIZED.exists(), reason=f"{SANITIZED.name} is built by `make test`"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc locates the libraries of the sanitizers"),
]


def run(*arguments):
    """Runs Python with the sanitizers' libraries preloaded, as they require."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    environment = {
        **os.environ, "FASTGAN_EMULATION": str(SANITIZED), "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_kernels_access_only_their_memory():
    files = [f"tests/kernels/test_emulated_{name}.py" for name in ("jpeg", "optimizer")]
    process = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files)
    assert process.returncode == 0 and " passed" in process.stdout, (
        process.stdout[-3000:] + process.stderr[-3000:]
    )


def test_the_sanitizer_reports_a_tensor_longer_than_its_memory():
    code = """
import torch
from fastgan.reference.optimizer_step import StepOptions
from tests.kernels.emulation import emulated_step

short = [torch.ones(41)]
short[0].untyped_storage().resize_(40 * 4)
emulated_step("rmsprop", [short, short, short, [], [], [], [torch.zeros(())]], StepOptions(0.1))
"""
    process = run("-c", code)
    assert process.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in process.stderr
