"""Rules on the images themselves: their range, and whether they differ from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import ROWS, History
from fastgan.monitor.rules._rule import HELD_STEPS, RUN_SHARE, Rule, Sign, above, below, crossed
from fastgan.monitor.verdict import Evidence

BEYOND = 0.1
"""Part of the range by which images may lie outside of it."""
HALF = 0.02
NARROW = 0.02
FAR_BEYOND = 5.0
"""For fakes, of a G whose output is not bounded. Calibration: untrained ones of starganv2 go beyond by 2.6
times the range, healthy ones come back."""


def check_value_range(history: History, facts: Facts) -> Iterator[Sign]:
    """Real images are outside the range that D's or a loss's side assumes, or in half of it."""
    if not history.is_new("real_lowest"):
        return
    low, high = history.mean("real_lowest"), history.mean("real_highest")
    if low is None or high is None:
        return
    assumed = {"images": facts.value_range} if facts.value_range else {}
    yield from _check_fakes(history, facts)
    for name in history.names("", "_range_low"):
        bottom, top = history.last(f"{name}_range_low"), history.last(f"{name}_range_high")
        if bottom is not None and top is not None:
            assumed[name] = bottom, top
    for subject, (lowest, highest) in assumed.items():
        size, interval = highest - lowest, f"[{lowest:g}, {highest:g}]"
        ends = (
            below("real_lowest", low, lowest - BEYOND * size),
            above("real_highest", high, highest + BEYOND * size),
        )
        outside = tuple(evidence for evidence in ends if crossed(evidence))
        half = above("real_lowest", low, (lowest + highest) / 2 - HALF * size)
        whose = "the losses assume" if subject == "images" else f"{subject} assumes"
        if outside:
            yield Sign(True, f"real images lie outside {interval}, which {whose}", outside, subject)
        elif lowest < 0 and crossed(half):
            says = f"real images use the upper half alone of {interval}, which {whose}"
            yield Sign(True, says, (half,), subject)
        elif high - low < NARROW * size:
            narrow = below("real_highest - real_lowest", high - low, NARROW * size)
            says = f"real images use next to nothing of {interval}, which {whose}"
            yield Sign(True, says, (narrow,), subject)
        else:
            is_near = any(crossed(evidence) is None for evidence in (*ends, *([half] if lowest < 0 else [])))
            yield Sign(None if is_near else False, "", (), subject)


def _check_fakes(history: History, facts: Facts) -> Iterator[Sign]:
    """Fakes lie so far outside of the range that D and the losses do not know what to make of them."""
    low, high = history.mean("fake_lowest"), history.mean("fake_highest")
    if facts.value_range is None or low is None or high is None:
        return
    bottom, top = facts.value_range
    beyond = max(bottom - low, high - top) / (top - bottom)
    evidence = above("the part of the range by which fakes lie outside of it", beyond, FAR_BEYOND)
    says = f"fakes lie far outside [{bottom:g}, {top:g}], the range of images: bound G's output, as by tanh"
    yield Sign(crossed(evidence), says, (evidence,), "fakes")


UNSCALED = 2.0


def check_latents(history: History, facts: Facts) -> Iterator[Sign]:
    """Latents do not have the standard deviation that they are meant to have."""
    deviation = history.mean("real_deviation") if history.is_new("real_deviation") else None
    if facts.is_standardized and deviation is not None:
        evidence = (
            above("real_deviation", deviation, UNSCALED)
            if deviation > 1
            else below("real_deviation", deviation, 1 / UNSCALED)
        )
        yield Sign(
            crossed(evidence), "latents are not scaled to a deviation of about 1", (evidence,), "latents"
        )


SPREAD = 0.18
"""Calibration: healthy games of starganv2, of which each batch has one style, go down to 0.32; dcgan's fakes
are at 0.08 to 0.13 where D has won and all look alike."""


DISTANCES = ("collapse_ratio", "probe_distance_ratio")
DUPLICATED = 0.5
"""An estimate: G's images have no near duplicates in any healthy demo, and all have one before it learns."""


def check_mode_collapse(history: History, facts: Facts) -> Iterator[Sign]:
    """G's samples resemble each other far more than real ones do."""
    # The probe measures what a recipe's own evaluation does.
    ratio = next((name for name in DISTANCES if name in history.columns), DISTANCES[0])
    few = "it makes few kinds of image"
    yield from _collapsed(
        history, facts, "images", below, (ratio, facts.collapse_ratio),
        f"G's images lie much closer to each other than real ones: {few}",
    )  # fmt: skip
    yield from _collapsed(
        history, facts, "duplicates", above, ("probe_duplicates", DUPLICATED),
        f"most of G's images have a near duplicate among a few dozen: {few}",
    )  # fmt: skip
    yield from _collapsed(
        history, facts, "batches", below, ("spread_ratio", SPREAD),
        "images of one batch of G differ much less than those of a real batch",
    )  # fmt: skip


def _collapsed(
    history: History,
    facts: Facts,
    subject: str,
    beyond: Callable[[str, float, float], Evidence],
    bounded: tuple[str, float],
    says: str,
) -> Iterator[Sign]:
    column, bound = bounded
    value = history.mean(column, rows=ROWS if subject == "batches" else 1)
    if value is None or not history.is_new(column):
        return
    # G begins with samples that hardly differ, and may take its time to leave them.
    diverse = any(
        not crossed(beyond(column, earlier, bound), slack=0.0) for earlier in history.values(column)
    )
    if diverse or history.step >= facts.collapse_after:
        evidence = beyond(column, value, bound)
        yield Sign(crossed(evidence), says, (evidence,), subject)


RULES = (
    Rule(
        "value_range", "fault", check_value_range,
        "scale the images to the range that the losses assume, or tell the losses the range that they have",
        "the definition of the losses",
        columns=("real_lowest", "real_highest", "*_range_low", "fake_lowest", "fake_highest"),
    ),
    Rule(
        "value_range", "fault", check_latents,
        "multiply latents by one over their standard deviation (Stable Diffusion: 0.18215)",
        "Rombach et al. 2022, whose latents are scaled to unit deviation", columns=("real_deviation",),
    ),
    Rule(
        "mode_collapse", "fault", check_mode_collapse,
        "lower learning rates; show D the deviation among its samples (minibatch std); augment what D sees; "
        "or another loss",
        "Arora, Risteski and Zhang 2018 on what G's samples cover; bounds by calibration",
        looks=2, run_share=RUN_SHARE, held=HELD_STEPS,
        columns=(*DISTANCES, "probe_duplicates", "spread_ratio"),
    ),
)  # fmt: skip
