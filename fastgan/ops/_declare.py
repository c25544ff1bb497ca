"""How an op is declared, once: by a decorator on its fake.

The fake says what an op returns without computing it: `torch.compile` and fake tensors go by it. The schema
stands in the decorator, and everything else is found by the op's name:

* the CPU kernel, in ``csrc/cpu/<file>.cpp``, attaches itself to the operator when the library is loaded;
* the GPU kernel is the function of the op's name in ``fastgan/kernels/<file>.py`` (Triton), with the schema's
  arguments in their order, or attaches itself in ``csrc/cuda/<file>.cu`` (``gpu="native"``).

`<file>` is the name of the file in which the op is declared. :func:`fastgan.ops._dispatch.choose` and
`fastgan info` know the op by it, together with its backward ops.
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
    """Defines the operator `fastgan::<schema>`, with the decorated function for its fake.

    Args:
        schema: name, arguments and results, as `torch.library.define` takes them.
        gpu: which kind of GPU kernel the op has, "triton" or "native".
    """

    def decorated(fake: Fake) -> Fake:
        name, file = schema.partition("(")[0], fake.__module__.rpartition(".")[2]
        _dispatch.OPS[file] = _dispatch.Kernels(gpu=gpu)
        _define(schema)
        torch.library.register_fake(f"fastgan::{name}", fake, lib=_library.LIBRARY)
        if gpu == "triton":
            torch.library.impl(_library.LIBRARY, name, "CUDA")(_triton_kernel(file, name))
        return fake

    return decorated


def declare_composite(schema: str) -> Callable[[Fake], Fake]:
    """Defines an operator without kernels: the decorated function, of PyTorch's operations, is all it has."""

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
    """The launch of that name; its file, and Triton with it, is imported at the first call."""

    @functools.cache
    def kernels() -> ModuleType:
        return importlib.import_module(f"fastgan.kernels.{file}")

    return lambda *arguments: getattr(kernels(), name)(*arguments)
