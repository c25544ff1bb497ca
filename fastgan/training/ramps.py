"""Schedules."""

from __future__ import annotations


def ramp(step: float, length: float, delay: float = 0) -> float:
    """Rises linearly from 0 at step `delay` to 1 after `length` more steps; length 0: a jump."""
    if step < delay:
        return 0.0
    return min((step - delay) / length, 1.0) if length > 0 else 1.0
