"""Parameters spread over processes (DTensor, as FSDP2 makes them) or devices: each steps its own part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def local(tensors: list[Tensor]) -> list[Tensor]:
    """What of each lies here."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def beside(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """A scalar on the device of a group: kernels read it from memory, and not another GPU's."""
    return tensor if tensor is None or tensor.device == device else tensor.to(device, non_blocking=True)


def same_shards(params: list[Tensor], grads: list[Tensor]) -> None:
    """Raises a ValueError for a gradient that is spread otherwise than its parameter."""
    for parameter, grad in zip(params, grads, strict=True):
        ours, theirs = (getattr(tensor, "placements", None) for tensor in (parameter, grad))
        if ours != theirs:
            raise ValueError(
                f"a parameter of shape {tuple(parameter.shape)} is placed as {ours}, its gradient as "
                f"{theirs}; redistribute the gradient"
            )


def summed_over_shards(sums: Tensor, params: list[Tensor]) -> Tensor:
    """Sums over local parts as sums over whole parameters.

    Raises:
        ValueError: parameters of one group that are spread in different ways.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate

    ways = {_way(parameter) for parameter in params}
    if len(ways) > 1:
        raise ValueError(
            "statistics need all parameters of a group to be spread alike, over the same processes"
        )
    mesh, sharded = ways.pop()
    placements = [Partial() if is_sharded else Replicate() for is_sharded in sharded]
    return DTensor.from_local(sums, mesh, placements, run_check=False).full_tensor()


def _way(parameter: Any) -> tuple[Any, tuple[bool, ...]]:
    """The processes, and over which dimensions of their mesh the parameter is cut and not repeated."""
    if not hasattr(parameter, "placements"):
        return None, ()
    return parameter.device_mesh, tuple(placement.is_shard() for placement in parameter.placements)


def whole_norm(grads: list[Tensor]) -> Tensor:
    """The norm of gradients that are spread over processes or devices, on the first one's device."""
    norm: Any = torch.nn.utils.get_total_norm(grads)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
