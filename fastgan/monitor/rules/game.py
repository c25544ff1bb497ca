"""Rules on the game between D and G: who is winning, and whether there is a game at all."""

from __future__ import annotations

from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import RUN_SHARE, Rule, Sign, above, below, crossed

SCORES = ("D_real", "D_fake")
PROBABILITIES = ("D_probability_real", "D_probability_fake")


def probabilities(history: History, facts: Facts) -> tuple[float, float] | None:
    """Mean D(x) and D(G(z)), as probabilities of being real, over the last log lines; None if unknown.

    Figures that only have D's outputs give probabilities if they are known to be some, or if nothing is known
    of the loss and all of them lie in [0, 1].
    """
    names = PROBABILITIES
    if not (facts.has_probabilities or facts.adversarial is None) or any(
        n not in history.columns for n in names
    ):
        if not (facts.adversarial is None or facts.scores_are_probabilities):
            return None
        outputs = [value for name in SCORES for value in history.values(name)]
        if not outputs or min(outputs) < 0 or max(outputs) > 1:
            return None
        names = SCORES
    real, fake = history.mean(names[0]), history.mean(names[1])
    return None if real is None or fake is None else (real, fake)


def separation(history: History) -> tuple[str, float] | None:
    """How often D tells a real sample from a fake, 0.5 by chance: its AUC, or its accuracy."""
    auc = history.mean("D_auc")
    if auc is not None:
        return "D_auc", auc
    real, fake = history.mean("D_accuracy_real"), history.mean("D_accuracy_fake")
    return None if real is None or fake is None else ("D_accuracy", (real + fake) / 2)


def adversarial_share(history: History, facts: Facts) -> float | None:
    """The adversarial term's part of G's gradient, if the term has weight."""
    weight = history.last(f"{facts.adversarial_term}_weight")
    return None if weight == 0 else history.mean(f"share_{facts.adversarial_term}")


# --- critic_dead and balanced -------------------------------------------------------------------------------

SEPARATION_OF_THE_DEAD = 1e-3
SHARE_OF_THE_DEAD = 1e-3
CLIPPED_OF_THE_DEAD = 0.1
D_GRADIENT_OF_THE_DEAD = 1e-3


def check_critic_dead(history: History, facts: Facts) -> Iterator[Sign]:
    """D returns about the same number for everything, and neither it nor G gets a gradient from that."""
    if not history.is_new(*SCORES):
        return
    real, fake = history.mean("D_real"), history.mean("D_fake")
    if real is None or fake is None:
        return
    apart = below("|D_real - D_fake|", abs(real - fake), SEPARATION_OF_THE_DEAD)
    share, clipped = adversarial_share(history, facts), history.mean("D_clipped")
    gradient = history.mean("D_gradient_norm")
    signs = [
        below(f"share_{facts.adversarial_term}", share, SHARE_OF_THE_DEAD) if share is not None else None,
        above("D_clipped", clipped, CLIPPED_OF_THE_DEAD) if clipped is not None else None,
        below("D_gradient_norm", gradient, D_GRADIENT_OF_THE_DEAD) if gradient is not None else None,
    ]
    known = [sign for sign in signs if sign is not None]
    found = [sign for sign in known if crossed(sign)]
    # From scores alone: a living D is never this still.
    holds = crossed(apart) and (bool(found) if known else abs(real - fake) < 0.1 * SEPARATION_OF_THE_DEAD)
    yield Sign(
        holds,
        "D gives real and fake samples the same score, and its gradient is negligible: the adversarial term "
        "adds nothing",
        (apart, *found),
    )


BALANCE = 0.1


def check_balanced(history: History, facts: Facts) -> Iterator[Sign]:
    """D's loss is near that of chance, while D still separates or learns."""
    chance = facts.loss_of_chance
    loss = history.mean("D_loss")
    if not chance or loss is None or not history.is_new("D_loss"):
        return
    real, fake = history.mean("D_real"), history.mean("D_fake")
    if real is None or fake is None:
        return
    near = below(f"|D_loss / {chance:.3g} - 1|", abs(loss / chance - 1), BALANCE)
    moving = above("|D_real - D_fake|", abs(real - fake), SEPARATION_OF_THE_DEAD)
    yield Sign(
        crossed(near, moving),
        f"D's loss stands near {chance:.3g}, its value by chance, because G's samples are hard to tell: this "
        "is the equilibrium that both play for, not a D that has stopped",
        (near, moving),
    )


# --- who is winning -----------------------------------------------------------------------------------------

P_REAL_WON, P_FAKE_WON = 0.9, 0.1
LOSS_WON = 0.02
AUC_LOST, LOSS_LOST = 0.4, 1.1


def check_discriminator_wins(history: History, facts: Facts) -> Iterator[Sign]:
    """D is certain of everything, so that its answers no longer tell G what to change."""
    if not history.is_new("D_loss", *SCORES, *PROBABILITIES):
        return
    says = "D recognizes nearly every sample with certainty: what it tells G hardly changes with G's samples"
    pair = probabilities(history, facts)
    if pair is not None:
        evidence = above("D(x)", pair[0], P_REAL_WON), below("D(G(z))", pair[1], P_FAKE_WON)
        yield Sign(crossed(*evidence), says, evidence)
        return
    if facts.adversarial not in (None, "lsgan"):
        return
    # Nothing is known of D's outputs: a loss that is bounded by 0 and has lost nearly all of its first value.
    losses = history.values("D_loss")
    loss, first = history.mean("D_loss"), facts.loss_of_chance or history.first("D_loss", 1)
    if loss is None or not first or min(losses) < 0:
        return
    evidence_of_loss = below(f"D_loss / {first:.3g}", loss / first, LOSS_WON)
    yield Sign(crossed(evidence_of_loss), says, (evidence_of_loss,))


def check_generator_wins(history: History, facts: Facts) -> Iterator[Sign]:
    """D is worse than chance: what it teaches G is noise."""
    if not history.is_new("D_auc", "D_accuracy_real", "D_loss"):
        return
    says = (
        "D is worse than chance: the same answer to every sample would cost it less, and what G learns of it "
        "is noise"
    )
    chance, loss = facts.loss_of_chance, history.mean("D_loss", rows=5)
    evidence = []
    measured = separation(history)
    if measured is not None:
        evidence.append(below(*measured, AUC_LOST))
    if chance and loss is not None:
        evidence.append(above(f"D_loss / {chance:.3g}", loss / chance, LOSS_LOST))
    if evidence:
        found = [item for item in evidence if crossed(item)]
        near = [item for item in evidence if crossed(item) is None]
        yield Sign(True if found else None if near else False, says, tuple(found or evidence))


# --- games that are none ------------------------------------------------------------------------------------

BOTH_WIN_D, BOTH_WIN_G = 0.85, 0.7
SAME_SIGN = 0.9


def check_not_adversarial(history: History, facts: Facts) -> Iterator[Sign]:
    """D and G pull the same way: a sign or a label is exchanged in one of the two."""
    if not history.is_new("D_loss"):
        return
    d_loss, g_loss = history.mean("D_loss"), history.mean(facts.generator_loss)
    real, fake = history.mean("D_real"), history.mean("D_fake")
    if None in (d_loss, g_loss, real, fake):
        return
    assert d_loss is not None and g_loss is not None and real is not None and fake is not None
    kind, chance = facts.adversarial, facts.loss_of_chance
    says = "D and G minimize the same thing: a sign or a label is exchanged in one of their two losses"
    if kind in ("wgan", "wgan-gp"):
        if abs(real - fake) < 1e-6 or abs(fake) < 1e-6:
            return
        # D minimizes c (D_fake - D_real), G minimizes -c D_fake: the same sign c.
        of_d, of_g = d_loss / (fake - real), -g_loss / fake
        opposed = below("D's sign times G's sign", of_d * of_g, 0.0)
        yield Sign(of_d * of_g < 0 and abs(of_g) > SAME_SIGN / 2, says, (opposed,))
    elif kind in ("bce", "nonsaturating", "lsgan") and chance:
        g_chance = chance / 2  # of least squares as well: D's loss halves both terms, G's its only one
        evidence = (
            below(f"D_loss / {chance:.3g}", d_loss / chance, BOTH_WIN_D),
            below(f"{facts.generator_loss} / {g_chance:.3g}", g_loss / g_chance, BOTH_WIN_G),
        )
        yield Sign(crossed(*evidence), says, evidence)
    elif kind == "hinge":
        # G's loss is -D_fake for a D that is high for reals: below 0 only where D takes fakes for real.
        evidence = below("D_loss / 2", d_loss / 2, BOTH_WIN_D), below(facts.generator_loss, g_loss, -0.3)
        yield Sign(crossed(*evidence), says, evidence)


# --- what D judges, and what holds it -----------------------------------------------------------------------

FLAT = 0.02
RANKS = 0.65
PENALTY_SHARE = 5.0


def check_penalty_dominates(history: History, facts: Facts) -> Iterator[Sign]:
    """D's penalty is so strong that D may not answer: it ranks samples, but flatly."""
    for column, weight in facts.penalties.items():
        if weight <= 0 or not history.is_new("D_loss"):
            continue
        penalty, loss = history.last(column), history.mean("D_loss")
        real, fake = history.mean("D_real"), history.mean("D_fake")
        if penalty is None or loss is None or real is None or fake is None:
            continue
        chance, measured = facts.loss_of_chance, separation(history)
        cost = above(
            f"{weight:g} * {column} / |D_loss|", weight * penalty / max(abs(loss), 1e-12), PENALTY_SHARE
        )
        flat = below("|D_real - D_fake|", abs(real - fake), FLAT)
        holds, evidence = crossed(cost), (cost,)
        if not holds and chance and measured is not None:
            ranks = above(*measured, RANKS)
            if crossed(flat, ranks):
                holds, evidence = True, (flat, ranks)  # type: ignore[assignment]
        yield Sign(
            holds,
            f"{column} holds D flat: it costs more than D gains by telling real from fake, so that D's "
            "answers hardly differ",
            evidence,
            column,
        )


OVERFITTING = 0.7


def check_discriminator_overfits(history: History, facts: Facts) -> Iterator[Sign]:
    """D takes held-out reals for fakes: it knows its training images by heart."""
    if not history.is_new("probe_overfitting"):
        return
    value, told = history.last("probe_overfitting"), history.last("probe_auc_fake")
    if value is None or told is None:
        return
    evidence = above("probe_overfitting", value, OVERFITTING), above("probe_auc_fake", told, 0.8)
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
    evidence = above("probe_auc_null", value, SHORTCUT)
    yield Sign(
        crossed(evidence, slack=0.05),
        "D recognizes fakes from which the generator's contribution was taken out: it judges the pipeline, "
        "and G can do nothing about it",
        (evidence,),
    )


RULES = (
    Rule(
        "critic_dead", "fault", check_critic_dead,
        "give D an output that can move: weaker weight clipping or none (hinge with R1), LeakyReLU, Adam, a "
        "learning rate of 1e-4 to 4e-4",
        "calibration; Gulrajani et al. 2017 on clipped weights",
        run_share=RUN_SHARE, columns=(*SCORES, "D_clipped", "D_gradient_norm"),
    ),
    Rule(
        "discriminator_wins", "warning", check_discriminator_wins,
        "regularize D (R1), or augment what it sees, or lower its learning rate; then a wider generator",
        "Arjovsky and Bottou 2017; bounds by calibration",
        run_share=RUN_SHARE, columns=(*PROBABILITIES, *SCORES, "D_loss"),
    ),
    Rule(
        "generator_wins", "fault", check_generator_wins,
        "lower both learning rates, then take fewer updates of G per step",
        "D's loss for a constant answer, Goodfellow et al. 2014, with a margin by calibration",
        looks=4, run_share=RUN_SHARE, columns=("D_auc", "D_accuracy_real", "D_accuracy_fake", "D_loss"),
    ),
    Rule(
        "not_adversarial", "fault", check_not_adversarial,
        "compare the signs and labels of D's and G's losses: G must want for its fakes what D gives to reals",
        "the definition of the game; margins by calibration",
        columns=("D_loss", "G_loss", *SCORES),
    ),
    Rule(
        "penalty_dominates", "warning", check_penalty_dominates,
        "lower the penalty's weight by powers of ten (R1: 1 to 10 for images of 256x256, less for smaller "
        "ones)",
        "Mescheder et al. 2018; bounds by calibration",
        run_share=RUN_SHARE, columns=("*_penalty", "D_loss", *SCORES),
    ),
    Rule(
        "discriminator_overfits", "warning", check_discriminator_overfits,
        "augment what D sees, or take more data, or a smaller D",
        "r_v of Karras et al. 2020; bound by calibration",
        looks=2, columns=("probe_overfitting", "probe_auc_fake"),
    ),
    Rule(
        "shortcut", "fault", check_shortcut,
        "give D real images that went through the same pipeline as the fakes",
        "calibration",
        looks=2, columns=("probe_auc_null",),
    ),
    Rule(
        "balanced", "note", check_balanced, "", "Goodfellow et al. 2014: D's loss at the equilibrium",
        run_share=RUN_SHARE, columns=("D_loss", *SCORES),
    ),
)  # fmt: skip
