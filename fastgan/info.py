"""The report of `fastgan info`: versions, built libraries, and the implementation of each op by device."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import torch

import fastgan
from fastgan.ops import _dispatch, _library


def describe() -> str:
    """The report as text. Initializes CUDA only if torch sees a device."""
    lines = [
        f"fastgan {fastgan.__version__}, imported from {_folder(fastgan.__file__)}",
        *_other_installations(),
        f"  python {platform.python_version()}, torch {torch.__version__}, triton {_triton_version()}",
        f"  CPU kernels:  {_cpu_library()}",
        f"  CUDA kernels: {_cuda_library()}",
        f"  CUDA device:  {_cuda_device()}",
        "",
        *_op_table(),
    ]
    return "\n".join(lines)


def _folder(file: str | None) -> Path:
    return Path(file or "").resolve().parent


def _other_installations() -> list[str]:
    """Notes on another fastgan that Python would import if started in another way, and in which way."""
    imported, here = _folder(fastgan.__file__), Path.cwd()
    notes = []
    # Python puts the current folder on the path for `-m` and `-c`, but not for the script that pip installs.
    spec = PathFinder.find_spec("fastgan", [str(here)])
    if spec and spec.origin and _folder(spec.origin) != imported:
        notes.append(
            f"  the current folder has another, {_folder(spec.origin)}: `python -m fastgan` and `python` "
            "import that one here, since the current folder comes first for them"
        )
    path = [entry for entry in sys.path if Path(entry).resolve() != here]
    specs = (finder.find_spec("fastgan", path) for finder in sys.meta_path)
    spec = next((spec for spec in specs if spec and spec.origin), None)
    if spec and _folder(spec.origin) != imported:
        notes.append(
            f"  elsewhere there is another, {_folder(spec.origin)}: the command `fastgan`, and Python in "
            "other folders, import that one; here the current folder comes first"
        )
    return notes


def _triton_version() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_library() -> str:
    if _library.cpu_missing:
        return f"not loaded: {_library.cpu_missing}"
    return f"{torch.ops.fastgan.cpu_capability()} code, {torch.get_num_threads()} threads"


def _cuda_library() -> str:
    if _library.cuda_missing:
        return f"not loaded: {_library.cuda_missing}"
    architectures = torch.ops.fastgan.cuda_architectures().split()
    return f"built for sm_{', sm_'.join(architectures)}, and PTX for compute_{architectures[-1]}"


def _cuda_device() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    major, minor = torch.cuda.get_device_capability()
    text = f"{torch.cuda.get_device_name()}, sm_{major}{minor}"
    if _library.cuda_missing is None:
        probe = torch.ops.fastgan.cuda_running_architecture(torch.empty((), device="cuda"))
        text += f", runs the code built for sm_{probe.item()}"
    return text


def _op_table() -> list[str]:
    rows = [("op", "cpu", "cuda")]
    for op in sorted(_dispatch.OPS):
        rows.append((op, _implementation(op, "cpu"), _implementation(op, "cuda")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip


def _implementation(op: str, device: str) -> str:
    kernel = _dispatch.kernel_of(op, device)
    if kernel is None:
        return "reference (the op has no kernel here)"
    reason = _dispatch.why_not(op, kernel, device)
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in _dispatch.KERNEL_DTYPES[device])
    return f"{kernel} ({dtypes})" if reason is None else f"reference (no {kernel}: {reason})"
