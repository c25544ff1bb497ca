"""Is it collapsing? How much G's samples differ, and which part of the data they cover."""

from __future__ import annotations

import re

from fastgan.monitor.columns._column import COLLAPSE, STYLES, Column
from fastgan.monitor.curve import Curve, number, reads
from fastgan.monitor.rules.images import SPREAD


def _collapse(match: re.Match[str], curve: Curve) -> str:
    bound = curve.facts.collapse_ratio
    is_below = curve.now is not None and curve.now < bound
    return reads("", (is_below, f"Below {number(bound)} counts as collapse."))


def _diversity(match: re.Match[str], curve: Curve) -> str:
    weight = curve.latest("lambda_ds")
    if weight is None:
        return ""
    if weight == 0:
        return "lambda_ds is 0 now, so nothing holds it up any more."
    return f"It enters G's loss with minus lambda_ds, now {number(weight)}."


COLUMNS = (
    Column(
        r"collapse_ratio", COLLAPSE,
        "Distance between generated images (of all pairs) over that between real ones: 1 is as diverse as "
        "the data, 0 is one image.",
        _collapse,
    ),
    Column(
        r"collapse_ratio_nearest", COLLAPSE,
        "Distance between generated images (to the nearest other one) over that between real ones: 1 is as "
        "diverse as the data, 0 is one image.",
    ),
    Column(
        r"spread_ratio", COLLAPSE,
        "How much G's samples of a batch differ, over how much real ones do: about 1 is right, below "
        f"{number(SPREAD)} they resemble each other.",
    ),
    *(
        Column(
            f"ds_{kind}_loss", COLLAPSE,
            f"How far apart two styles from {styles} make the same image; higher is more diverse.",
            _diversity,
        )
        for kind, styles in STYLES.items()
    ),
    Column(
        r"(?:pairwise_l1|lpips)_(latent|reference)", COLLAPSE,
        r"How far translations of one image in different styles (\1) lie apart; 0 if the style does nothing.",
    ),
    Column(
        r"probe_distance_ratio", COLLAPSE,
        "Distance between generated images over that between held-out ones: 1 is as diverse as the data.",
    ),
    Column(
        r"probe_memorized", COLLAPSE,
        "The part of the generated images that lie closer to a training image than half of the held-out ones "
        "do: 0.5 is right, near 1 G repeats its training set.",
    ),
    Column(
        r"probe_duplicates", COLLAPSE,
        "The part of the generated images that nearly equal another one of them; 0 is normal, and much more "
        "means few kinds of image.",
    ),
    Column(
        r"probe_stable_rank", COLLAPSE,
        "In how many directions the narrowest of D's layers passes its input (squared Frobenius over squared "
        "spectral norm): one that falls towards 1 announces a collapse.",
    ),
    Column(
        r"precision(_of_random_features)?", COLLAPSE,
        "The part of the generated images that lie among the real ones, by features: 1 is all; how real they "
        "are.",
    ),
    Column(
        r"recall(_of_random_features)?", COLLAPSE,
        "The part of the real images that lie among the generated ones, by features: 1 is all; near 0 most "
        "of the data is never generated.",
    ),
    Column(
        r"density(_of_random_features)?", COLLAPSE,
        "Like precision, but outliers among the real images count less; real images reach about 1, and more "
        "is possible.",
    ),
    Column(
        r"coverage(_of_random_features)?", COLLAPSE,
        "The part of the real images with a generated one nearby: real images reach nearly 1, one mode alone "
        "nearly 0.",
    ),
)  # fmt: skip
