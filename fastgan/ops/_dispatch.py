"""Chooses the implementation of an op that serves a call, and says why a faster one does not.

Three implementations exist: ``"native"`` (C++ on the CPU, CUDA C++ on the GPU), ``"triton"`` and
``"reference"`` (plain PyTorch). An op has exactly one GPU kernel, so for each op and device at most one
of the first two exists. A backend is requested by, in this order, the ``backend`` argument, the :func:`use`
context, or the environment variable ``FASTGAN_BACKEND``. A request that cannot be served raises. Without a
request the kernel is used, and where there is none the reference, with one warning per op and reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fastgan._warnings import warn
from fastgan.ops import _library
from fastgan.ops._checks import check_one_of

BACKENDS = ("native", "triton", "reference")
# float64 is for checking gradients, which is done on the CPU.
KERNEL_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16, torch.float16, torch.float64),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


class _Requested:
    """The backend that :func:`use` requests, as an attribute, since Dynamo guards those and recompiles when
    they change. It misses changes of a threading.local, and in torch 2.13 cannot read a ContextVar.
    """

    backend: str | None = None


_requested = _Requested()
_warned: set[tuple[str, str]] = set()


@dataclass
class Kernels:
    """The backends of an op's kernels on the CPU and on the GPU; None where it has no kernel."""

    cpu: str | None = "native"
    gpu: str | None = "triton"
    cpu_missing: str | None = None
    """Why the kernel is missing although its library is loaded; None: it is there, or the library is not."""
    gpu_missing: str | None = None


OPS: dict[str, Kernels] = {}
"""The kernels of each op, by the name of its file; filled by `fastgan.ops._declare`."""


@contextlib.contextmanager
def use(backend: str) -> Iterator[None]:
    """Requests one implementation for all ops called, by any thread, while the `with` block runs.

    Raises:
        ValueError: unknown backend. A call inside raises RuntimeError where the backend cannot serve it.
    """
    previous, _requested.backend = _requested.backend, _checked_backend(backend, "backend")
    try:
        yield
    finally:
        _requested.backend = previous


def choose(op: str, tensors: tuple[torch.Tensor, ...], backend: str | None = None) -> str:
    """The backend that serves this call: ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: unknown backend, in the argument or in ``FASTGAN_BACKEND``.
        RuntimeError: the requested backend cannot serve the call; says why.
    """
    device = "cpu" if tensors[0].is_cpu else tensors[0].device.type  # `is_cpu` takes a fifth of the time
    request = requested(backend)
    if request is not None:
        reason = why_not(op, request, device, tensors)
        if reason is not None:
            raise RuntimeError(f"{op}: backend {request!r} was requested, but {_with_remedy(reason)}")
        return request
    kernel = kernel_of(op, device)
    reason = f"there is no kernel for device {device!r}"
    if kernel is not None:
        reason = _why_not_kernel(op, kernel, device, tensors)
        if reason is None:
            return kernel
    warn_once(op, _with_remedy(reason))
    return "reference"


def _with_remedy(reason: str) -> str:
    return f"{reason} ({_library.REMEDY})" if "was not built" in reason else reason


def kernel_of(op: str, device: str) -> str | None:
    """The backend of the op's kernel for this device type, built or not; None if it has no kernel there."""
    if device == "cpu":
        return OPS[op].cpu
    return OPS[op].gpu if device == "cuda" else None


def why_not(op: str, backend: str, device: str, tensors: tuple[torch.Tensor, ...] = ()) -> str | None:
    """None if `backend` can serve the op on this device type, else the reason why it cannot."""
    if backend == "reference":
        return None
    if kernel_of(op, device) != backend:
        return f"the op has no {backend} kernel for device {device!r}"
    return _why_not_kernel(op, backend, device, tensors)


def _why_not_kernel(op: str, kernel: str, device: str, tensors: tuple[torch.Tensor, ...]) -> str | None:
    dtypes = KERNEL_DTYPES[device]
    for tensor in tensors:
        if tensor.dtype not in dtypes:
            return f"the kernel does not take {tensor.dtype}"
    if device == "cpu":
        return _library.cpu_missing or OPS[op].cpu_missing
    if kernel == "triton":
        return OPS[op].gpu_missing if importlib.util.find_spec("triton") else "triton is not installed"
    return _library.cuda_missing or OPS[op].gpu_missing


def requested(backend: str | None = None) -> str | None:
    """The backend requested by the argument, the context or the environment, in this order; None: none."""
    if backend is not None:
        return _checked_backend(backend, "backend")
    if _requested.backend is not None:
        return _requested.backend
    in_environment = os.environ.get("FASTGAN_BACKEND")
    return _checked_backend(in_environment, "FASTGAN_BACKEND") if in_environment else None


def _checked_backend(backend: str, source: str) -> str:
    check_one_of(source, backend, BACKENDS)
    return backend


def warn_once(op: str, reason: str | None) -> None:
    """Warns that the op runs its reference, and why; once for each op and reason."""
    if (op, str(reason)) not in _warned:
        _warned.add((op, str(reason)))
        warn(f"{op} runs its PyTorch reference: {reason}", RuntimeWarning)
