"""Rules on what drives G: shares of its gradient, cosines between terms, and what the task has learned."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import HELD_STEPS, RUN_SHARE, Rule, Sign, above, below, crossed

IGNORED = 0.004
"""Calibration: shares of at most 0.0006 with weights x 1e-4, of at least 0.03 in healthy runs; the middle of
both as a power of ten."""
DOMINATES = 0.98
"""Calibration: shares of at least 0.998 with weights x 1e3, of up to 0.95 (stegastamp's secret) in healthy
runs."""
D_DOMINATES = 3.0
"""Calibration: zi2zi's category costs D 11 to 50 times the game's loss by chance with a weight of 100, half
of it with 1."""
CONFLICT = -0.5


def has_weight(history: History, term: str) -> bool:
    """Whether a term's weight is not 0; a term without a reported weight has one."""
    return history.last(f"{term}_weight") != 0


def is_on_ramp(history: History, term: str) -> bool:
    """Whether a term's weight still rises; adaptive weights go up and down."""
    return history.is_rising(f"{term}_weight")


def check_gan_ignored(history: History, facts: Facts) -> Iterator[Sign]:
    """The adversarial term has weight, but nearly no part of G's gradient."""
    term = facts.adversarial_term
    share = history.mean(f"share_{term}") if history.is_new(f"share_{term}") else None
    if share is None or not has_weight(history, term) or is_on_ramp(history, term):
        return
    evidence = below(f"share_{term}", share, IGNORED)
    yield Sign(
        crossed(evidence),
        "the adversarial term has hardly any part in G's gradient: G is trained by the other terms alone",
        (evidence,),
    )


def check_term_dominates(history: History, facts: Facts) -> Iterator[Sign]:
    """One of several terms has nearly all of G's gradient."""
    weighted = [term for term in history.names("share_") if has_weight(history, term)]
    if len(weighted) < 2 or any(is_on_ramp(history, term) for term in weighted):
        return
    for term in weighted:
        share = history.mean(f"share_{term}")
        if share is not None:
            evidence = above(f"share_{term}", share, DOMINATES)
            yield Sign(
                crossed(evidence, slack=0.01),
                f"{term} has nearly all of G's gradient: what the other terms ask for is drowned",
                (evidence,),
                term,
            )


def check_term_of_d(history: History, facts: Facts) -> Iterator[Sign]:
    """D's loss consists of another term than the game's."""
    loss = history.mean("D_loss")
    for name in history.names("D_", "_loss_weight"):
        term = f"D_{name}_loss"
        value, weight = history.mean(term), history.last(f"{term}_weight")
        if loss is None or value is None or weight is None:
            continue
        game = max(abs(loss), facts.loss_of_chance or 1.0)
        evidence = above(
            f"{weight:g} * {term} beside a loss of {game:.3g}", weight * value / game, D_DOMINATES
        )
        yield Sign(
            crossed(evidence),
            f"D learns {term} rather than to tell real from fake: it is by far the largest part of its loss",
            (evidence,),
            term,
        )


def check_terms_conflict(history: History, facts: Facts) -> Iterator[Sign]:
    """Two terms undo each other's work."""
    for pair in history.names("cosine_"):
        cosine = history.mean(f"cosine_{pair}")
        if cosine is not None:
            evidence = below(f"cosine_{pair}", cosine, CONFLICT)
            yield Sign(
                crossed(evidence),
                f"two of G's terms ask for opposite changes of its output ({pair})",
                (evidence,),
                pair,
            )


DECAYED_FROM = 0.5
DECAYED = 0.99


def check_not_decayed(history: History, facts: Facts) -> Iterator[Sign]:
    """A weight that is meant to fall to 0 over the run stays where it was."""
    for name in facts.decaying:
        first, value = history.first(name), history.last(name)
        if not facts.num_steps or not history.is_new(name) or not first or value is None:
            continue
        if history.step >= DECAYED_FROM * facts.num_steps:
            evidence = above(f"{name} / its first value", value / first, DECAYED)
            yield Sign(
                value / first > DECAYED,
                f"{name} is meant to fall to 0 over the run, of which a half is over, and has not fallen",
                (evidence,),
                name,
            )


STUCK = 0.05
STUCK_FROM, STUCK_FROM_STEP = 0.25, 3000


def check_stuck(history: History, facts: Facts) -> Iterator[Sign]:
    """A task's figure has not left its value without skill."""
    for name, chance in facts.chance.items():
        value = history.mean(name) if history.is_new(name) else None
        if value is None:
            continue
        if history.step < min(STUCK_FROM * (facts.num_steps or math.inf), STUCK_FROM_STEP):
            continue
        evidence = below(name, value, chance + STUCK)
        yield Sign(
            crossed(evidence, slack=0.02),
            f"{name} has not left {chance:g}, its value without any skill",
            (evidence,),
            name,
        )


RULES = (
    Rule(
        "gan_ignored", "warning", check_gan_ignored,
        "raise the adversarial term's weight until its share is a few hundredths, or give the terms shares "
        "in place of weights",
        "calibration", run_share=RUN_SHARE, held=HELD_STEPS, columns=("share_*", "*_weight"),
    ),
    Rule(
        "term_dominates", "warning", check_term_dominates,
        "lower this term's weight, or give the terms shares in place of weights",
        "calibration", run_share=RUN_SHARE, held=HELD_STEPS, columns=("share_*", "*_weight"),
    ),
    Rule(
        "term_dominates", "warning", check_term_of_d,
        "lower this term's weight in D's loss",
        "calibration", run_share=RUN_SHARE, held=HELD_STEPS, columns=("D_*_loss", "D_*_loss_weight"),
    ),
    Rule(
        "terms_conflict", "warning", check_terms_conflict,
        "lower the weight of the term that matters less, or choose one that measures something else",
        "Yu et al. 2020 on conflicting gradients; bound by calibration",
        run_share=RUN_SHARE, held=HELD_STEPS, columns=("cosine_*",),
    ),
    Rule(
        "not_decayed", "warning", check_not_decayed,
        "let the weight fall to 0 within the run",
        "Choi et al. 2020, whose weight of the diversity term falls linearly to 0",
        columns=("lambda_ds",),
    ),
    Rule(
        "stuck", "fault", check_stuck,
        "another seed or learning rate; then an easier task, such as fewer bits or no distortions at first",
        "the figure without skill, with a margin by calibration", looks=4, columns=("bit_acc",),
    ),
)  # fmt: skip
