"""Loads the native libraries of this installation and records why one is missing.

The CUDA library is loaded if torch was built with CUDA, whether or not there is a GPU.
"""

from __future__ import annotations

from pathlib import Path

import torch

from fastgan._torch_internals import has_kernel

_PACKAGE = Path(__file__).resolve().parent.parent

# Keep this reference: dropping it unregisters the operators that Python defines.
LIBRARY = torch.library.Library("fastgan", "FRAGMENT")


def _load(name: str) -> str | None:
    """Loads `fastgan/<name>.abi3.so`; returns None, or why it is not available."""
    path = _PACKAGE / f"{name}.abi3.so"
    if not path.exists():
        return f"{name} was not built with this installation"
    torch.ops.load_library(str(path))
    return None


def missing_kernel(operator: str, device: str) -> str | None:
    """Why the library for "CPU" or "CUDA" does not serve an operator; None: it does, or is not loaded."""
    library, unavailable = ("_C", cpu_missing) if device == "CPU" else ("_C_cuda", cuda_missing)
    if unavailable or has_kernel(f"fastgan::{operator}", device):
        return None
    return f"{library} was built without a kernel for {operator}"


def missing_triton_file(file: str) -> str | None:
    """Why there are no Triton kernels of the op with this file name; None if there are."""
    path = _PACKAGE / "kernels" / f"{file}.py"
    return None if path.exists() else f"there is no {path}"


def _remedy() -> str:
    """Where fastgan was imported from, and how to get the libraries that were not built."""
    place = f"fastgan was imported from {_PACKAGE}"
    if (_PACKAGE / "_C.abi3.so").exists():
        return f"{place}: build it again where nvcc is on the PATH"
    if (_PACKAGE.parent / "CMakeLists.txt").exists():
        return (
            f"{place}, a source folder that was not built: run from another folder to import an installed "
            "fastgan, or build this one by `make` or `pip install -e .` there"
        )
    return f"{place}: install it again without FASTGAN_BUILD=none"


REMEDY = _remedy()
cpu_missing: str | None = _load("_C")
cuda_missing: str | None = _load("_C_cuda") if torch.version.cuda else "this torch was built without CUDA"
