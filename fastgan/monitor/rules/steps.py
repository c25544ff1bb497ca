"""Rules on the networks' steps: whether weights move, by how much, and whether something grows on and on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastgan.monitor.facts import Facts
from fastgan.monitor.history import History
from fastgan.monitor.rules._rule import Rule, Sign, above, below, crossed

STANDS_STILL = 1e-9
UNTRAINED = 0.02
"""No part of a network is left out in healthy runs; less than this are single biases or norms."""
TOO_LARGE = 0.1
"""Calibration: healthy networks begin with updates of up to 0.05 of their weights."""
GROWN_WEIGHTS, AT_FIRST = 3.0, 1000
"""Calibration: with a learning rate of 0.1 weights have 4.4 times their size after 15 steps, and steps are
small beside them; healthy ones, and those of dcgan's preset unstable, grow to 1.4 times at most."""
SKIPPED = 0.05
"""Part of the steps that train D below which a balance policy, not a fault, keeps it where it is."""
SANE_BEFORE = 0.2
"""Part of a network's measured steps that were large enough, so that small ones are a schedule's end."""
TOO_SMALL = 2e-5
"""Calibration: 1.2e-6 to 2.5e-6 with a learning rate of 1e-7, 2.3e-4 and more in healthy networks; the
middle of both as a power of ten."""


def is_skipped(history: History) -> bool:
    """Whether D is not trained now because a balance policy says so."""
    updated = history.last("D_updated")
    return updated is not None and updated < SKIPPED


def were_sane(history: History, network: str) -> bool:
    """Whether a network's steps have been large enough in a noticeable part of the run."""
    measured = history.values(f"{network}_update_ratio")
    return sum(value >= 10 * TOO_SMALL for value in measured) >= SANE_BEFORE * max(len(measured), FEWEST_ROWS)


def check_not_learning(history: History, facts: Facts) -> Iterator[Sign]:
    """A network, or a part of it, does not move."""
    for network in history.names("", "_untrained"):
        untrained, ratio = history.mean(f"{network}_untrained"), history.mean(f"{network}_update_ratio")
        if untrained is None or (network == "D" and is_skipped(history)):
            continue
        if ratio is not None and ratio < STANDS_STILL and were_sane(history, network):
            continue  # the learning rate has reached 0 at the end of its schedule
        if ratio is not None and ratio < STANDS_STILL:
            evidence = below(f"{network}_update_ratio", ratio, STANDS_STILL)
            says = f"the weights of {network} do not move: its optimizer's learning rate or gradients are 0"
        else:
            evidence = above(f"{network}_untrained", untrained, UNTRAINED)
            says = (
                f"a part of {network} is not trained: those weights get no gradient, or are in no optimizer"
                if untrained < 1
                else f"{network} is not trained: its weights get no gradient, or are in no optimizer"
            )
        yield Sign(crossed(evidence), says, (evidence,), network)


def check_steps_too_large(history: History, facts: Facts) -> Iterator[Sign]:
    """A step changes a network by a considerable part of its weights."""
    for network in history.names("", "_update_ratio"):
        ratio = history.mean(f"{network}_update_ratio")
        if ratio is None:
            continue
        evidence = above(f"{network}_update_ratio", ratio, TOO_LARGE)
        says = f"each step changes the weights of {network} by a considerable part of their size"
        norm = f"{network}_weight_norm"
        first, early, size = history.first(norm), history.at(norm, AT_FIRST), history.last(norm)
        if first and early and size and facts.counts_updates and not crossed(evidence):
            grown = above(f"{norm} / its first value", min(early, size) / first, GROWN_WEIGHTS)
            if crossed(grown):
                evidence, says = grown, f"the first steps have blown up the weights of {network}"
        yield Sign(crossed(evidence), says, (evidence,), network)


def check_steps_too_small(history: History, facts: Facts) -> Iterator[Sign]:
    """A network's steps are too small for it to get anywhere."""
    for network in history.names("", "_update_ratio"):
        ratio = history.mean(f"{network}_update_ratio")
        if ratio is None or ratio < STANDS_STILL:
            continue
        if (
            were_sane(history, network)
            or history.is_rising(f"lr_{network.lower()}")
            or history.is_rising("lr")
        ):
            yield Sign(False, "", (), network)  # the end of a schedule, or its beginning
        else:
            evidence = below(f"{network}_update_ratio", ratio, TOO_SMALL)
            says = (
                f"the weights of {network} hardly move: a step changes them by less than a fifty-thousandth"
            )
            yield Sign(crossed(evidence), says, (evidence,), network)


GROWN = 50.0
FEWEST_ROWS = 6
FACTOR = 1.2
FLOOR, FLOOR_OF_TERMS = 1.0, 1e-3
"""What a figure is compared with at least. Losses of the game are near 0 while one side wins, and norms of
gradients have no usual size; terms of a task, and weights, have the size that they begin with."""


def check_diverging(history: History, facts: Facts) -> Iterator[Sign]:
    """A loss, a score or a norm keeps growing, far beyond all that it was."""
    is_critic = facts.adversarial in ("wgan", "wgan-gp")  # whose scores, and losses, have no scale
    losses = {f"{name}_loss" for name in history.names("", "_loss")}
    of_game = {name for name in losses if name.startswith("D_") or "adv" in name} | {facts.generator_loss}
    scores = {"D_real", "D_fake"} & history.row.keys()
    columns = losses | {f"{name}_norm" for name in history.names("", "_norm")} | scores
    for column in sorted(columns - (of_game | scores) if is_critic else columns):
        values = history.values(column)
        if len(values) < FEWEST_ROWS:
            continue
        has_size = column.endswith("_weight_norm") or column in losses - of_game
        least = max(abs(values[0]), FLOOR_OF_TERMS) if has_size else FLOOR
        usual = max(history.usual_size(column, but_last=3) or 0.0, least)
        newest = [abs(value) for value in values[-3:]]
        # Two rows far above: one alone may be a step with a lazy penalty.
        # Growth by factors: a term that is annealed from 0 grows by the same amount.
        grows = newest[0] * FACTOR < newest[1] and newest[1] * FACTOR < newest[2]
        grows = grows and newest[1] > GROWN / 5 * usual
        # Or it stays there, from one look to the next, as no annealed term does.
        grows = grows or (min(newest) > GROWN * usual and newest[0] > GROWN / 5 * abs(values[-4]))
        if not grows:  # nearly always: no text is made that nobody reads
            yield Sign(False, "", (), column)
            continue
        evidence = above(f"{column} / what is usual for it", newest[-1] / usual, GROWN)
        says = f"{column} has grown far beyond all that it was: before long it is NaN"
        yield Sign(crossed(evidence), says, (evidence,), column)


# Not norms of gradients, which are infinite now and then where losses are scaled for half precision.
LOSSES_AND_SCORES = re.compile(
    r"(?!share_|cosine_|val|test|eval)(.*(loss|penalty)(?!.*_weight$).*|err_?[DG].*|D_(real|fake))", re.I
)


def check_not_finite(history: History, facts: Facts) -> Iterator[Sign]:
    """A loss or a score is no number any more."""
    names = [name for name in history.row if LOSSES_AND_SCORES.fullmatch(name)]
    broken = {name: steps for name in names if (steps := history.not_finite(name))}
    if not broken:
        if names:
            yield Sign(False, "")
        return
    first = min(steps[0] for steps in broken.values())
    earliest = [name for name, steps in broken.items() if steps[0] == first]
    listed = " and ".join(filter(None, [", ".join(earliest[:-1]), earliest[-1]]))
    yield Sign(
        True,
        f"{listed} became NaN or infinite at step {first}: what was trained from there on is lost",
        (above(f"rows without a number for {earliest[0]}", len(broken[earliest[0]]), 0),),
    )


RULES = (
    Rule(
        "not_learning", "fault", check_not_learning,
        "look at requires_grad, at the parameters given to the optimizer, and at its learning rate",
        "no update at all; the part by calibration", columns=("*_untrained", "*_update_ratio"),
    ),
    Rule(
        "steps_too_large", "warning", check_steps_too_large,
        "lower this network's learning rate by powers of ten",
        "the ratio of about 1e-3 of common practice; bound by calibration",
        columns=("*_update_ratio", "*_weight_norm"),
    ),
    Rule(
        "steps_too_small", "warning", check_steps_too_small,
        "raise this network's learning rate by powers of ten",
        "the ratio of about 1e-3 of common practice; bound by calibration", columns=("*_update_ratio",),
    ),
    Rule(
        "diverging", "fault", check_diverging,
        "lower the learning rate of the network that grew first, or clip its gradients",
        "calibration", looks=1, columns=("*_loss", "*_norm", "D_real", "D_fake"),
    ),
    Rule(
        "diverging", "fault", check_not_finite,
        "go back to a state before that step; then lower the learning rates, or clip gradients",
        "the definition of NaN", looks=1, columns=("*_loss", "*_penalty", "D_real", "D_fake"),
    ),
)  # fmt: skip
