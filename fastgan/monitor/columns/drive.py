"""What drives G? Shares of its gradient, cosines between its terms, and the terms' weights."""

from __future__ import annotations

import re

from fastgan.monitor.columns._column import DRIVE, Column
from fastgan.monitor.curve import Curve, number, reads
from fastgan.monitor.rules.terms import CONFLICT, DOMINATES, IGNORED


def _share(match: re.Match[str], curve: Curve) -> str:
    value, is_adversarial = curve.now, match[1] == curve.facts.adversarial_term
    if value is None:
        return ""
    alone = len([each for each in curve.history.columns if each.startswith("share_")]) == 1
    return reads(
        "",
        (alone, "It is the only term that is measured."),
        (is_adversarial and value < IGNORED, f"Below {number(IGNORED)}, D has no say in what G learns."),
        (value > DOMINATES, "What the other terms ask for is drowned."),
        (is_adversarial, USUAL),
    )


USUAL = "A few hundredths to a half is usual for the adversarial term."


def _cosine(match: re.Match[str], curve: Curve) -> str:
    conflict = curve.now is not None and curve.now < CONFLICT
    return reads("", (conflict, "These two work against each other."))


def _weight(match: re.Match[str], curve: Curve) -> str:
    values = curve.values
    if not values or min(values) == max(values):
        return ""
    low_at_first = abs(values[0]) < abs(values[-1])
    return f"Its size {'rises' if low_at_first else 'falls'} by schedule, or follows gradients."


def _lambda_ds(match: re.Match[str], curve: Curve) -> str:
    return reads("", (curve.now == 0, "It is there: from now on diversity is no longer asked for."))


COLUMNS = (
    Column(
        r"share_(.+)", DRIVE,
        r"The part of G's gradient that comes from \1, at G's output, after weights; all add up to 1.",
        _share, USUAL,
    ),
    Column(
        r"cosine_.+", DRIVE,
        "The cosine between the gradients of two of G's terms: 1 if they ask for the same change of the "
        "output, 0 if they are indifferent to each other, -1 if they undo each other. Near 0 is usual.",
        _cosine,
    ),
    Column(r"(D_.+)_weight", DRIVE, r"The weight of \1 in D's loss.", _weight),
    Column(r"(.+)_weight", DRIVE, r"The weight of \1 in G's loss.", _weight),
    Column(
        r"lambda_ds", DRIVE,
        "The weight by which G is rewarded for making different styles look different. It falls to 0 over "
        "the run by schedule (ds_decay_epochs), so that images may settle.",
        _lambda_ds,
    ),
    Column(
        r"l2_edge_gain", DRIVE,
        "How much more errors at the image's edges count in image_loss; it rises by schedule.",
    ),
)  # fmt: skip
