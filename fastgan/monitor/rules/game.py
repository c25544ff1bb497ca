"""Rules on the game between D and G: who is winning, and whether there is a game at all."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import HELD_STEPS, RUN_SHARE, Rule, Sign, above, below, crossed
from fastgan.monitor.rules.steps import TOO_SMALL, is_skipped
from fastgan.monitor.verdict import Evidence

SCORES = ("D_real", "D_fake")
PENALTIES = ("_penalty", "gp", "r1")
"""Endings of the columns of penalties in public logs."""
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
        ranges = [(history.lowest(name), history.highest(name)) for name in SCORES]
        if any(low is None or high is None or low < 0 or high > 1 for low, high in ranges):
            return None
        names = SCORES
    real, fake = history.mean(names[0]), history.mean(names[1])
    if real is None or fake is None:
        return None
    of_fakes = names == SCORES and facts.critic_sign < 0
    return (1 - real, 1 - fake) if of_fakes else (real, fake)


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
SHARE_OF_THE_LIVING, RANKS_OF_THE_LIVING = 0.01, 0.25
"""From a hundredth of G's gradient on, or where D's AUC is so far from 0.5, scores that hardly differ do
their work all the same. Calibration: an AUC of 0.64 at most with weights clipped to 1e-4."""


def check_critic_dead(history: History, facts: Facts) -> Iterator[Sign]:
    """D returns about the same number for everything, and neither it nor G gets a gradient from that."""
    if not history.is_new(*SCORES):
        return
    real, fake = history.mean("D_real"), history.mean("D_fake")
    if real is None or fake is None:
        return
    apart = below("|D_real - D_fake|", abs(real - fake), SEPARATION_OF_THE_DEAD)
    share = adversarial_share(history, facts)
    # An optimizer that clips tells; otherwise the hooks do.
    name = "D_clipped" if "D_clipped" in history.columns else "D_at_bound"
    clipped = history.mean(name)
    gradient = history.mean("D_gradient_norm")
    signs = [
        below(f"share_{facts.adversarial_term}", share, SHARE_OF_THE_DEAD) if share is not None else None,
        above(name, clipped, CLIPPED_OF_THE_DEAD) if clipped is not None else None,
        below("D_gradient_norm", gradient, D_GRADIENT_OF_THE_DEAD) if gradient is not None else None,
    ]
    known = [sign for sign in signs if sign is not None]
    found = [sign for sign in known if crossed(sign)]
    auc = history.mean("D_auc")
    # With a single term the share is 1 whatever D does.
    lives = share is not None and SHARE_OF_THE_LIVING < share < 0.999
    lives = lives or (auc is not None and abs(auc - 0.5) > RANKS_OF_THE_LIVING)
    # From scores alone: a living D is never this still.
    still = bool(found) if known else abs(real - fake) < 0.1 * SEPARATION_OF_THE_DEAD
    holds = crossed(apart) and still and not lives
    reason = ", and what it learns from or tells G is negligible" if found else ""
    yield Sign(
        holds,
        f"D gives real and fake samples the same score{reason}: the adversarial term adds nothing",
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
    measured = separation(history)
    ranks = [above(*measured, 0.5)] if measured is not None else []
    ratio, gradient = history.mean("D_update_ratio"), history.mean("D_gradient_norm")
    has_stopped = (ratio is not None and ratio < TOO_SMALL) or is_skipped(history)
    has_stopped = has_stopped or (gradient is not None and gradient < D_GRADIENT_OF_THE_DEAD)
    yield Sign(
        False if has_stopped else crossed(near, moving, *ranks),
        f"D's loss stands near {chance:.3g}, its value by chance, because G's samples are hard to tell: this "
        "is the equilibrium that both play for, not a D that has stopped",
        (near, moving),
    )


# --- who is winning -----------------------------------------------------------------------------------------

P_REAL_WON, P_FAKE_WON = 0.9, 0.1
"""Parts of the way from D's label of fakes to that of reals, which no D is meant to exceed. Calibration: from
0.91 and 0.08 on with 20 updates of D per step; 0.9 and 0.13 at the best of D in healthy runs of zi2zi. Both
bounds must be crossed."""
LOSS_WON = 0.02
ACCURACY_WON = 0.99
AUC_LOST, LOSS_LOST = 0.4, 1.1


def check_discriminator_wins(history: History, facts: Facts) -> Iterator[Sign]:
    """D is certain of everything, so that its answers no longer tell G what to change."""
    if not history.is_new("D_loss", "D_accuracy_real", *SCORES, *PROBABILITIES):
        return
    says = "D recognizes nearly every sample with certainty: what it tells G hardly changes with G's samples"
    pair = probabilities(history, facts)
    if pair is not None:
        way = facts.real_label - facts.fake_label
        evidence = (
            above("D(x)", pair[0], facts.fake_label + P_REAL_WON * way),
            below("D(G(z))", pair[1], facts.fake_label + P_FAKE_WON * way),
        )
        yield Sign(crossed(*evidence), says, evidence)
        return
    if is_skipped(history):
        yield Sign(False, says)  # what does not count is no part of the loss, whatever D knows
        return
    # A loss that is bounded by 0 and has lost nearly all of its first value, or of that by chance.
    lowest = history.lowest("D_loss")
    loss, first = history.mean("D_loss"), facts.loss_of_chance or history.first("D_loss")
    if facts.adversarial not in ("wgan", "wgan-gp") and loss is not None and first and (lowest or 0) >= 0:
        evidence_of_loss = below(f"D_loss / {first:.3g}", loss / first, LOSS_WON)
        if facts.loss_of_chance or crossed(evidence_of_loss):
            yield Sign(crossed(evidence_of_loss), says, (evidence_of_loss,))
            return
    accuracies = history.mean("D_accuracy_real"), history.mean("D_accuracy_fake")
    if facts.adversarial is None and accuracies[0] is not None and accuracies[1] is not None:
        evidence_of_both = (
            above("D_accuracy_real", accuracies[0], ACCURACY_WON),
            above("D_accuracy_fake", accuracies[1], ACCURACY_WON),
        )
        yield Sign(crossed(*evidence_of_both, slack=0.01), says, evidence_of_both)
    elif loss is not None:
        yield Sign(False, says)


def check_generator_wins(history: History, facts: Facts) -> Iterator[Sign]:
    """D is worse than chance: what it teaches G is noise."""
    if not history.is_new("D_auc", "D_accuracy_real", "D_loss"):
        return
    chance, loss = facts.loss_of_chance, history.mean("D_loss", rows=5)
    evidence = []
    measured = separation(history)
    if measured is not None:
        evidence.append(below(*measured, AUC_LOST))
    # The loss may hold a penalty of unknown weight: there, ranks alone count.
    is_pure = all(column in facts.penalties for column in history.row if column.endswith(PENALTIES))
    if chance and loss is not None and is_pure:
        evidence.append(above(f"D_loss / {chance:.3g}", loss / chance, LOSS_LOST))
    if chance and loss is not None and loss < D_CONTENT * chance:
        yield Sign(False, "")  # D is content with its ranking: labels or signs are exchanged
    elif evidence:
        # A loss that is back at that of chance is not near the bound.
        found = [item for item in evidence if crossed(item, slack=0.05)]
        near = [item for item in evidence if crossed(item, slack=0.05) is None]
        worse = any(item.what.startswith("D_loss") for item in found)
        why = "the same answer to every sample would cost it less" if worse else "it ranks fakes above reals"
        says = f"D is worse than chance, {why}: what G learns of it is noise"
        yield Sign(True if found else None if near else False, says, tuple(found or evidence))


# --- games that are none ------------------------------------------------------------------------------------

INVERTED = 0.3
D_CONTENT = 0.85
MARGIN = 0.7
"""Of a loss below the least possible one: more than the two halves that balance=threshold leaves out of D's
loss at its default, 0.3 each."""
OPPOSED = -0.5
CLEAR = 0.25


def cross_entropy(logit: float, label: float) -> float:
    return max(logit, 0.0) + math.log1p(math.exp(-abs(logit))) - label * logit


def logit(probability: float) -> float:
    within = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(within / (1 - within))


def least_losses(real: float, fake: float, facts: Facts) -> tuple[float, float] | None:
    """The losses of D and G if all samples had the mean scores: as they are convex, the least possible."""
    if facts.scores_are_probabilities:
        real, fake = logit(real), logit(fake)
    real, fake = facts.critic_sign * real, facts.critic_sign * fake
    kind = facts.adversarial
    if kind in ("bce", "nonsaturating"):
        d_loss = cross_entropy(real, facts.real_label) + cross_entropy(fake, facts.fake_label)
        return d_loss, cross_entropy(fake, 1.0)
    if kind == "relativistic":
        return cross_entropy(real - fake, 1.0), cross_entropy(fake - real, 1.0)
    if kind == "hinge":
        return max(0.0, 1 - real) + max(0.0, 1 + fake), -fake
    if kind == "lsgan":
        d_loss = ((real - facts.real_label) ** 2 + (fake - facts.fake_label) ** 2) / 2
        return d_loss, (fake - 1) ** 2 / 2
    return None if kind is None else (fake - real, -fake)


def check_not_adversarial(history: History, facts: Facts) -> Iterator[Sign]:
    """D and G pull the same way: a sign or a label is exchanged in one of the two."""
    if not history.is_new("D_loss"):
        return
    names = "D_loss", facts.generator_loss, *SCORES
    d_loss, g_loss, real, fake = (history.mean(name) for name in names)
    least = None if real is None or fake is None else least_losses(real, fake, facts)
    if least is None or d_loss is None or real is None or fake is None:
        return
    # Logs give WGAN-GP's D_loss with the penalty or without, and G's loss with its weight or without.
    losses = [] if facts.adversarial == "wgan-gp" and not facts.penalties else [(names[0], d_loss, least[0])]
    if g_loss is not None and history.last(f"{facts.adversarial_term}_weight") is not None:
        losses.append((names[1], g_loss, least[1]))
    kind, chance = facts.adversarial, facts.loss_of_chance
    found: list[tuple[str, tuple[Evidence, ...]]] = []
    measured = separation(history)
    if chance and measured is not None:
        content = below(*measured, INVERTED), below(f"D_loss / {chance:.3g}", d_loss / chance, D_CONTENT)
        if crossed(*content):
            found.append(("D's loss is low while it ranks fakes above reals", content))
    for name, loss, bound in losses:
        whose = f"{name} contradicts D's scores"
        if kind in ("wgan", "wgan-gp") or (kind == "hinge" and name != "D_loss"):  # linear in the scores
            # Scores of a step's fakes change with D's update, which comes between D's loss and G's.
            ratio = loss / bound if abs(bound) > CLEAR * abs(real - fake) > 0 else 0.0
            if 1 / OPPOSED <= ratio <= OPPOSED:
                found.append((whose, (below(f"{name} over what D's scores make it", ratio, OPPOSED),)))
        elif (loss >= 0 or kind not in ("bce", "nonsaturating")) and loss < min(bound - MARGIN, bound / 2):
            # Below 0 is only the saturating loss log(1 - D(G(z))), another way to play the same game of bce.
            found.append((whose, (below(f"{name} of at least {bound:.3g}", loss, bound - MARGIN),)))
    says = "; ".join(why for why, _ in found)
    yield Sign(
        bool(found),
        f"D and G minimize the same thing, a sign or a label is exchanged in one of their losses: {says}",
        tuple(item for _, evidence in found for item in evidence),
    )


RULES = (
    Rule(
        "critic_dead", "fault", check_critic_dead,
        "give D an output that can move: weaker weight clipping or none (hinge with R1), LeakyReLU, Adam, a "
        "learning rate of 1e-4 to 4e-4",
        "calibration; Gulrajani et al. 2017 on clipped weights",
        run_share=RUN_SHARE, held=HELD_STEPS,
        columns=(*SCORES, "D_clipped", "D_at_bound", "D_gradient_norm", "D_auc", "share_*"),
    ),
    Rule(
        "discriminator_wins", "warning", check_discriminator_wins,
        "regularize D (R1), or augment what it sees, or lower its learning rate; then a wider generator",
        "Arjovsky and Bottou 2017; bounds by calibration",
        run_share=RUN_SHARE, held=HELD_STEPS,
        columns=(*PROBABILITIES, *SCORES, "D_loss", "D_accuracy_real", "D_accuracy_fake"),
    ),
    Rule(
        "generator_wins", "fault", check_generator_wins,
        "lower both learning rates, then take fewer updates of G per step",
        "D's loss for a constant answer, Goodfellow et al. 2014, with a margin by calibration",
        looks=4, run_share=RUN_SHARE, held=HELD_STEPS,
        columns=("D_auc", "D_accuracy_real", "D_accuracy_fake", "D_loss"),
    ),
    Rule(
        "not_adversarial", "fault", check_not_adversarial,
        "compare the signs and labels of D's and G's losses: G must want for its fakes what D gives to reals",
        "the definition of the game; margins by calibration",
        columns=("D_loss", "G_loss", "G_loss_weight", *SCORES, "D_auc"),
    ),
    Rule(
        "balanced", "note", check_balanced, "", "Goodfellow et al. 2014: D's loss at the equilibrium",
        unless=(
            "critic_dead", "discriminator_wins", "generator_wins", "not_adversarial", "diverging",
            "mode_collapse", "penalty_dominates", "not_learning D", "steps_too_small D",
        ),
        run_share=RUN_SHARE, held=HELD_STEPS,
        columns=("D_loss", *SCORES, "D_auc", "D_update_ratio", "D_gradient_norm"),
    ),
)  # fmt: skip
