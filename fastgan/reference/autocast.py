"""Leaving autocast for what must not be computed in half precision."""

from __future__ import annotations

import contextlib

import torch


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """A context without autocast. Meta tensors know of none: torch refuses to switch it off for them."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
