"""Rules on what drives G: shares of its gradient, cosines between terms, and what the task has learned."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import RUN_SHARE, Rule, Sign, above, below, crossed

IGNORED = 0.01
DOMINATES = 0.98
CONFLICT = -0.5


def has_weight(history: History, term: str) -> bool:
    """Whether a term's weight is not 0 and does not change; a term without a reported weight has one."""
    weight = history.last(f"{term}_weight")
    return weight is None or (weight != 0 and history.is_steady(f"{term}_weight"))


def check_gan_ignored(history: History, facts: Facts) -> Iterator[Sign]:
    """The adversarial term has weight, but nearly no part of G's gradient."""
    term = facts.adversarial_term
    share = history.mean(f"share_{term}") if history.is_new(f"share_{term}") else None
    if share is None or not has_weight(history, term):
        return
    evidence = below(f"share_{term}", share, IGNORED)
    yield Sign(
        crossed(evidence),
        "the adversarial term has hardly any part in G's gradient: G is trained by the other terms alone",
        (evidence,),
    )


def check_term_dominates(history: History, facts: Facts) -> Iterator[Sign]:
    """One of several terms has nearly all of G's gradient."""
    terms = history.names("share_")
    weighted = [term for term in terms if has_weight(history, term)]
    if len(weighted) < 2 or len(weighted) < len(terms):
        return  # a ramp, or a phase with one term
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
        "calibration", run_share=RUN_SHARE, columns=("share_*",),
    ),
    Rule(
        "term_dominates", "warning", check_term_dominates,
        "lower this term's weight, or give the terms shares in place of weights",
        "calibration", run_share=RUN_SHARE, columns=("share_*",),
    ),
    Rule(
        "terms_conflict", "warning", check_terms_conflict,
        "lower the weight of the term that matters less, or choose one that measures something else",
        "Yu et al. 2020 on conflicting gradients; bound by calibration",
        run_share=RUN_SHARE, columns=("cosine_*",),
    ),
    Rule(
        "stuck", "fault", check_stuck,
        "another seed or learning rate; then an easier task, such as fewer bits or no distortions at first",
        "the figure without skill, with a margin by calibration", looks=4, columns=("bit_acc",),
    ),
)  # fmt: skip
