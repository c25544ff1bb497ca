"""Detects images outside of the range that a loss expects, without synchronizing with a GPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan._warnings import warn
from fastgan.ops._checks import check_one_of, is_among
from fastgan.ops._later import PendingRead, can_be_read, is_on_gpu

Range = tuple[float, float]
# How the user of a loss with an argument `value_range` declares the range of the images.
BY_VALUE_RANGE: dict[Range, str] = {(0, 1): "value_range=(0, 1)", (-1, 1): "value_range=(-1, 1)"}
# And how of one with an argument `data_range`.
BY_DATA_RANGE: dict[Range, str] = {
    (0, 255): "8-bit values need data_range=255",
    (0, 1): "images in [0, 1] need data_range=1",
    (-1, 1): "images in [-1, 1] need data_range=2",
}
# Calls at which a loss checks its images: the first three suffice for most, the others for dark or pale ones.
LOOKS_AT = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513)
# The number of an image's values that are read, on a grid of pixels.
SAMPLE = 1 << 14
# If more than this share of values lies this far below 0, or outside of the range by a quarter of it, then
# neither rounding nor the ringing of a filter is the cause.
BELOW_ZERO = 0.05
SHARE = 0.01
IMAGENET = (-2.2, 2.7)
"""[0, 1] normalized with ImageNet's means and deviations is -2.12 to 2.64; some margin for rounding."""
BEYOND_ONE = (-1.3, 1.8)
"""Wider than any of the usual ranges, and than what an untrained network makes of them."""
HIGH_DYNAMIC_RANGE = 32
"""Linear light seldom reaches this, 8-bit images nearly always do."""
EIGHT_BITS = (-160, 320)
"""[-128, 127] and [0, 255] with the overshoots of a resize."""
EIGHT_BITS_END = 255
SIGNED = (0.6, 1.1)
"""The magnitude that images in [-1, 1] nearly always reach on both sides of 0, and one they seldom reach."""
SHARE_OF_DARK = 0.2
"""Most images in [-1, 1] have at least this share of values below -1/4. Images by StegaStamp's untrained
encoder have it only if they also go far beyond -1 or 1 (36 encoders, of both sizes)."""
TO_UNIT: dict[Range, str] = {
    (0, 255): "8-bit values must be divided by 255 first",
    (-1, 1): "images in [-1, 1] must be brought to [0, 1] first, as (image + 1) / 2",
}


def as_range(value_range: Any, known: tuple[Range | None, ...]) -> Any:
    """The range, which may be a list as in configuration files, as one of the known tuples.

    Raises:
        ValueError: another range.
    """
    listed = tuple(value_range) if isinstance(value_range, list) else None
    if listed and is_among(listed, known):
        return listed
    check_one_of("value_range", value_range, known)
    return value_range


@dataclass
class Observed:
    """Statistics of the images checked so far, which should lie in one range."""

    expected: Range
    looks: int = 0
    low: float = torch.inf
    high: float = -torch.inf
    below_zero: float = 0.0
    """The largest share of values below zero in an image; likewise `outside` the range."""
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
    """Checks some of the first few hundred images until the range is clearly right or wrong; warns once.

    Of two compared images one may be a network's output, which may lie anywhere in training. Images that
    require grad are such outputs and are skipped; of others a warning needs that both are out of range.

    Statistics of images on a GPU are copied asynchronously and read at a later call. Nothing is checked under
    torch.compile, in transforms, of fake tensors, or during the capture of a CUDA graph.

    Args:
        loss: the name of the loss or function that takes the images.
        advice: by range, (0, 1) and (-1, 1), how to declare that images lie in it.
    """

    def __init__(self, loss: str, advice: dict[Range, str]) -> None:
        self.loss, self.advice = loss, advice
        self._decided, self._calls = False, 0
        self._observed: list[Observed] = []
        self._pending_read: PendingRead[Range] = PendingRead()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Omits the lock, which cannot be copied."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def look(self, expected: Range, *compared: Tensor) -> None:
        """Checks images that should lie in the range."""
        # Return before the counts are read, since Dynamo would guard them.
        if torch.compiler.is_compiling() or self._decided:
            return
        images = self._select(compared)
        # One thread checks at a time; the others do not wait for it.
        if not images or not self._lock.acquire(blocking=False):
            return
        try:
            if self._pending_read.is_empty and self._calls + 1 not in LOOKS_AT and self._calls < LOOKS_AT[-1]:
                self._calls += 1  # the usual case skips `can_be_read`
            elif can_be_read(*images):
                self._look(expected, images)
        finally:
            self._lock.release()

    def _select(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(image for image in compared if not image.requires_grad)

    def _look(self, expected: Range, images: tuple[Tensor, ...]) -> None:
        if not self._pending_read.is_empty:
            arrived = self._pending_read.take()
            if arrived is None:
                return
            self._decide(*arrived)
        if self._decided:
            return
        self._calls += 1
        if self._calls > LOOKS_AT[-1]:
            self._decided = True
        elif self._calls in LOOKS_AT:
            statistics = torch.stack([_statistics(image, expected) for image in images])
            if is_on_gpu(statistics):
                self._pending_read.send(statistics, expected)
            else:
                self._decide(statistics.tolist(), expected)

    def _decide(self, statistics: list[list[float]], expected: Range) -> None:
        """Adds the statistics of each image, decides if possible, and warns if the range is wrong."""
        if len(self._observed) != len(statistics) or self._observed[0].expected != expected:
            self._observed = [Observed(expected) for _ in statistics]
        for observed, row in zip(self._observed, statistics, strict=True):
            observed.add(row)
        reasons = [self._suspicion(observed) for observed in self._observed]
        self._decided = all(reasons) or any(map(_is_right, self._observed))
        if all(reasons):
            # The last image is the reference, or the only one.
            observed, reason = self._observed[-1], reasons[-1]
            warn(
                f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but these lie in "
                f"[{observed.low:.3g}, {observed.high:.3g}]: {reason}",
                RuntimeWarning,
            )

    def _suspicion(self, observed: Observed) -> str | None:
        """What is probably wrong with these images; None: nothing so far."""
        if observed.outside > SHARE:
            largest = max(-observed.low, observed.high)
            if (
                EIGHT_BITS[0] <= observed.low
                and observed.high <= EIGHT_BITS[1]
                and (largest > HIGH_DYNAMIC_RANGE or (observed.are_whole and largest > 1))
            ):
                return "8-bit values must be divided by 255 first"
            if observed.below_zero <= SHARE:
                return "values beyond 1 must be scaled, tone-mapped or clamped"
            if observed.expected == (0, 1) and observed.low >= -1.25 and observed.high <= 1.25:
                return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
            if IMAGENET[0] <= observed.low < BEYOND_ONE[0] and BEYOND_ONE[1] < observed.high <= IMAGENET[1]:
                return "were they normalized with ImageNet's statistics? The loss does that itself"
            return "were they normalized twice, with other statistics, or not clamped?"
        if observed.expected == (0, 1) and observed.below_zero > 5 * SHARE:
            return f"images in [-1, 1] would be normalized twice: they need {self.advice[-1, 1]}"
        if observed.expected == (-1, 1) and observed.below_zero == 0:
            # Images in [-1, 1] that are nowhere darker than mid-grey are rare, even more so if their minimum
            # lies just there.
            from_black_to_bright = 0 <= observed.low < 0.1 and observed.high > 0.5
            if from_black_to_bright or (observed.looks > 3 and observed.high > BELOW_ZERO):
                return f"none is darker than mid-grey; images in [0, 1] need {self.advice[0, 1]}"
        return None


class GrossRangeCheck(RangeCheck):
    """Checks some of the first few hundred images for 8-bit values and values in [-1, 1]; warns once.

    A network's output may lie well outside of the range, but is neither of these. So unlike
    :class:`RangeCheck` this checks every image and warns of a single one; only [-1, 1] is not warned of if
    another of the images lies in [0, 1]. Each call is judged separately, and images in the right range do not
    end the checks, since a function may have several callers.

    Args:
        name: the name of the function that takes the images.
        arguments: the images' names, in the order of :meth:`look`.
        advice: by range, what to do with images in (0, 255) and (-1, 1), or, if (0, 255) is expected, in
            (0, 1).
    """

    def __init__(self, name: str, arguments: tuple[str, ...], advice: dict[Range, str] = TO_UNIT) -> None:
        super().__init__(name, advice)
        self.arguments = arguments

    def _select(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return compared

    def _decide(self, statistics: list[list[float]], expected: Range) -> None:
        images = [Observed(expected) for _ in statistics]
        for image, row in zip(images, statistics, strict=True):
            image.add(row)
        reasons = [self._suspicion(image) for image in images]
        if not any(reasons) and expected == (0, 1) and all(image.below_zero > SHARE for image in images):
            reasons = [self.advice[-1, 1] if _is_signed(image) else None for image in images]
        # All of them, since a single small image may be the output of an untrained network.
        if not any(reasons) and all(map(_is_small, images)):
            signed = min(image.low for image in images) < -SIGNED[0]
            reasons = [self.advice[(-1, 1) if signed else (0, 1)]] * len(images)
        for argument, image, reason in zip(self.arguments, images, reasons, strict=True):
            if reason and not self._decided:
                self._decided = True
                warn(
                    f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but the values of "
                    f"{argument} lie in [{image.low:.3g}, {image.high:.3g}]: {reason}; "
                    "check_range=False takes them as they are",
                    RuntimeWarning,
                )

    def _suspicion(self, observed: Observed) -> str | None:
        largest, top = max(-observed.low, observed.high), observed.expected[1]
        if observed.outside > SHARE:
            is_large = observed.below_zero <= SHARE and observed.high > HIGH_DYNAMIC_RANGE * top
            if is_large or (observed.are_whole and largest > top):
                if top < EIGHT_BITS_END and EIGHT_BITS[0] <= observed.low and observed.high <= EIGHT_BITS[1]:
                    return self.advice[0, 255]
                return f"values beyond {top:g} must be scaled first" if is_large else None
        return None


def _is_signed(observed: Observed) -> bool:
    """Whether an image that should lie in [0, 1] lies in [-1, 1]."""
    least, most = SIGNED
    has_extrema = -most <= observed.low < -least and least < observed.high <= most
    return has_extrema and observed.outside > SHARE_OF_DARK


def _is_small(observed: Observed) -> bool:
    """Whether an image that should reach 255 lies in [0, 1] or [-1, 1]."""
    return (
        observed.expected[1] >= EIGHT_BITS_END
        and not observed.are_whole
        and -SIGNED[1] <= observed.low
        and 0.5 < observed.high <= SIGNED[1]
    )


def _is_right(observed: Observed) -> bool:
    """Whether enough images were observed whose values are typical of the expected range alone."""
    if observed.looks < 3:
        return False
    if observed.expected == (-1, 1):
        return observed.below_zero > SHARE
    return observed.below_zero <= SHARE and observed.high > BELOW_ZERO


def _statistics(image: Tensor, expected: Range) -> Tensor:
    """(least, largest, share below zero, share outside of the range, share of whole numbers), float32."""
    height, width = image.shape[-2:]
    step = max(1, int((image.numel() / SAMPLE) ** 0.5))
    values = image.detach()[..., :: min(step, height), :: min(step, width)].float()
    margin, below_zero = (expected[1] - expected[0]) / 4, BELOW_ZERO * expected[1]
    outside = (values < expected[0] - margin) | (values > expected[1] + margin)
    shares = torch.stack([values < -below_zero, outside, values == values.round()]).flatten(1).float().mean(1)
    return torch.cat([torch.stack(values.aminmax()), shares])
