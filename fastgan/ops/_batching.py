"""Parts of batching rules, which run an op for a whole batch of calls, as `torch.vmap` requires.

A rule is called as ``rule(size, batched, *arguments)``: `batched` says for each argument whether it is a
tensor whose first dimension is the batch of `size` calls; the others are the same in every call. Of a list of
tensors it says so in a list. The rule returns the op's outputs with that dimension first.

Most ops merge the batch of calls into their batch of samples (`fold`, `unfold`). Results that depend on all
samples of a call, and noise, which depends on a sample's index, are computed call by call (`one_by_one`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., Any]


def with_batch(tensor: Tensor, batched: bool, size: int) -> Tensor:
    """(B, ...): the batched tensor, or the one that all calls share, expanded."""
    return tensor if batched else tensor.expand(size, *tensor.shape)


def fold(tensor: Tensor, batched: bool, size: int) -> Tensor:
    """(B N, ...): the samples of all calls, one call after the other."""
    return with_batch(tensor, batched, size).flatten(0, 1)


def unfold(tensor: Tensor, size: int) -> Tensor:
    """(B N, ...) to (B, N, ...), and the empty (0,) to (B, 0)."""
    return tensor.reshape(size, tensor.shape[0] // size, *tensor.shape[1:])


def one_by_one(op: Callable) -> Rule:
    """The rule that calls the op for each element of the batch."""

    def rule(size: int, batched: Sequence[bool], *arguments: Any) -> Any:
        results = [
            op(*(_of_call(i, value, in_batch) for value, in_batch in zip(arguments, batched, strict=True)))
            for i in range(size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(torch.stack(outputs) for outputs in zip(*results, strict=True))

    return rule


def _of_call(i: int, value: Any, in_batch: bool | list[bool]) -> Any:
    if isinstance(in_batch, list):
        return [_of_call(i, *item) for item in zip(value, in_batch, strict=True)]
    return value[i] if in_batch else value


def as_staticmethod(rule: Rule) -> Callable:
    """The rule in the form of `autograd.Function.vmap`."""

    def vmap(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Any, Any]:
        moved = [
            value if dim is None else value.movedim(dim, 0)
            for value, dim in zip(arguments, in_dims, strict=True)
        ]
        outputs = rule(info.batch_size, tuple(dim is not None for dim in in_dims), *moved)
        return outputs, 0 if isinstance(outputs, Tensor) else (0,) * len(outputs)

    return vmap
