"""The CUDA kernels and their host code on the CPU: `torch.ops.fastgan_emulated`, and what tests do with it.

`make test` builds it from csrc/cuda as C++ (csrc/tests/cuda_emulation/device.h says what is random there).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import fastgan.ops  # noqa: F401  (which defines the schemas)
from fastgan.reference.optimizer_step import ALGORITHMS, StepOptions

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "tests"
SANITIZED = BUILD / "cuda_emulation_sanitized.so"
LIBRARY = Path(os.environ.get("FASTGAN_EMULATION", BUILD / "cuda_emulation.so"))
IS_SANITIZED = LIBRARY == SANITIZED
# The number of random orders of threads and blocks.
ORDERS = 1 if IS_SANITIZED else 3
OPERATORS = ("jpeg", "jpeg_backward", "optimizer_step_", "gradient_norm")

if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY.name} is built by `make test`", allow_module_level=True)

_schemas = torch.library.Library("fastgan_emulated", "DEF")
for _name in OPERATORS:
    _schema = str(getattr(torch.ops.fastgan, _name).default._schema)
    _schemas.define(_schema.removeprefix("fastgan::"))
torch.ops.load_library(str(LIBRARY))
_library = ctypes.CDLL(str(LIBRARY))
_library.fastgan_emulation_seed.argtypes = [ctypes.c_uint64]
_library.fastgan_emulation_skip.argtypes = [ctypes.c_char_p, ctypes.c_int]
_library.fastgan_emulation_skips.restype = ctypes.c_int64


def emulated(name: str, *arguments: Any, order: int = 0) -> Any:
    """Calls an operator with threads and blocks in this random order, and NaN in all new memory."""
    _library.fastgan_emulation_seed(order)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        return getattr(torch.ops.fastgan_emulated, name)(*arguments)
    finally:
        torch.use_deterministic_algorithms(was_deterministic)


def emulated_step(
    algorithm: str,
    arrays: list[list[torch.Tensor]],
    options: StepOptions,
    *,
    with_statistics: bool = False,
    order: int = 0,
    **scalars: torch.Tensor | None,
) -> torch.Tensor:
    """The emulated `fastgan.ops.optimizer_step.optimizer_step`."""
    names = ("lr", "grad_scale", "found_inf", "grad_norm", "updates")
    assert scalars.keys() <= set(names)
    return emulated(
        "optimizer_step_", ALGORITHMS.index(algorithm), *arrays, [float(number) for number in options],
        *map(scalars.get, names), with_statistics, order=order,
    )  # fmt: skip


@contextmanager
def without(file: str, line: int) -> Iterator[None]:
    """Disables the barriers and fences in this line of a kernel, and asserts that they were reached."""
    _library.fastgan_emulation_skip(file.encode(), line)
    try:
        yield
        assert _library.fastgan_emulation_skips() > 0, f"nothing has come to {file}:{line}"
    finally:
        _library.fastgan_emulation_skip(b"", 0)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are bitwise equal, NaN included."""
    return one.shape == other.shape and torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)
