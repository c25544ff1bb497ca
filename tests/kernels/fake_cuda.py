"""Public calls on CUDA tensors without a GPU: logs the kernels that they launch, and their arguments.

Tensors are fake: they have a device, sizes and strides, but no memory. The host code of the ops with Triton
kernels runs unchanged, and each launch is logged instead of executed.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastgan
from fastgan.ops import _autograd, _dispatch, _library

PACKAGE = f"{Path(fastgan.__file__).parent}{os.sep}"
# Operations that allocate or alias memory without a kernel.
ALLOCATE = frozenset({"empty", "new_empty", "empty_like", "empty_strided"})
NO_LAUNCH = ALLOCATE | {"detach", "lift_fresh", "alias", "_unsafe_view"}


@dataclass(frozen=True)
class Memory:
    """A tensor as an argument of a launch, with what Triton specializes on: dtype and alignment."""

    dtype: torch.dtype
    elements: int
    offset: int
    """The first element's offset in bytes from its allocation, which is aligned."""
    device: str = "cuda"

    @classmethod
    def of(cls, tensor: Tensor) -> Memory:
        sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
        return cls(tensor.dtype, math.prod(sizes), tensor.storage_offset() * tensor.itemsize)

    def data_ptr(self) -> int:
        return self.offset

    def ptr_range(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass
class Launch:
    """A launch of a Triton kernel."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    """Arguments and options, such as num_warps, by name."""


@dataclass
class Other:
    """A PyTorch operation with a kernel, or one of fastgan's in CUDA C++."""

    name: str
    bytes: int
    """The bytes of its tensors, each counted once."""


@dataclass
class Log:
    triton: list[Launch] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    """fastgan's functions that copied between host and device such that the host waits. Copies to the device
    with `non_blocking` are assumed to be from pinned memory."""
    allocations: int = 0
    """The number of allocations by the host code of fastgan's ops, for outputs and scratch."""

    def take(self) -> Log:
        """The log since the last call, which is cleared."""
        taken = Log(self.triton[:], self.others[:], self.waits[:], self.allocations)
        for kept in (self.triton, self.others, self.waits):
            kept.clear()
        self.allocations = 0
        return taken

    def __len__(self) -> int:
        return len(self.triton) + len(self.others)


class CudaGenerator(torch.Generator):
    """A CPU generator with the device of a CUDA one, which cannot be made without a GPU."""

    device = torch.device("cuda", 0)


class Launches(TorchDispatchMode):
    """Logs what the operations below it launch."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.device: torch.device | None = None
        self.in_op = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name.startswith("fastgan::") and _has_triton_kernel(name.removeprefix("fastgan::")):
            with self, mock.patch.object(self, "in_op", True):
                return func._op_dk(torch._C.DispatchKey.CUDA, *args, **(kwargs or {}))
        if name == "fastgan::spectral_distance":  # a composite, of a transform and of a kernel of ours
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **(kwargs or {}))
        on_cpu = func is torch.ops.aten._local_scalar_dense.default and not args[0].is_cuda
        if on_cpu and args[0].dtype == torch.float32:
            return 0.0  # the step count of a new optimizer state, which is on the CPU
        if func is torch.ops.aten.full_like.default:
            # For a number that is known on the CPU, fake mode would make a real tensor on the device.
            like, value = args
            named = {"dtype": like.dtype, "device": like.device} | (kwargs or {})
            result = torch.full(like.shape, value, dtype=named["dtype"], device=named["device"])
        else:
            result = func(*args, **(kwargs or {}))
        namespace, _, short = name.partition("::")
        self.log.allocations += self.in_op and short in ALLOCATE and result.numel() > 0
        if short in ("_to_copy", "copy_"):
            source = args[0] if short == "_to_copy" else args[1]
            if source.is_cuda != result.is_cuda and not (
                result.is_cuda and _non_blocking(func, args, kwargs)
            ):
                self.log.waits.append(_our_caller())
        if namespace == "fastgan" or (namespace == "aten" and not func.is_view and short not in NO_LAUNCH):
            tensors = {id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
            if any(tensor.is_cuda for tensor in tensors.values()):
                self.log.others.append(Other(name.removeprefix("aten::"), sum(map(_size, tensors.values()))))
        return result

    @contextlib.contextmanager
    def device_of(self, tensor: Tensor) -> Iterator[None]:
        """Replaces torch.cuda's: inside it kernels run on the tensor's device."""
        before, self.device = self.device, tensor.device
        try:
            yield
        finally:
            self.device = before

    def run(self, kernel: Any, *arguments: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
        """Replaces `JITFunction.run`."""
        named = dict(zip(kernel.arg_names, arguments, strict=False)) | named
        devices = {value.device for value in named.values() if isinstance(value, Tensor)}
        assert devices == {self.device}, f"{kernel.__name__}, of tensors on {devices}, runs on {self.device}"
        seen = {key: Memory.of(value) if isinstance(value, Tensor) else value for key, value in named.items()}
        self.log.triton.append(Launch(kernel, math.prod(grid), seen))


def _non_blocking(func: Any, args: tuple, kwargs: dict[str, Any] | None) -> bool:
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | (kwargs or {})
    return bool(given.get("non_blocking"))


def _our_caller() -> str:
    """The innermost caller in fastgan, such as "tables.py make"."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
    return f"{Path(frames[-1].filename).name} {frames[-1].name}" if frames else ""


def _size(tensor: Tensor) -> int:
    memory = Memory.of(tensor)
    return memory.elements * memory.dtype.itemsize


def _has_triton_kernel(op: str) -> bool:
    return any(
        kernels.gpu == "triton" and op.removesuffix("_").startswith(name)
        for name, kernels in _dispatch.OPS.items()
    )


@contextlib.contextmanager
def fake_cuda() -> Iterator[Log]:
    """Makes new tensors fake, which may be on "cuda", and logs launches instead of executing them."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            from triton.runtime.jit import JITFunction

            run = lambda kernel, *args, **named: launches.run(kernel, *args, **named)  # noqa: E731
            stack.enter_context(mock.patch.object(JITFunction, "run", run))
        stack.enter_context(mock.patch.object(torch.cuda, "is_current_stream_capturing", lambda: False))
        stack.enter_context(mock.patch.object(_library, "cuda_missing", None))
        stack.enter_context(mock.patch.object(torch.autograd, "grad", grad))
        stack.enter_context(mock.patch.object(Tensor, "backward", _accumulated))
        stack.enter_context(mock.patch.object(torch.nn.Module, "_apply", _converted))
        stack.enter_context(mock.patch.object(FakeTensor, "__deepcopy__", _copied))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        launches = stack.enter_context(Launches())
        stack.enter_context(mock.patch.object(torch.cuda, "device_of", launches.device_of))
        yield launches.log
        gc.collect()  # free graphs of fake tensors here, since elsewhere that would need the driver


def _converted(module: torch.nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
    """Replaces `_apply`, which swaps tensors' memory, by one that makes new parameters and buffers."""
    for part in module.modules():
        for name, old in part._parameters.items():
            if old is not None:
                new = torch.nn.Parameter(convert(old.detach()), old.requires_grad)
                part._parameters[name] = new
        for name, old in part._buffers.items():
            part._buffers[name] = None if old is None else convert(old)
    return module


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Replaces `__deepcopy__`, which would copy the whole mode with a fake tensor and corrupt memory."""
    copy = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        copy = torch.nn.Parameter(copy, tensor.requires_grad)
    memo[id(tensor)] = copy
    return copy


def backward(output: Tensor, grad: Tensor | None = None) -> dict[Tensor, Tensor]:
    """The gradients of the leaves, as by `output.backward(grad)`, which may overwrite saved tensors."""
    leaves: dict[Tensor, Tensor] = {}
    grads = _seeded([output], [grad])
    ours = {"watched_by_modes": lambda: False, "keeps_graph": lambda: False}
    with torch.no_grad(), mock.patch.multiple(_autograd, **ours):
        for node, arrived in _walk(grads):
            if hasattr(node, "variable"):
                leaves[node.variable] = arrived[0]
    return leaves


def _accumulated(loss: Tensor, gradient: Tensor | None = None) -> None:
    """Replaces `Tensor.backward`."""
    for leaf, arrived in backward(loss, gradient).items():
        leaf.grad = arrived if leaf.grad is None else leaf.grad + arrived


def grad(outputs, inputs, grad_outputs=None, create_graph=False, allow_unused=False, **_) -> tuple:
    """Replaces `torch.autograd.grad`."""
    outputs, inputs = ([x] if isinstance(x, Tensor) else list(x) for x in (outputs, inputs))
    seeds = (
        [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outputs))
    )
    places = [torch.autograd.graph.get_gradient_edge(x) for x in inputs]
    found: dict[tuple[Any, int], Tensor | None] = {}
    with torch.set_grad_enabled(create_graph):
        for node, arrived in _walk(_seeded(outputs, seeds)):
            found |= {(node, number): arrived for number, arrived in enumerate(arrived)}
    grads = tuple(found.get((place.node, place.output_nr)) for place in places)
    assert allow_unused or None not in map(type, grads)
    return grads


# A minimal autograd engine, since PyTorch's needs the driver of each device that it encounters.
Arrived = dict[Any, list[Tensor | None]]


def _seeded(outputs: list[Tensor], grads: list[Tensor | None]) -> Arrived:
    arrived: Arrived = {}
    for output, seed in zip(outputs, grads, strict=True):
        edge = torch.autograd.graph.get_gradient_edge(output)
        _arrive(arrived, edge.node, edge.output_nr, torch.ones_like(output) if seed is None else seed)
    return arrived


def _walk(waiting: Arrived) -> Iterator[tuple[Any, list[Tensor | None]]]:
    """Nodes and their incoming gradients, from the last operation to the first."""
    while waiting:
        node = max(waiting, key=lambda node: node._sequence_nr())
        arrived = waiting.pop(node)
        yield node, arrived
        if hasattr(node, "variable"):
            continue
        function: Callable = getattr(node, "apply", node)
        results = function(*arrived)
        results = results if isinstance(results, tuple) else (results,)
        edges = node.next_functions
        if hasattr(node, "needs_input_grad"):  # of all arguments, whereas edges are only those of tensors
            results = [result for result, need in zip(results, node.needs_input_grad, strict=False) if need]
            edges = [edge for edge in edges if edge[0] is not None]
        for (following, number), result in zip(edges, results, strict=True):
            if following is not None and result is not None:
                _arrive(waiting, following, number, result)


def _arrive(waiting: Arrived, node: Any, number: int, grad: Tensor) -> None:
    there = waiting.setdefault(node, [])
    outputs = node._input_metadata
    there += [None] * (len(outputs) - len(there))
    # A formula may leave sums over broadcast dimensions, and conversions, to the engine.
    shape = torch.Size(outputs[number].shape)
    if grad.shape != shape:
        grad = grad.sum_to_size(shape)
    grad = grad.to(outputs[number].dtype)
    before = there[number]
    there[number] = grad if before is None else before + grad
