"""State of a GPU's streams."""

from __future__ import annotations

import torch


def is_captured(device: torch.device) -> bool:
    """Whether the current stream of this or of the current device is being captured into a CUDA graph.

    Either capture forbids allocating memory for a copy on another stream.
    """
    if torch.cuda.is_current_stream_capturing():
        return True
    if device.index == torch.cuda.current_device():
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
