"""Catches images in another range than a loss takes them to be in, without making anybody wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan._warnings import warn
from fastgan.losses._later import OnItsWay, can_be_read, is_on_gpu
from fastgan.ops._checks import check_one_of, is_among

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
BEYOND_ONE = (-1.3, 1.8)
"""Wider than this is none of the usual ranges, nor what an untrained network makes of them."""
HIGH_DYNAMIC_RANGE = 32
"""Linear light seldom reaches this, 8-bit images nearly always do."""
EIGHT_BITS = (-160, 320)
"""[-128, 127] and [0, 255] with the overshoots of a resize."""


def as_range(value_range: Any, known: tuple[Range | None, ...]) -> Any:
    """One of the known ranges; configuration files have lists.

    Raises:
        ValueError: another one.
    """
    listed = tuple(value_range) if isinstance(value_range, list) else None
    if listed and is_among(listed, known):
        return listed
    check_one_of("value_range", value_range, known)
    return value_range


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
    are_whole: bool = True

    def add(self, statistics: list[float]) -> None:
        low, high, below_zero, outside, whole = statistics
        self.looks += 1
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.below_zero = max(self.below_zero, below_zero)
        self.outside = max(self.outside, outside)
        self.are_whole = self.are_whole and whole == 1


class RangeCheck:
    """Looks at some of the first few hundred images until it is clear whether the range is right; warns once.

    Of two images that are compared one may be a network's output, which in training lies anywhere. One that
    requires grad is such, and is not looked at; of others only what is wrong with both is said.

    What is found of images on a GPU is copied when the stream gets there and read at a later call. Nothing is
    looked at under torch.compile, transforms and fake tensors, or while a CUDA graph is captured.

    Args:
        loss: the name of what takes the images.
        advice: how its user says that images are in (0, 1), and how that they are in (-1, 1).
    """

    def __init__(self, loss: str, advice: dict[Range, str]) -> None:
        self.loss, self.advice = loss, advice
        self._decided, self._calls = False, 0
        self._seen: list[Seen] = []
        self._on_its_way: OnItsWay[Range] = OnItsWay()

    def look(self, expected: Range, *compared: Tensor) -> None:
        """Takes note of images that should lie in the range."""
        # Dynamo would guard the counts that it reads, so it is to read none.
        if torch.compiler.is_compiling() or self._decided:
            return
        images = [image for image in compared if not image.requires_grad]
        if not images or not can_be_read(*images):
            return
        if not self._on_its_way.is_empty:
            arrived = self._on_its_way.take()
            if arrived is None:
                return
            self._judge(*arrived)
            if self._decided:
                return
        self._calls += 1
        if self._calls > LOOKS_AT[-1]:
            self._decided = True
        elif self._calls in LOOKS_AT:
            statistics = torch.stack([_statistics(image, expected) for image in images])
            if is_on_gpu(statistics):
                self._on_its_way.send(statistics, expected)
            else:
                self._judge(statistics.tolist(), expected)

    def _judge(self, statistics: list[list[float]], expected: Range) -> None:
        """Of each image."""
        if len(self._seen) != len(statistics) or self._seen[0].expected != expected:
            self._seen = [Seen(expected) for _ in statistics]
        for seen, of_image in zip(self._seen, statistics, strict=True):
            seen.add(of_image)
        reasons = [self._suspicion(seen) for seen in self._seen]
        self._decided = all(reasons) or any(map(_is_right, self._seen))
        if all(reasons):
            # What is to be compared with, or else the only one.
            seen, reason = self._seen[-1], reasons[-1]
            warn(
                f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but these lie in "
                f"[{seen.low:.3g}, {seen.high:.3g}]: {reason}",
                RuntimeWarning,
            )

    def _suspicion(self, seen: Seen) -> str | None:
        """What is probably wrong with these images; None: nothing so far."""
        if seen.outside > SHARE:
            largest = max(-seen.low, seen.high)
            if (
                EIGHT_BITS[0] <= seen.low
                and seen.high <= EIGHT_BITS[1]
                and (largest > HIGH_DYNAMIC_RANGE or (seen.are_whole and largest > 1))
            ):
                return "8-bit values must be divided by 255 first"
            if seen.below_zero <= SHARE:
                return "values beyond 1 must be scaled, tone-mapped or clamped"
            if seen.expected == (0, 1) and seen.low >= -1.25 and seen.high <= 1.25:
                return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
            if IMAGENET[0] <= seen.low < BEYOND_ONE[0] and BEYOND_ONE[1] < seen.high <= IMAGENET[1]:
                return "were they normalized with ImageNet's statistics? The loss does that itself"
            return "were they normalized twice, with other statistics, or not clamped?"
        if seen.expected == (0, 1) and seen.below_zero > 5 * SHARE:
            return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
        if seen.expected == (-1, 1) and seen.below_zero == 0:
            # Images in [-1, 1] nowhere darker than mid-grey are rare, and more so if they begin just there.
            from_black_to_bright = 0 <= seen.low < 0.1 and seen.high > 0.5
            if from_black_to_bright or (seen.looks > 3 and seen.high > BELOW_ZERO):
                return f"none is darker than mid-grey; images in [0, 1] need {self.advice[0, 1]}"
        return None


def _is_right(seen: Seen) -> bool:
    """Whether enough images have been seen, and have what only images of the expected range have."""
    if seen.looks < 3:
        return False
    if seen.expected == (-1, 1):
        return seen.below_zero > SHARE
    return seen.below_zero <= SHARE and seen.high > BELOW_ZERO


def _statistics(image: Tensor, expected: Range) -> Tensor:
    """(least, largest, share below zero, share outside of the range, share of whole numbers), float32."""
    height, width = image.shape[-2:]
    step = max(1, int((image.numel() / SAMPLE) ** 0.5))
    values = image.detach()[..., :: min(step, height), :: min(step, width)].float()
    margin = (expected[1] - expected[0]) / 4
    outside = (values < expected[0] - margin) | (values > expected[1] + margin)
    shares = torch.stack([values < -BELOW_ZERO, outside, values == values.round()]).flatten(1).float().mean(1)
    return torch.cat([torch.stack(values.aminmax()), shares])
