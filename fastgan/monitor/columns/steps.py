"""Are the steps sane? Updates, norms, ranges of values and learning rates."""

from __future__ import annotations

import re

from fastgan.monitor.columns._column import STEPS, Column
from fastgan.monitor.curve import Curve, number, reads
from fastgan.monitor.rules.game import CLIPPED_OF_THE_DEAD
from fastgan.monitor.rules.steps import STANDS_STILL, TOO_LARGE, TOO_SMALL


def _update(match: re.Match[str], curve: Curve) -> str:
    value = curve.now
    if value is None:
        return ""
    return reads(
        "",
        (value > TOO_LARGE, "Steps are too large."),
        (value < STANDS_STILL, f"{match[1]} does not move."),
        (value < TOO_SMALL, "Steps are too small to get anywhere."),
    )


def _range(match: re.Match[str], curve: Curve) -> str:
    assumed = curve.facts.value_range
    return "" if assumed is None else f"The losses assume [{number(assumed[0])}, {number(assumed[1])}]."


COLUMNS = (
    Column(
        r"(.+)_update_ratio", STEPS,
        r"How far one step moves \1's weights, as a part of their size: about 0.001 is usual, "
        f"{number(TOO_SMALL)} to {number(TOO_LARGE)} is sane.",
        _update,
    ),
    Column(
        r"(.+)_gradient_norm", STEPS,
        r"The norm of the gradient that \1's optimizer gets. Its size depends on the network; one that grows "
        "on and on, or is nearly 0, does not train.",
    ),
    Column(
        r"(.+)_weight_norm", STEPS,
        r"The norm of \1's weights, which should neither jump nor grow without end.",
    ),
    Column(r"(.+)_norm", STEPS, r"The norm of \1, which should not grow without end."),
    Column(
        r"D_clipped", STEPS,
        "The part of D's weights that the clip holds at its bound; above "
        f"{number(CLIPPED_OF_THE_DEAD)} D can express little.",
    ),
    Column(
        r"D_at_bound", STEPS,
        "The part of D's weights that are as large as its largest: near 0, unless weights are clipped.",
    ),
    Column(r"(.+)_untrained", STEPS, r"The part of \1's weights that no step trains; 0 is right."),
    Column(
        r"D_updated", STEPS,
        "The part of the steps that trained D, as the balance policy decides; 1 is all.",
    ),
    Column(r"real_(lowest|highest)", STEPS, r"The \1 value of a batch of real images.", _range),
    Column(r"fake_(lowest|highest)", STEPS, r"The \1 value of a batch of generated images.", _range),
    Column(
        r"real_deviation", STEPS,
        "The standard deviation of the real images' values; about 1 for scaled latents.",
    ),
    Column(r"(.+)_range_(low|high)", STEPS, r"The \2 end of the range of values that \1 assumes."),
    Column(r"lr", STEPS, "The learning rate."),
    Column(r"lr_d", STEPS, "The learning rate of D."),
    Column(r"lr_g", STEPS, "The learning rate of G."),
    Column(r"lr_(.+)", STEPS, r"The learning rate of \1."),
)  # fmt: skip
