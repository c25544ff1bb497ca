"""Schedules."""

from __future__ import annotations

import math


def ramp(step: float, length: float, delay: float = 0) -> float:
    """Rises linearly from 0 at step `delay` to 1 after `length` more steps; length 0: a jump."""
    if step < delay:
        return 0.0
    return min((step - delay) / length, 1.0) if length > 0 else 1.0


def cosine_decay(step: float, num_steps: int, length: int, last: float = 0.1) -> float:
    """1, falling along a cosine to `last` over the last `length` of `num_steps` steps; length 0: always 1."""
    progress = ramp(step, length, num_steps - length) if length else 0.0
    return last + (1 - last) * (1 + math.cos(math.pi * progress)) / 2
