"""Who is winning? D's scores and losses, its penalties, G's adversarial loss, and what D's probes measure."""

from __future__ import annotations

import math
import re
import statistics
from typing import get_args

from fastgan.losses.adversarial import Kind
from fastgan.monitor.columns._column import GAME, STYLES, Column
from fastgan.monitor.curve import Curve, number, reads
from fastgan.monitor.facts import Facts
from fastgan.monitor.rules.discriminator import OVERFITTING, PENALTY_SHARE, SHORTCUT
from fastgan.monitor.rules.game import (
    AUC_LOST,
    BALANCE,
    LOSS_WON,
    P_FAKE_WON,
    P_REAL_WON,
    SEPARATION_OF_THE_DEAD,
    cross_entropy,
)

CRITICS = ("wgan", "wgan-gp")


def least_loss(facts: Facts) -> float:
    """The least possible loss of a D whose loss by chance is known: more than 0 for smoothed labels."""
    if not facts.has_probabilities:
        return 0.0
    labels = (label for label in (facts.real_label, facts.fake_label) if 0 < label < 1)
    return sum(cross_entropy(math.log(label / (1 - label)), label) for label in labels)


def _d_loss(match: re.Match[str], curve: Curve) -> str:
    facts, loss = curve.facts, curve.now
    if facts.adversarial in CRITICS:
        minuend, subtrahend = ("fakes", "reals") if facts.critic_sign > 0 else ("reals", "fakes")
        return (
            f"Mean score of {minuend} minus that of {subtrahend}: its size means nothing by itself; nearer "
            "to 0, D finds less of a difference."
        )
    chance = facts.loss_of_chance
    if chance is None:
        return "Its value without skill depends on the adversarial loss, which was not given."
    least = least_loss(facts)
    labels = f"{number(facts.real_label)} and {number(facts.fake_label)}"
    certainty = f"{number(least)}, the least that labels of {labels} allow," if least else "0"
    text = (
        f"With {facts.adversarial}, {number(chance)} is what the same answer to every sample costs; "
        f"{certainty} is certainty."
    )
    if loss is None:
        return text
    real, fake = curve.latest("D_real"), curve.latest("D_fake")
    apart = abs(real - fake) if real is not None and fake is not None else None
    return reads(
        text,
        (
            loss - least < LOSS_WON * (chance - least),
            "D is certain of nearly everything, and G gets little from it.",
        ),
        (loss < (1 - BALANCE) * chance, "D is ahead of G, which is normal."),
        (loss > (1 + BALANCE) * chance, "Above it, D does worse than by not looking at all."),
        (apart is None, "Near it, D can hardly tell."),
        (
            apart is not None and apart > SEPARATION_OF_THE_DEAD,
            f"Near it is fine while scores still differ, as here, by {number(apart or 0)}: G's samples are "
            "hard to tell.",
        ),
        (True, "Scores of real and fake samples are the same, too: D may have stopped."),
    )


def _losses_of_chance() -> str:
    """D's losses without skill, for the games that have one."""
    chances = {kind: Facts(adversarial=kind).loss_of_chance for kind in get_args(Kind)}
    return ", ".join(f"{number(chance)} for {kind}" for kind, chance in chances.items() if chance)


SCALES = {
    "bce": "0 is undecided",
    "nonsaturating": "0 is undecided",
    "relativistic": "only the difference to the other one counts",
    "hinge": "0 is undecided, and beyond 1 or -1 D gains nothing more",
    "wgan": "only the difference to the other one counts",
    "wgan-gp": "only the difference to the other one counts",
}


def _score(match: re.Match[str], curve: Curve) -> str:
    facts, is_real = curve.facts, match[1] == "real"
    if facts.scores_are_probabilities:
        return f"It is a probability: {_probability(match, curve)}"
    scale = SCALES.get(facts.adversarial or "", "")
    if facts.adversarial == "lsgan":
        label = facts.critic_sign * (facts.real_label if is_real else facts.fake_label) + 0.0
        scale = f"D is trained to give {number(label)}"
    high = "High means fake" if facts.critic_sign < 0 else "High means real"
    text = f"{', '.join(filter(None, (high, scale)))}."
    pair = curve.latest("D_real"), curve.latest("D_fake")
    if curve.name.endswith("_after") or pair[0] is None or pair[1] is None:
        return text
    return f"{text} D_real minus D_fake is {number(pair[0] - pair[1])} now."


def _probability(match: re.Match[str], curve: Curve) -> str:
    facts, value = curve.facts, curve.now
    if facts.adversarial and not facts.has_probabilities:
        return (
            f"The loss is {facts.adversarial}, which does not train D to give probabilities: read D_real and "
            "D_fake."
        )
    text = "0.5 is undecided."
    if value is None:
        return text
    if match[1] == "real":
        most = P_REAL_WON * facts.real_label
        other = curve.name.replace("real", "fake")
        return reads(
            text,
            (value > most, f"D is certain, which is bad only if {other} is below {number(P_FAKE_WON)}."),
            (value >= 0.5, f"Between 0.5 and {number(most)} both have something to learn."),
            (True, "Below 0.5 D takes real samples for fake."),
        )
    return reads(
        text,
        (value < P_FAKE_WON, "D recognizes nearly all: G gets little from that."),
        (value <= 0.5, f"Between {number(P_FAKE_WON)} and 0.5 both have something to learn."),
        (True, "Above 0.5 G fools D more often than not."),
    )


def _auc(match: re.Match[str], curve: Curve) -> str:
    value = curve.now
    if value is None:
        return ""
    return reads(
        "",
        (value < AUC_LOST, "Below 0.5 D ranks the wrong way round."),
        (value < 0.6, "D can hardly tell them apart."),
        (True, "D tells them apart; near 1 is normal early, and later means that G is behind."),
    )


def _adversarial(match: re.Match[str], curve: Curve) -> str:
    facts, kind = curve.facts, curve.facts.adversarial
    if kind in ("bce", "nonsaturating", "relativistic"):
        text = f"{number(math.log(2))} where D is undecided, more where D is ahead."
    elif kind == "lsgan":
        undecided = ((facts.real_label + facts.fake_label) / 2 - 1) ** 2 / 2
        text = (
            f"{number(undecided)} where D answers half way between its labels, 0 where it gives 1 to all of "
            "G's samples."
        )
    elif kind is not None:
        sign = "D's" if facts.critic_sign < 0 else "Minus D's"
        text = (
            f"{sign} mean score of fakes: it has no lower bound, and neither its sign nor its size says how "
            "good images are."
        )
    else:
        text = MOOD
    return f"{text} {curve.weighted()}".rstrip()


MOOD = "It follows D's mood and says little about images."


def _penalty(match: re.Match[str], curve: Curve) -> str:
    text = _computed(curve)
    weight, loss = curve.facts.penalties.get(curve.name), curve.latest("D_loss")
    if weight is None or curve.now is None:
        return text
    if weight == 0:
        return f"{text} Its weight is 0."
    cost = weight * curve.now
    text += f" With its weight of {number(weight)} it costs D {number(cost)} a step"
    if loss is None:
        return f"{text}."
    ratio = cost / max(abs(loss), 1e-12)
    share = f"{ratio:.0%} of" if ratio <= 1 else f"{number(ratio)} times"
    much = f"more than usual, and from {number(PENALTY_SHARE)} times on D may hardly answer"
    if ratio > PENALTY_SHARE:
        much = "so much that D may hardly answer"
    return f"{text}, {share} its adversarial loss: {'normal' if ratio <= 1 else much}."


def _computed(curve: Curve) -> str:
    """Over which rows of a penalty that is computed in some steps alone its mean is taken."""
    values = curve.history.values(curve.name)
    computed = [value for value in values if value != 0]
    lines = len(curve.history.columns.get("D_loss", values))
    if computed and len(computed) < len(values):
        return (
            f"It is {number(statistics.fmean(values))} over all rows, {number(statistics.fmean(computed))} "
            f"over the {len(computed)} of {len(values)} that compute it."
        )
    if values and len(values) < lines:
        overall = number(statistics.fmean(values) * len(values) / lines)
        return (
            f"{OVER_STEPS} {len(values)} of {lines} log lines have such a step; over all lines it would be "
            f"{overall}."
        )
    return OVER_STEPS


OVER_STEPS = "It is the mean over the steps that compute it."


GENERATOR_LOSS = Column(r"G_loss", GAME, "G's adversarial loss.", _adversarial, MOOD)
COLUMNS = (
    Column(
        r"D_loss", GAME, "D's loss.", _d_loss,
        f"The same answer to every sample costs {_losses_of_chance()}, and near 0 D is certain; critics' "
        "losses have no such values.",
    ),
    Column(r"D_(real)", GAME, "D's mean score of real samples.", _score, "High means real."),
    Column(r"D_(fake)", GAME, "D's mean score of G's samples.", _score, "High means real."),
    Column(r"D_(real)_after", GAME, "D's mean score of real samples after its update.", _score),
    Column(r"D_(fake)_after", GAME, "D's mean score of G's samples after its update.", _score),
    Column(r"D_difference", GAME, "D_real minus D_fake: what D has found; 0 if it gives all the same score."),
    Column(
        r"D_probability_(real)(_after)?", GAME, "D's mean probability that a real sample is real.",
        _probability,
        f"0.5 is undecided. Between 0.5 and {number(P_REAL_WON)} both have something to learn.",
    ),
    Column(
        r"D_probability_(fake)(_after)?", GAME, "D's mean probability that a sample of G is real.",
        _probability,
        f"0.5 is undecided. Between {number(P_FAKE_WON)} and 0.5 both have something to learn.",
    ),
    Column(
        r"D_accuracy_real", GAME, "The part of the real samples that D scores as real; 0.5 by chance."
    ),
    Column(r"D_accuracy_fake", GAME, "The part of G's samples that D scores as fake; 0.5 by chance."),
    Column(
        r"D_auc", GAME,
        "How often D scores a real sample of a batch above a fake one: 0.5 by chance, 1 if always. It does "
        "not depend on the scale of scores.",
        _auc, "Near 1 is normal early, and later means that G is behind.",
    ),
    Column(r"D_real_loss", GAME, "D's loss of real samples alone."),
    Column(r"D_fake_loss", GAME, "D's loss of fake samples alone."),
    *(
        Column(
            rf"D_{kind}_loss", GAME, f"D's loss with styles from {styles}; D_loss is the mean of both kinds."
        )
        for kind, styles in STYLES.items()
    ),
    Column(
        r"r1_penalty", GAME, "R1, unweighted: the squared gradient of D's score of real samples.", _penalty,
        OVER_STEPS,
    ),
    Column(r"D_penalty", GAME, "D's gradient penalty, unweighted.", _penalty, OVER_STEPS),
    Column(r".+_penalty", GAME, "A penalty in D's loss, unweighted.", _penalty, OVER_STEPS),
    GENERATOR_LOSS,
    *(
        Column(
            rf"adv_{kind}_loss", GAME, f"G's adversarial loss, with styles from {styles}.", _adversarial, MOOD
        )
        for kind, styles in STYLES.items()
    ),
    Column(
        r"probe_auc_held_out", GAME,
        "How often D scores a held-out real image above a generated one; 0.5 by chance, and less where D "
        "knows its training images by heart.",
    ),
    Column(
        r"probe_auc_fake", GAME,
        "How often D scores a training image above a generated one, with networks as at this evaluation; 0.5 "
        "by chance.",
    ),
    Column(
        r"probe_auc_null", GAME,
        "How often D tells real images from what the pipeline makes of them without G's contribution: 0.5 is "
        f"right; above {number(SHORTCUT)} D judges the pipeline, not G.",
    ),
    Column(
        r"probe_overfitting", GAME,
        "0 if D scores held-out real images like those it is trained on, 1 if like fakes; above "
        f"{number(OVERFITTING)} it knows its images by heart. It says little while probe_auc_fake is near "
        "0.5.",
    ),
)  # fmt: skip
