"""Parameters sharded over processes (DTensor, as by FSDP2) or devices: each steps its local part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def local(tensors: list[Tensor]) -> list[Tensor]:
    """The local part of each tensor."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def beside(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """A scalar, copied to the device of a group if needed, since kernels read it from their GPU's memory."""
    return tensor if tensor is None or tensor.device == device else tensor.to(device, non_blocking=True)


def same_shards(params: list[Tensor], grads: list[Tensor]) -> None:
    """Raises a ValueError for a gradient that is sharded differently from its parameter."""
    for parameter, grad in zip(params, grads, strict=True):
        expected, actual = (getattr(tensor, "placements", None) for tensor in (parameter, grad))
        if expected != actual:
            raise ValueError(
                f"a parameter of shape {tuple(parameter.shape)} is placed as {expected}, its gradient as "
                f"{actual}; redistribute the gradient"
            )


def summed_over_shards(sums: Tensor, params: list[Tensor]) -> Tensor:
    """Sums over whole parameters from sums over local parts.

    Raises:
        ValueError: parameters of one group that are sharded differently.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate

    shardings = {_sharding(parameter) for parameter in params}
    if len(shardings) > 1:
        raise ValueError(
            "statistics need all parameters of a group to be spread alike, over the same processes"
        )
    mesh, sharded = shardings.pop()
    placements = [Partial() if is_sharded else Replicate() for is_sharded in sharded]
    return DTensor.from_local(sums, mesh, placements, run_check=False).full_tensor()


def _sharding(parameter: Any) -> tuple[Any, tuple[bool, ...]]:
    """The device mesh, and for each of its dimensions whether the parameter is sharded, not replicated."""
    if not hasattr(parameter, "placements"):
        return None, ()
    return parameter.device_mesh, tuple(placement.is_shard() for placement in parameter.placements)


def whole_norm(grads: list[Tensor]) -> Tensor:
    """The norm of gradients that are sharded over processes or devices, on the first one's device."""
    norm: Any = torch.nn.utils.get_total_norm(grads)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
