"""Tensors N C ... with a bias for each channel: the layouts that kernels take, and batches of calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fastgan.ops._batching import fold, unfold, with_batch


def supported_layout(x: Tensor) -> Tensor:
    """X itself if it is contiguous or channels last, the layouts that the kernels support; else a copy."""
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def laid_out_like(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor in the memory format of another one, which is one of those supported."""
    if tensor.stride() == other.stride():
        return tensor
    return tensor.contiguous() if other.is_contiguous() else tensor.movedim(1, -1).contiguous().movedim(-1, 1)


# --- batching: more samples, or more channels if each call has its own bias or gradient of one ----------


def fold_all(
    size: int, batched: Sequence[bool], tensors: Sequence[Tensor], into_channels: bool
) -> tuple[list[Tensor], Callable[[Tensor, int], Tensor]]:
    """Tensors like x with the batch of calls folded in, in one memory order, and the inverse function."""
    fold_one = _fold_into_channels if into_channels else fold
    *others, last = (fold_one(tensor, own, size) for tensor, own in zip(tensors, batched, strict=True))
    last = supported_layout(last)
    return [*(laid_out_like(tensor, last) for tensor in others), last], (
        _unfold_channels if into_channels else unfold
    )


def _fold_into_channels(tensor: Tensor, batched: bool, size: int) -> Tensor:
    """(N, B C, ...)"""
    return with_batch(tensor, batched, size).movedim(0, 1).flatten(1, 2)


def _unfold_channels(tensor: Tensor, size: int) -> Tensor:
    return tensor.unflatten(1, (size, -1)).movedim(1, 0) if tensor.dim() > 1 else unfold(tensor, size)
