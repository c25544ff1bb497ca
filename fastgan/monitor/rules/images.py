"""Rules on the images themselves: their range, and whether they differ from each other."""

from __future__ import annotations

from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import RUN_SHARE, Rule, Sign, above, below, crossed

BEYOND = 0.1
"""Part of the range by which images may lie outside of it."""


def check_value_range(history: History, facts: Facts) -> Iterator[Sign]:
    """Real images, or those that a loss gets, are outside the range that is assumed, or in half of it."""
    for subject in history.names("", "_lowest"):
        low, high = history.mean(f"{subject}_lowest"), history.mean(f"{subject}_highest")
        if low is None or high is None:
            continue
        lowest, highest = facts.value_range or (None, None)
        lowest = history.last(f"{subject}_range_low") if lowest is None else lowest
        highest = history.last(f"{subject}_range_high") if highest is None else highest
        if lowest is None or highest is None:
            continue
        size = highest - lowest
        slack = BEYOND * size if subject != "fake" else size
        outside = [
            evidence
            for evidence in (
                below(f"{subject}_lowest", low, lowest - slack),
                above(f"{subject}_highest", high, highest + slack),
            )
            if crossed(evidence)
        ]
        half = below(f"{subject}_lowest", lowest, low)
        assumed = f"[{lowest:g}, {highest:g}]"
        if outside:
            says = f"{subject} images lie outside {assumed}, which the losses assume"
            yield Sign(True, says, tuple(outside), subject)
        elif subject != "fake" and lowest < 0 and low > -0.02 * size:
            half = above(f"{subject}_lowest", low, -0.02 * size)
            says = (
                f"{subject} images use the upper half of {assumed} alone, as if they were in [0, {highest:g}]"
            )
            yield Sign(True, says, (half,), subject)
        elif subject != "fake" and lowest == 0 and 0 <= high <= 1.2 / 255 * size:
            yield Sign(
                True,
                f"{subject} images are nearly black in {assumed}",
                (below(f"{subject}_highest", high, 0.01),),
                subject,
            )
        else:
            yield Sign(False, "", (), subject)


SPREAD = 0.3
COLLAPSE = 0.5


def check_mode_collapse(history: History, facts: Facts) -> Iterator[Sign]:
    """G's samples resemble each other far more than real ones do."""
    if history.is_new("collapse_ratio"):
        value = history.last("collapse_ratio")
        diverse = any(earlier >= COLLAPSE for earlier in history.values("collapse_ratio"))
        late = facts.num_steps is None or history.step >= 0.25 * facts.num_steps
        if value is not None and (diverse or late):
            evidence = below("collapse_ratio", value, COLLAPSE)
            yield Sign(
                crossed(evidence),
                "G's images lie much closer to each other than real ones: it makes few kinds of image",
                (evidence,),
                "images",
            )
    if history.is_new("spread_ratio"):
        value = history.mean("spread_ratio")
        if value is not None:
            evidence = below("spread_ratio", value, SPREAD)
            yield Sign(
                crossed(evidence),
                "images of one batch of G differ much less than those of a real batch",
                (evidence,),
                "batches",
            )


RULES = (
    Rule(
        "value_range", "fault", check_value_range,
        "scale the images to the range that the losses assume, or tell the losses the range that they have",
        "the definition of the losses", columns=("*_lowest", "*_highest"),
    ),
    Rule(
        "mode_collapse", "fault", check_mode_collapse,
        "lower learning rates; show D the deviation among its samples (minibatch std); augment what D sees; "
        "or another loss",
        "Arora, Risteski and Zhang 2018 on what G's samples cover; bounds by calibration",
        looks=2, run_share=RUN_SHARE, columns=("collapse_ratio", "spread_ratio"),
    ),
)  # fmt: skip
