"""What the streams of a GPU are doing."""

from __future__ import annotations

import torch


def is_captured(device: torch.device) -> bool:
    """The device's stream, or the current one, whose capture allows no other stream memory for a copy."""
    if torch.cuda.is_current_stream_capturing():
        return True
    if device.index == torch.cuda.current_device():
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
