"""Which implementation of an op serves a call, and why not a faster one.

Three implementations exist: ``"native"`` (C++ on the CPU, CUDA C++ on the GPU), ``"triton"`` and
``"reference"`` (plain PyTorch). An op has exactly one GPU kernel, so for each op and device at most one
of the first two exists. A request comes from, in this order, the ``backend`` argument, the
:func:`use` context, and the environment variable ``FASTGAN_BACKEND``. A request that cannot be served
raises. Without a request the kernel is taken, and where there is none the reference, with one
warning per op and reason.
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
    """What :func:`use` asks for. Dynamo reads it and compiles again when it changes; of a threading.local it
    does not see changes, and a ContextVar it cannot read in torch 2.13.
    """

    backend: str | None = None


_requested = _Requested()
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Kernels:
    """The kernels that an op has: which backend on the CPU, which on the GPU; None where there is none."""

    cpu: str | None = "native"
    gpu: str | None = "triton"


OPS: dict[str, Kernels] = {}
"""By the name of the op's file; `fastgan.ops._declare` fills it."""


@contextlib.contextmanager
def use(backend: str) -> Iterator[None]:
    """Requests one implementation for all ops called while the `with` block runs, by whichever thread.

    Raises:
        ValueError: unknown backend. A call inside raises RuntimeError where the backend cannot serve it.
    """
    before, _requested.backend = _requested.backend, _known(backend, "backend")
    try:
        yield
    finally:
        _requested.backend = before


def choose(op: str, tensors: tuple[torch.Tensor, ...], backend: str | None = None) -> str:
    """The backend that serves this call: ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: unknown backend, in the argument or in ``FASTGAN_BACKEND``.
        RuntimeError: the requested backend cannot serve the call; says why.
    """
    device = "cpu" if tensors[0].is_cpu else tensors[0].device.type  # the first costs a fifth of the second
    request = requested(backend)
    if request is not None:
        reason = why_not(op, request, device, tensors)
        if reason is not None:
            raise RuntimeError(f"{op}: backend {request!r} was requested, but {_with_remedy(reason)}")
        return request
    kernel = kernel_of(op, device)
    reason = f"there is no kernel for device {device!r}"
    if kernel is not None:
        reason = why_not(op, kernel, device, tensors)
        if reason is None:
            return kernel
    warn_once(op, _with_remedy(reason))
    return "reference"


def _with_remedy(reason: str) -> str:
    return f"{reason} ({_library.REMEDY})" if "was not built" in reason else reason


def kernel_of(op: str, device: str) -> str | None:
    """The one kernel that the op has for this device type, built or not."""
    if device == "cpu":
        return OPS[op].cpu
    return OPS[op].gpu if device == "cuda" else None


def why_not(op: str, backend: str, device: str, tensors: tuple[torch.Tensor, ...] = ()) -> str | None:
    """None if `backend` can serve the op on this device type, else the reason why it cannot."""
    if backend == "reference":
        return None
    if kernel_of(op, device) != backend:
        return f"the op has no {backend} kernel for device {device!r}"
    known = KERNEL_DTYPES[device]
    for tensor in tensors:
        if tensor.dtype not in known:
            return f"the kernel does not take {tensor.dtype}"
    if backend == "triton":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    return _library.cpu_missing if device == "cpu" else _library.cuda_missing


def requested(backend: str | None = None) -> str | None:
    """What the argument, the context or the environment asks for, in this order; None: nothing."""
    if backend is not None:
        return _known(backend, "backend")
    if _requested.backend is not None:
        return _requested.backend
    in_environment = os.environ.get("FASTGAN_BACKEND")
    return _known(in_environment, "FASTGAN_BACKEND") if in_environment else None


def _known(backend: str, source: str) -> str:
    check_one_of(source, backend, BACKENDS)
    return backend


def warn_once(op: str, reason: str | None) -> None:
    """That the op runs its reference, and why; once for each op and reason."""
    if (op, str(reason)) not in _warned:
        _warned.add((op, str(reason)))
        warn(f"{op} runs its PyTorch reference: {reason}", RuntimeWarning)
