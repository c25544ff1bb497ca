import os
import platform
import subprocess
import sys

import pytest

from fastgan.ops import _library
from fastgan.training.memory import keep_freed_memory

# Allocates and frees 64 MB over and over, and prints the page faults of the last rounds.
PROGRAM = """
import resource, sys, torch
from fastgan.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.ones(16 << 20)
before = faults()
for _ in range(10):
    torch.ones(16 << 20)
print(faults() - before)
"""


def faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
def test_freed_memory_is_used_again():
    assert faults("default") > 1000
    assert faults("keep") < 100


def test_without_the_native_library_nothing_happens(monkeypatch):
    monkeypatch.setattr("fastgan.ops._library.cpu_missing", "not built")
    assert keep_freed_memory() is False


# Repeats a step that allocates an image of 50 MB and its gradient.
IMAGES = """
import resource, torch
from fastgan.ops import jpeg_round_trip
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
image = torch.rand(1, 3, 2048, 2048, requires_grad=True)
gradient = torch.rand_like(image)
def step():
    image.grad = None
    jpeg_round_trip(image, 50.0).backward(gradient)
for _ in range(15):  # until the heap has room for the blocks between the images
    step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def image_faults(**environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", IMAGES],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
@pytest.mark.skipif(bool(_library.cpu_missing), reason="the CPU kernels make their outputs so")
def test_large_images_take_the_memory_of_those_before():
    # Thresholds set by the user stay: two fresh blocks of 50 MB in each step.
    fresh = image_faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert fresh > 20 * 100
    # Sometimes a small block lies where an image would fit.
    assert image_faults() < fresh / 4
