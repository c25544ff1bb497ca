"""The ops of FIR filters in StyleGAN3's `torch_utils/ops/upfirdn2d.py` and `filtered_lrelu.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan import ops
from fastgan.compat._zeros import with_zeros
from fastgan.ops._checks import check_one_of


def backend_of(impl: str) -> str | None:
    """The backend of an `impl`: "cuda" takes the kernel of the tensors' device, "ref" the reference."""
    check_one_of("impl", impl, ("cuda", "ref"))
    return "reference" if impl == "ref" else None


def setup_filter(
    f: Any,
    device: torch.device | str = torch.device("cpu"),  # noqa: B008
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """:func:`fastgan.ops.setup_filter`; f is left as it is, where the original divides it in place."""
    return ops.setup_filter(f, device, normalize, flip_filter, gain, separable)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`fastgan.ops.upfirdn2d`. `impl`: "cuda" is the kernel of any device, "ref" the reference."""
    return ops.upfirdn2d(x, f, up, down, padding, flip_filter, gain, backend=backend_of(impl))


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`fastgan.ops.filter2d`; `impl` as of :func:`upfirdn2d`."""
    return ops.filter2d(x, f, padding, flip_filter, gain, backend=backend_of(impl))


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`fastgan.ops.upsample2d`; `impl` as of :func:`upfirdn2d`."""
    return ops.upsample2d(x, f, up, padding, flip_filter, gain, backend=backend_of(impl))


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """:func:`fastgan.ops.downsample2d`; `impl` as of :func:`upfirdn2d`."""
    return ops.downsample2d(x, f, down, padding, flip_filter, gain, backend=backend_of(impl))


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> Tensor:
    """:func:`fastgan.ops.filtered_lrelu`; `impl` as of :func:`upfirdn2d`.

    Gradients of second order at x and b are zeros, as those of the original's ``impl="ref"``, and not None.
    """
    backend = backend_of(impl)
    y = ops.filtered_lrelu(x, fu, fd, b, up, down, padding, gain, slope, clamp, flip_filter, backend=backend)
    return with_zeros(y, x, b)
