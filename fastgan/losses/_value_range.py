"""Catches images in another range than a loss takes them to be in, without making anybody wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan._warnings import warn
from fastgan.ops._autograd import _plain_eager, inside_transform

Range = tuple[float, float]
# How the user of a loss says which range images are in, where it has an argument for that alone.
BY_VALUE_RANGE: dict[Range, str] = {(0, 1): "value_range=(0, 1)", (-1, 1): "value_range=(-1, 1)"}
# Calls at which a loss looks at its images: the first three decide for most, others for dark or pale ones.
LOOKS_AT = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
# Values of an image that are looked at, on a grid of pixels.
SAMPLE = 1 << 14
# Values this far below 0 are no rounding and no ringing of a filter; nor are those that lie outside of the
# range by a quarter of it, if there are enough of either.
BELOW_ZERO = 0.05
SHARE = 0.01
IMAGENET = (-2.2, 2.7)
"""What [0, 1] becomes by ImageNet's means and deviations, -2.12 to 2.64, and some rounding."""


@dataclass
class Seen:
    """What the looks at images of one range have found so far."""

    expected: Range
    looks: int = 0
    low: float = torch.inf
    high: float = -torch.inf
    below_zero: float = 0.0
    """The largest share of values below zero that an image had; likewise `outside` the range."""
    outside: float = 0.0

    def add(self, statistics: list[float]) -> None:
        low, high, below_zero, outside = statistics
        self.looks += 1
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.below_zero = max(self.below_zero, below_zero)
        self.outside = max(self.outside, outside)


class RangeCheck:
    """Looks at some of the first few hundred images until it is clear whether the range is right; warns once.

    What is found of images on a GPU is copied when the stream gets there and read at a later call. Nothing is
    looked at under torch.compile, transforms and fake tensors, or while a CUDA graph is captured.

    Args:
        loss: the name of what takes the images.
        advice: how its user says that images are in (0, 1), and how that they are in (-1, 1).
    """

    def __init__(self, loss: str, advice: dict[Range, str]) -> None:
        self.loss, self.advice = loss, advice
        self._decided, self._calls = False, 0
        self._seen: Seen | None = None
        self._pending: tuple[Tensor, torch.cuda.Event, Range] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Events cannot be copied: a copy does without the look that is on its way."""
        return self.__dict__ | {"_pending": None}

    def look(self, image: Tensor, expected: Range) -> None:
        """Takes note of an image that should lie in the range."""
        # Dynamo would guard the counts that it reads, so it is to read none.
        if torch.compiler.is_compiling() or self._decided or not _has_values(image):
            return
        on_gpu = _is_on_gpu(image)
        if on_gpu and torch.cuda.is_current_stream_capturing():
            return
        if self._pending is not None:
            statistics, event, when_seen = self._pending
            if not event.query():
                return
            self._pending = None
            self._judge(statistics, when_seen)
            if self._decided:
                return
        self._calls += 1
        if self._calls > LOOKS_AT[-1]:
            self._decided = True
        elif self._calls in LOOKS_AT:
            statistics = _statistics(image, expected)
            if on_gpu:
                self._pending = (*_copied_later(statistics), expected)
            else:
                self._judge(statistics, expected)

    def _judge(self, statistics: Tensor, expected: Range) -> None:
        if self._seen is None or self._seen.expected != expected:
            self._seen = Seen(expected)
        self._seen.add(statistics.tolist())
        reason = self._suspicion(self._seen)
        self._decided = reason is not None or _is_right(self._seen)
        if reason:
            warn(
                f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but these lie in "
                f"[{self._seen.low:.3g}, {self._seen.high:.3g}]: {reason}",
                RuntimeWarning,
            )

    def _suspicion(self, seen: Seen) -> str | None:
        """What is probably wrong with these images; None: nothing so far."""
        if seen.outside > SHARE:
            if max(-seen.low, seen.high) > 4:
                return "8-bit values must be divided by 255 first"
            if seen.expected == (0, 1) and seen.low >= -1.25 and seen.high <= 1.25:
                return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
            if IMAGENET[0] <= seen.low < 0 and seen.high <= IMAGENET[1]:
                return "were they normalized with ImageNet's statistics? The loss does that itself"
            return "were they normalized twice, or with other statistics?"
        if seen.expected == (0, 1) and seen.below_zero > 5 * SHARE:
            return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
        if seen.expected == (-1, 1) and seen.below_zero == 0:
            # Images in [-1, 1] nowhere darker than mid-grey are rare, and more so if they begin just there.
            from_black_to_bright = 0 <= seen.low < 0.1 and seen.high > 0.5
            if from_black_to_bright or (seen.looks > 3 and seen.high > BELOW_ZERO):
                return f"images in [0, 1] need {self.advice[0, 1]}"
        return None


def _is_right(seen: Seen) -> bool:
    """Whether images have been seen enough of which nothing is suspicious."""
    if seen.looks < 3:
        return False
    if seen.expected == (-1, 1):
        return seen.below_zero > SHARE
    return seen.below_zero <= SHARE and seen.high > BELOW_ZERO


def _has_values(image: Tensor) -> bool:
    """Those of meta and fake tensors and in transforms cannot be had."""
    return image.device.type in ("cpu", "cuda") and _plain_eager((image,)) and not inside_transform()


def _is_on_gpu(image: Tensor) -> bool:
    return image.device.type == "cuda"


def _copied_later(there: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of something on a GPU, for the host, and the event after which it is there."""
    here = torch.empty(there.shape, pin_memory=True).copy_(there, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return here, event


def _statistics(image: Tensor, expected: Range) -> Tensor:
    """(least, largest, share below zero, share outside of the range), float32."""
    height, width = image.shape[-2:]
    step = max(1, int((image.numel() / SAMPLE) ** 0.5))
    values = image.detach()[..., :: min(step, height), :: min(step, width)].float()
    margin = (expected[1] - expected[0]) / 4
    outside = (values < expected[0] - margin) | (values > expected[1] + margin)
    shares = torch.stack([values < -BELOW_ZERO, outside]).flatten(1).float().mean(1)
    return torch.cat([torch.stack(values.aminmax()), shares])
