"""Rules on D by itself: what it judges, and what keeps it from judging."""

from __future__ import annotations

from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import HELD_STEPS, RUN_SHARE, Rule, Sign, above, below, crossed
from fastgan.monitor.rules.game import SCORES

FLAT = 0.02
"""Calibration: R1 x 1e4 leaves differences of at most 0.007."""
BINDING = 10.0
"""A penalty that holds D costs half of what the difference gains once D has settled (the optimum of
e d - w e^2 p in e), and more while D is pressed flat. Calibration: over 1000 times with R1 x 1e4, up to 0.8
times in healthy starts of stegastamp, whose D is as flat at first."""
PENALTY_SHARE = 5.0
"""Calibration: R1 x 1e4 costs 11 times D's loss and more, at its usual weight less than a third of it."""


def check_penalty_dominates(history: History, facts: Facts) -> Iterator[Sign]:
    """D's penalty is so strong that D may not answer."""
    for column, weight in facts.penalties.items():
        if weight <= 0 or not history.is_new("D_loss"):
            continue
        penalty, loss = history.last(column), history.mean("D_loss")
        real, fake = history.mean("D_real"), history.mean("D_fake")
        if penalty is None or loss is None or real is None or fake is None:
            continue
        paid, apart = weight * penalty, abs(real - fake)
        game = max(abs(loss), facts.loss_of_chance or 1.0)  # D's loss alone is near 0 where D has won
        cost = (above(f"{weight:g} * {column} beside a loss of {game:.3g}", paid / game, PENALTY_SHARE),)
        flat = (
            below("|D_real - D_fake|", apart, FLAT),
            above(f"{weight:g} * {column} / |D_real - D_fake|", paid / max(apart, 1e-12), BINDING),
        )
        holds = [crossed(*cost), crossed(*flat)]
        says = (
            f"{column} costs D several times what the game does: D learns to be flat before all else"
            if holds[0]
            else f"{column} holds D flat: its scores hardly differ, and cost more penalty than they gain"
        )
        yield Sign(
            True if True in holds else None if None in holds else False,
            says,
            flat if holds[1] and not holds[0] else cost,
            column,
        )


OVERFITTING = 0.7
KNOWN_BY_HEART = 0.8
TOLD_APART = 0.55
"""0.5 by chance, which few images give to a few hundredths. Calibration: 0.37 and less with eight training
images; 0.6 with the twelve of stegastamp, where r_v is 0.8 already: held-out ones look different, and still
not like fakes."""
OVERFITTING_PROBES = ("probe_overfitting", "probe_auc_fake", "probe_auc_held_out")


def check_discriminator_overfits(history: History, facts: Facts) -> Iterator[Sign]:
    """D takes held-out reals for fakes: it knows its training images by heart."""
    if not history.is_new("probe_overfitting"):
        return
    figures = [history.last(name) for name in OVERFITTING_PROBES]
    value, seen, unseen = figures
    if value is None or seen is None or unseen is None:
        return
    evidence = (
        above("probe_overfitting", value, OVERFITTING),
        above("probe_auc_fake", seen, KNOWN_BY_HEART),
        below("probe_auc_held_out", unseen, TOLD_APART),
    )
    yield Sign(
        crossed(*evidence),
        "D scores real images that it has not seen like fakes: it has learned its training images by heart",
        evidence,
    )


SHORTCUT = 0.8


def check_shortcut(history: History, facts: Facts) -> Iterator[Sign]:
    """D tells real images from what the pipeline makes of them without the generator's contribution."""
    value = history.last("probe_auc_null")
    if value is None or not history.is_new("probe_auc_null"):
        return
    # Below 0.5 D takes the pipeline's mark for real, and tells the two apart all the same.
    evidence = above("|probe_auc_null - 0.5|", abs(value - 0.5), SHORTCUT - 0.5)
    yield Sign(
        crossed(evidence, slack=0.1),
        "D recognizes fakes from which the generator's contribution was taken out: it judges the pipeline, "
        "and G can do nothing about it",
        (evidence,),
    )


RULES = (
    Rule(
        "penalty_dominates", "warning", check_penalty_dominates,
        "lower the penalty's weight by powers of ten (R1: 1 to 10 for images of 256x256, less for smaller "
        "ones)",
        "Mescheder et al. 2018; bounds by calibration",
        run_share=RUN_SHARE, held=HELD_STEPS, columns=("*_penalty", "D_loss", *SCORES),
    ),
    Rule(
        "discriminator_overfits", "warning", check_discriminator_overfits,
        "augment what D sees, or take more data, or a smaller D",
        "r_v of Karras et al. 2020; bound by calibration",
        looks=2, columns=OVERFITTING_PROBES,
    ),
    Rule(
        "shortcut", "fault", check_shortcut,
        "give D real images that went through the same pipeline as the fakes",
        "calibration",
        looks=2, columns=("probe_auc_null",),
    ),
)  # fmt: skip
