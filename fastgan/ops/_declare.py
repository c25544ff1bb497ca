"""Declares an op, once, by a decorator on its fake implementation.

The fake gives an op's outputs without computing them, for `torch.compile` and fake tensors. The decorator
takes the schema; everything else is found by the op's name:

* the CPU kernel, in ``csrc/cpu/<file>.cpp``, is registered when the library is loaded;
* the GPU kernel is the function of the op's name in ``fastgan/kernels/<file>.py`` (Triton), with the schema's
  arguments in their order, or is registered by ``csrc/cuda/<file>.cu`` (``gpu="native"``).

`<file>` is the name of the file in which the op is declared; :func:`fastgan.ops._dispatch.choose` and
`fastgan info` use it as the name of the op together with its backward ops. Whether the kernels of all of them
are there is asked once, when they are declared.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import torch

from fastgan.ops import _dispatch, _library

Fake = TypeVar("Fake", bound=Callable[..., Any])


def declare(schema: str, *, gpu: str = "triton") -> Callable[[Fake], Fake]:
    """Defines the operator `fastgan::<schema>` with the decorated function as its fake.

    Args:
        schema: name, arguments and results, in the syntax of `torch.library.define`.
        gpu: the kind of the op's GPU kernel, "triton" or "native".
    """

    def decorated(fake: Fake) -> Fake:
        name, file = schema.partition("(")[0], fake.__module__.rpartition(".")[2]
        kernels = _dispatch.OPS.setdefault(file, _dispatch.Kernels(gpu=gpu))
        _define(schema)
        kernels.cpu_missing = kernels.cpu_missing or _library.missing_kernel(name, "CPU")
        if gpu == "triton":
            kernels.gpu_missing = _library.missing_triton_file(file)
        else:
            kernels.gpu_missing = kernels.gpu_missing or _library.missing_kernel(name, "CUDA")
        torch.library.register_fake(f"fastgan::{name}", fake, lib=_library.LIBRARY)
        if gpu == "triton":
            torch.library.impl(_library.LIBRARY, name, "CUDA")(_triton_kernel(file, name))
        return fake

    return decorated


def declare_composite(schema: str) -> Callable[[Fake], Fake]:
    """Defines an operator without kernels, implemented by the decorated function of PyTorch operations."""

    def decorated(function: Fake) -> Fake:
        name = schema.partition("(")[0]
        _define(schema)
        torch.library.impl(_library.LIBRARY, name, "CompositeExplicitAutograd")(function)
        torch.library.register_fake(f"fastgan::{name}", function, lib=_library.LIBRARY)
        return function

    return decorated


def _define(schema: str) -> None:
    _library.LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))


def _triton_kernel(file: str, name: str) -> Callable[..., Any]:
    """The launcher of that name, whose file, and thereby Triton, is imported at the first call."""

    @functools.cache
    def kernels() -> ModuleType:
        return importlib.import_module(f"fastgan.kernels.{file}")

    return lambda *arguments: getattr(kernels(), name)(*arguments)
