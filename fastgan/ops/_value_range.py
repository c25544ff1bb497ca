"""Catches images in another range than they are taken to be in, without making anybody wait."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastgan._warnings import warn
from fastgan.ops._checks import check_one_of, is_among
from fastgan.ops._later import OnItsWay, can_be_read, is_on_gpu

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
EIGHT_BITS_END = 255
SIGNED = (0.6, 1.1)
"""Images in [-1, 1] nearly always reach the first on both sides of 0, and seldom the second."""
SHARE_OF_DARK = 0.2
"""Most images in [-1, 1] have so many values below -1/4. What StegaStamp's untrained encoder stamps has them
only where it also goes far beyond -1 or 1 (36 encoders, of both sizes)."""
TO_UNIT: dict[Range, str] = {
    (0, 255): "8-bit values must be divided by 255 first",
    (-1, 1): "images in [-1, 1] must be brought to [0, 1] first, as (image + 1) / 2",
}


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
        self._looking = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, of which no copies can be made."""
        return {name: value for name, value in vars(self).items() if name != "_looking"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _looking=threading.Lock())

    def look(self, expected: Range, *compared: Tensor) -> None:
        """Takes note of images that should lie in the range."""
        # Dynamo would guard the counts that it reads, so it is to read none.
        if torch.compiler.is_compiling() or self._decided:
            return
        images = self._to_look_at(compared)
        # One of several threads looks, and the others do not wait for it.
        if not images or not self._looking.acquire(blocking=False):
            return
        try:
            if self._on_its_way.is_empty and self._calls + 1 not in LOOKS_AT and self._calls < LOOKS_AT[-1]:
                self._calls += 1  # as most do, for which it need not be known whether they can be read
            elif can_be_read(*images):
                self._look(expected, images)
        finally:
            self._looking.release()

    def _to_look_at(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(image for image in compared if not image.requires_grad)

    def _look(self, expected: Range, images: tuple[Tensor, ...]) -> None:
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


class GrossRangeCheck(RangeCheck):
    """Looks at some of the first few hundred images for 8-bit values and images in [-1, 1]; warns once.

    What a network makes, which may lie a good way outside of the range, is neither, so that unlike
    :class:`RangeCheck` this looks at every image and says what is wrong with one; only of [-1, 1] it says
    nothing where another of the images lies in [0, 1]. Each look is judged by itself, and right ones decide
    nothing: behind the calls of a function there may be several callers.

    Args:
        name: of what takes the images.
        arguments: their names, in the order of :meth:`look`.
        advice: what to do with images in (0, 255) and in (-1, 1), and where (0, 255) is expected in (0, 1).
    """

    def __init__(self, name: str, arguments: tuple[str, ...], advice: dict[Range, str] = TO_UNIT) -> None:
        super().__init__(name, advice)
        self.arguments = arguments

    def _to_look_at(self, compared: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return compared

    def _judge(self, statistics: list[list[float]], expected: Range) -> None:
        all_seen = [Seen(expected) for _ in statistics]
        for seen, of_image in zip(all_seen, statistics, strict=True):
            seen.add(of_image)
        reasons = [self._suspicion(seen) for seen in all_seen]
        if not any(reasons) and expected == (0, 1) and all(seen.below_zero > SHARE for seen in all_seen):
            reasons = [self.advice[-1, 1] if _is_signed(seen) else None for seen in all_seen]
        # So small beside others that are not, they may be a new network's.
        if not any(reasons) and all(map(_is_small, all_seen)):
            signed = min(seen.low for seen in all_seen) < -SIGNED[0]
            reasons = [self.advice[(-1, 1) if signed else (0, 1)]] * len(all_seen)
        for argument, seen, reason in zip(self.arguments, all_seen, reasons, strict=True):
            if reason and not self._decided:
                self._decided = True
                warn(
                    f"{self.loss} takes images in [{expected[0]:g}, {expected[1]:g}], but the values of "
                    f"{argument} lie in [{seen.low:.3g}, {seen.high:.3g}]: {reason}; check_range=False takes "
                    "them as they are",
                    RuntimeWarning,
                )

    def _suspicion(self, seen: Seen) -> str | None:
        largest, top = max(-seen.low, seen.high), seen.expected[1]
        if seen.outside > SHARE:
            is_large = seen.below_zero <= SHARE and seen.high > HIGH_DYNAMIC_RANGE * top
            if is_large or (seen.are_whole and largest > top):
                if top < EIGHT_BITS_END and EIGHT_BITS[0] <= seen.low and seen.high <= EIGHT_BITS[1]:
                    return self.advice[0, 255]
                return f"values beyond {top:g} must be scaled first" if is_large else None
        return None


def _is_signed(seen: Seen) -> bool:
    """Whether values that should lie in [0, 1] are those of an image in [-1, 1]."""
    least, most = SIGNED
    fits = -most <= seen.low < -least and least < seen.high <= most
    return fits and seen.outside > SHARE_OF_DARK


def _is_small(seen: Seen) -> bool:
    """Whether values that should reach 255 are those of an image in [0, 1] or [-1, 1]."""
    return (
        seen.expected[1] >= EIGHT_BITS_END
        and not seen.are_whole
        and -SIGNED[1] <= seen.low
        and 0.5 < seen.high <= SIGNED[1]
    )


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
    margin, below_zero = (expected[1] - expected[0]) / 4, BELOW_ZERO * expected[1]
    outside = (values < expected[0] - margin) | (values > expected[1] + margin)
    shares = torch.stack([values < -below_zero, outside, values == values.round()]).flatten(1).float().mean(1)
    return torch.cat([torch.stack(values.aminmax()), shares])
