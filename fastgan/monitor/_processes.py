"""The processes of a training that torch.distributed joins."""

from __future__ import annotations

from typing import Any

import torch


def is_first_process() -> bool:
    return not _is_joined() or torch.distributed.get_rank() == 0


def from_all(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if not _is_joined():
        return [value]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def _is_joined() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
