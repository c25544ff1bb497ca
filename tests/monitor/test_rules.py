"""Each rule on rows made up for it: said after its window, kept near its bound, taken back."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import pytest

from fastgan.monitor import Diagnosis, Facts
from fastgan.monitor.rules import RULES, VERDICTS
from fastgan.monitor.rules._rule import MOST_LOOKS
from fastgan.monitor.verdict import Evidence, Verdict

INTERVAL = 10
Row = dict[str, float]


class Case(NamedTuple):
    """What makes a rule say its verdict, what does not, and what is too near its bound for either."""

    name: str
    bad: Row
    good: Row
    near: Row | None = None
    facts: Facts = Facts()
    subject: str = ""
    begins: Row | None = None
    """A first row, for rules that compare with the beginning."""


BCE = Facts(adversarial="bce")
HINGE = Facts(adversarial="hinge")
PLAYING = {"D_real": 0.4, "D_fake": -0.4, "D_loss": 1.1, "G_loss": 1.0, "D_auc": 0.7}

CASES = {
    "critic_dead": Case(
        "critic_dead",
        {"D_real": 0.1, "D_fake": 0.1001, "D_loss": -1e-4, "D_gradient_norm": 1e-5},
        {"D_real": 0.3, "D_fake": 0.1, "D_loss": -0.2, "D_gradient_norm": 0.1},
        facts=Facts(adversarial="wgan"),
    ),
    "critic_dead, by clipped weights": Case(
        "critic_dead",
        {"D_real": 0.1, "D_fake": 0.1001, "D_at_bound": 0.4, "D_gradient_norm": 0.1},
        {"D_real": 0.1, "D_fake": 0.1001, "D_at_bound": 1e-4, "D_gradient_norm": 0.1},
        facts=Facts(adversarial="wgan"),
    ),
    "balanced": Case(
        "balanced",
        {"D_real": 0.1, "D_fake": -0.1, "D_loss": 1.35},
        {"D_real": 2.0, "D_fake": -2.0, "D_loss": 0.3},
        facts=BCE,
    ),
    "discriminator_wins": Case(
        "discriminator_wins",
        {"D_probability_real": 0.99, "D_probability_fake": 0.01, "D_real": 5, "D_fake": -5, "D_loss": 0.02},
        {"D_probability_real": 0.6, "D_probability_fake": 0.4, "D_real": 0.4, "D_fake": -0.4, "D_loss": 1.1},
        facts=BCE,
    ),
    "discriminator_wins, of its loss alone": Case(
        "discriminator_wins", {"D_loss": 0.001}, {"D_loss": 0.9}, begins={"D_loss": 1.0}
    ),
    "generator_wins": Case(
        "generator_wins", PLAYING | {"D_auc": 0.2, "D_loss": 1.9}, PLAYING, facts=BCE
    ),
    "not_adversarial, D's labels": Case(
        "not_adversarial",
        {"D_real": -2.0, "D_fake": 2.0, "D_loss": 0.4, "G_loss": 0.1, "D_auc": 0.02},
        PLAYING,
        facts=BCE,
    ),
    "not_adversarial, G's sign": Case(
        "not_adversarial",
        {"D_real": 3.0, "D_fake": -3.0, "D_loss": 0.1, "G_loss": 0.05, "D_auc": 1.0, "G_loss_weight": 1.0},
        PLAYING,
        facts=BCE,
    ),
    "not_adversarial, G's sign of a hinge": Case(
        "not_adversarial",
        {"D_real": 1.0, "D_fake": -1.0, "D_loss": 0.1, "G_loss": -1.0, "G_loss_weight": 1.0},
        {"D_real": 1.0, "D_fake": -1.0, "D_loss": 0.1, "G_loss": 1.0, "G_loss_weight": 1.0},
        facts=HINGE,
    ),
    "not_adversarial, a critic's sign": Case(
        "not_adversarial",
        {"D_real": 0.02, "D_fake": -0.03, "D_loss": 0.05, "G_loss": 0.03},
        {"D_real": 0.02, "D_fake": -0.03, "D_loss": -0.05, "G_loss": 0.03},
        facts=Facts(adversarial="wgan"),
    ),
    "penalty_dominates": Case(
        "penalty_dominates",
        {"D_real": 0.01, "D_fake": 0.009, "D_loss": 1.386, "r1_penalty": 0.1, "D_auc": 0.6},
        PLAYING | {"r1_penalty": 0.0001},
        facts=dataclasses.replace(BCE, penalties={"r1_penalty": 1e4}),
        subject="r1_penalty",
    ),
    "discriminator_overfits": Case(
        "discriminator_overfits",
        {"probe_overfitting": 1.2, "probe_auc_fake": 1.0, "probe_auc_held_out": 0.3},
        {"probe_overfitting": 0.1, "probe_auc_fake": 0.9, "probe_auc_held_out": 0.9},
    ),
    "shortcut": Case("shortcut", {"probe_auc_null": 0.99}, {"probe_auc_null": 0.5}, {"probe_auc_null": 0.79}),
    "value_range": Case(
        "value_range",
        {"real_lowest": -1.0, "real_highest": 1.0},
        {"real_lowest": 0.0, "real_highest": 1.0},
        facts=Facts(value_range=(0.0, 1.0)),
        subject="images",
    ),
    "value_range, half": Case(
        "value_range",
        {"real_lowest": 0.01, "real_highest": 1.0},
        {"real_lowest": -1.0, "real_highest": 1.0},
        facts=Facts(value_range=(-1.0, 1.0)),
        subject="images",
    ),
    "value_range of a loss": Case(
        "value_range",
        {"real_lowest": -1.0, "real_highest": 1.0, "lpips_range_low": 0.0, "lpips_range_high": 1.0},
        {"real_lowest": 0.0, "real_highest": 1.0, "lpips_range_low": 0.0, "lpips_range_high": 1.0},
        subject="lpips",
    ),
    "value_range of latents": Case(
        "value_range", {"real_deviation": 5.5}, {"real_deviation": 1.1}, {"real_deviation": 1.95},
        Facts(is_standardized=True), "latents",
    ),
    "mode_collapse of a batch": Case(
        "mode_collapse", {"spread_ratio": 0.05}, {"spread_ratio": 0.9}, subject="batches",
        begins={"spread_ratio": 0.9},
    ),
    "mode_collapse of samples": Case(
        "mode_collapse", {"collapse_ratio": 0.2}, {"collapse_ratio": 0.9}, {"collapse_ratio": 0.52},
        subject="images", begins={"collapse_ratio": 0.9},
    ),
    "mode_collapse of probed samples": Case(
        "mode_collapse", {"probe_distance_ratio": 0.2}, {"probe_distance_ratio": 0.9},
        {"probe_distance_ratio": 0.52}, subject="images", begins={"probe_distance_ratio": 0.9},
    ),
    "mode_collapse into duplicates": Case(
        "mode_collapse", {"probe_duplicates": 0.9}, {"probe_duplicates": 0.0}, {"probe_duplicates": 0.47},
        subject="duplicates", begins={"probe_duplicates": 0.0},
    ),
    "not_learning": Case(
        "not_learning",
        {"G_untrained": 0.4, "G_update_ratio": 1e-3},
        {"G_untrained": 0.0, "G_update_ratio": 1e-3},
        subject="G",
    ),
    "not_learning, no update": Case(
        "not_learning",
        {"D_untrained": 0.0, "D_update_ratio": 0.0},
        {"D_untrained": 0.0, "D_update_ratio": 1e-3},
        subject="D",
    ),
    "steps_too_large": Case(
        "steps_too_large", {"D_update_ratio": 0.5}, {"D_update_ratio": 1e-3}, subject="D"
    ),
    "steps_too_small": Case(
        "steps_too_small", {"D_update_ratio": 1e-6}, {"D_update_ratio": 1e-3}, subject="D"
    ),
    "gan_ignored": Case(
        "gan_ignored",
        {"share_G_loss": 1e-5, "share_l1": 1.0, "G_loss_weight": 1e-4},
        {"share_G_loss": 0.1, "share_l1": 0.9, "G_loss_weight": 1e-4},
    ),
    "term_dominates": Case(
        "term_dominates",
        {"share_G_loss": 0.001, "share_l1": 0.999},
        {"share_G_loss": 0.3, "share_l1": 0.7},
        subject="l1",
    ),
    "terms_conflict": Case("terms_conflict", {"cosine_a_b": -0.9}, {"cosine_a_b": 0.1}, {"cosine_a_b": -0.47},
                           subject="a_b"),
    "not_decayed": Case(
        "not_decayed",
        {"lambda_ds": 1.0},
        {"lambda_ds": 0.4},
        facts=Facts(decaying=("lambda_ds",), num_steps=200),
        subject="lambda_ds",
        begins={"lambda_ds": 1.0},
    ),
    "stuck": Case(
        "stuck", {"bit_acc": 0.51}, {"bit_acc": 0.9}, {"bit_acc": 0.555},
        Facts(chance={"bit_acc": 0.5}, num_steps=400), "bit_acc",
    ),
}  # fmt: skip


def feed(diagnosis: Diagnosis, row: Row, times: int = 30) -> list[tuple[int, Verdict]]:
    """What is said while a row repeats, by step."""
    said = []
    for _ in range(times):
        step = diagnosis.history.step + INTERVAL
        said += [(step, verdict) for verdict in diagnosis.add(step, row)]
    return said


def begun(case: Case) -> Diagnosis:
    diagnosis = Diagnosis(case.facts)
    if case.begins:
        feed(diagnosis, case.begins, 3)
    return diagnosis


def held(diagnosis: Diagnosis, case: Case) -> list[Verdict]:
    return [v for v in diagnosis.verdicts() if (v.name, v.subject) == (case.name, case.subject)]


cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_verdict_has_a_case():
    assert {case.name for case in CASES.values()} | {"diverging"} == {*VERDICTS}


@cases
def test_a_verdict_is_said_after_its_window_and_not_before(case):
    diagnosis = begun(case)
    start = diagnosis.history.step
    said = [step for step, v in feed(diagnosis, case.bad) if (v.name, v.subject) == (case.name, case.subject)]
    rule = next(rule for rule in RULES if rule.name == case.name)
    assert len(said) == 1
    assert said[0] - start >= max(rule.looks * INTERVAL, rule.held)
    (verdict,) = held(diagnosis, case)
    assert start < verdict.step <= said[0]
    assert verdict.evidence
    assert str(verdict)


@cases
def test_a_verdict_is_taken_back_once_its_cause_is_gone(case):
    diagnosis = begun(case)
    feed(diagnosis, case.bad)
    feed(diagnosis, case.good)
    assert not held(diagnosis, case)
    (past,) = [v for v in diagnosis.past if (v.name, v.subject) == (case.name, case.subject)]
    assert past.ended is not None


@cases
def test_what_is_good_is_left_alone(case):
    diagnosis = begun(case)
    feed(diagnosis, case.good)
    assert not held(diagnosis, case)


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.near], ids=lambda case: case.name)
def test_near_its_bound_a_verdict_stays_as_it_was_for_a_while(case):
    diagnosis = begun(case)
    feed(diagnosis, case.near)
    assert not held(diagnosis, case)
    said = begun(case)
    feed(said, case.bad)
    feed(said, case.near, MOST_LOOKS - 1)
    assert held(said, case)
    feed(said, case.near, 3)
    assert not held(said, case)


@cases
def test_one_good_look_among_bad_ones_takes_nothing_back(case):
    diagnosis = begun(case)
    feed(diagnosis, case.bad)
    feed(diagnosis, case.good, 1)
    feed(diagnosis, case.bad, 5)
    assert held(diagnosis, case)


@cases
def test_rules_do_without_some_of_their_columns(case):
    for left_out in case.bad:
        diagnosis = begun(case)
        feed(diagnosis, {name: value for name, value in case.bad.items() if name != left_out})
        measured = [item.what for verdict in diagnosis.verdicts() for item in verdict.evidence]
        assert not any(what == left_out or what.startswith(f"{left_out} ") for what in measured)
    alone = Diagnosis(case.facts)
    feed(alone, {"images_per_second": 3.0})
    assert alone.verdicts() == []


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.facts != Facts()], ids=str)
def test_rules_that_need_facts_say_nothing_without(case):
    diagnosis = Diagnosis()
    feed(diagnosis, case.bad)
    if case.name not in ("critic_dead", "discriminator_wins", "generator_wins"):  # seen in scores alone, too
        assert not held(diagnosis, case)


@cases
def test_figures_that_are_not_finite_are_no_evidence(case):
    diagnosis = begun(case)
    feed(diagnosis, dict.fromkeys(case.bad, math.nan))
    feed(diagnosis, dict.fromkeys(case.bad, math.inf))
    said = [v for v in diagnosis.verdicts() if v.severity != "note" and v.name != "diverging"]
    assert said == [], "of nothing but that they are not finite"


@cases
def test_other_columns_and_their_order_change_nothing(case):
    plain, mixed = begun(case), begun(case)
    row = {"other": 1.0, **dict(reversed(case.bad.items())), "another_figure": math.nan}
    assert feed(plain, case.bad) == feed(mixed, row)
    assert plain.verdicts() == mixed.verdicts()


def test_a_loss_that_grows_without_end_is_named_at_once():
    diagnosis = Diagnosis()
    feed(diagnosis, {"G_loss": 1.0}, 6)
    said = [v for exponent in range(2, 6) for _, v in feed(diagnosis, {"G_loss": 10.0**exponent}, 1)]
    assert [(v.name, v.subject) for v in said] == [("diverging", "G_loss")]


def test_a_loss_of_chance_is_balance_or_death_by_whether_scores_move():
    """D's loss stands at 2 log 2 in both."""
    alive, dead = Diagnosis(BCE), Diagnosis(BCE)
    feed(alive, {"D_loss": 1.386, "D_real": 0.05, "D_fake": -0.05, "D_gradient_norm": 0.5})
    feed(dead, {"D_loss": 1.386, "D_real": 0.05, "D_fake": 0.05, "D_gradient_norm": 1e-6})
    assert [v.name for v in alive.verdicts()] == ["balanced"]
    assert [v.name for v in dead.verdicts()] == ["critic_dead"]


def test_a_game_that_a_graver_verdict_calls_lost_is_not_called_balanced():
    diagnosis = Diagnosis(BCE)
    rows = {"D_real": 0.1, "D_fake": -0.1, "D_loss": 1.386}
    feed(diagnosis, rows | {"D_auc": 0.6})
    assert [v.name for v in diagnosis.verdicts()] == ["balanced"]
    feed(diagnosis, rows | {"D_loss": 1.7, "D_auc": 0.2})
    assert [v.name for v in diagnosis.verdicts()] == ["generator_wins"]
    assert [v.name for v in diagnosis.past] == ["balanced"]
    # Near its bound generator_wins stays.
    feed(diagnosis, rows | {"D_loss": 1.5, "D_auc": 0.55}, 10)
    assert [v.name for v in diagnosis.verdicts()] == ["generator_wins"]
    feed(diagnosis, rows | {"D_auc": 0.6}, 60)
    assert [v.name for v in diagnosis.verdicts()] == ["balanced"]


def test_the_saturating_loss_is_no_exchanged_sign():
    """log(1 - D(G(z))) is below 0, and near 0 where D wins."""
    diagnosis = Diagnosis(BCE)
    feed(diagnosis, {"D_real": 3.0, "D_fake": -3.0, "D_loss": 0.1, "G_loss": -0.05, "D_auc": 1.0})
    assert "not_adversarial" not in {v.name for v in diagnosis.verdicts()}


@pytest.mark.parametrize("kind", ["bce", "lsgan", "hinge", "wgan", "relativistic"])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_kind_of_game_is_taken_for_none(kind, sign):
    """The losses of a D that separates a little, as AdversarialLoss computes them."""
    import torch

    from fastgan.losses import AdversarialLoss

    loss = AdversarialLoss(kind, sign)
    real, fake = sign * torch.tensor([0.9, 0.1]), sign * torch.tensor([-0.6, 0.2])
    diagnosis = Diagnosis(Facts(adversarial=kind, critic_sign=sign))
    row = {
        "D_real": real.mean().item(), "D_fake": fake.mean().item(),
        "D_loss": loss.discriminator(real, fake).item(), "G_loss": loss.generator(fake, real).item(),
        "G_loss_weight": 1.0,
    }  # fmt: skip
    feed(diagnosis, row)
    assert "not_adversarial" not in {v.name for v in diagnosis.verdicts()}
    exchanged = row | {"G_loss": loss.generator(-fake, -real).item()}
    if kind in ("hinge", "wgan"):
        feed(diagnosis, exchanged)
        assert "not_adversarial" in {v.name for v in diagnosis.verdicts()}


def test_a_penalty_that_costs_half_of_what_d_gains_is_no_fault():
    """So it is where D has settled, also where fakes are hard to tell and D is nearly flat."""
    facts = dataclasses.replace(HINGE, penalties={"r1_penalty": 1.0})
    settled, pressed = Diagnosis(facts), Diagnosis(dataclasses.replace(facts, penalties={"r1_penalty": 1e4}))
    row = {"D_real": 0.005, "D_fake": -0.005, "D_loss": 1.99, "r1_penalty": 0.005}
    feed(settled, row)
    feed(pressed, row | {"r1_penalty": 0.0001})
    assert "penalty_dominates" not in {v.name for v in settled.verdicts()}
    assert "penalty_dominates" in {v.name for v in pressed.verdicts()}


# --- what a rule must not take for a fault, and what it must not miss ---------------------------------------


def names_after(facts: Facts, *stretches: tuple[Row, int]) -> set[str]:
    """The verdicts, each NAME or "NAME SUBJECT", that hold after rows that repeat."""
    diagnosis = Diagnosis(facts)
    for row, times in stretches:
        feed(diagnosis, row, times)
    return {f"{v.name} {v.subject}".strip() for v in diagnosis.verdicts()}


def test_a_fault_late_in_a_long_run_is_said():
    healthy = {"collapse_ratio": 0.9, "spread_ratio": 0.9}
    collapsed = {"collapse_ratio": 0.1, "spread_ratio": 0.05}
    assert names_after(Facts(), (healthy, 2000), (collapsed, MOST_LOOKS + 3)) == {
        "mode_collapse images", "mode_collapse batches"
    }  # fmt: skip


def test_a_collapse_that_is_measured_twice_is_said_once():
    healthy, collapsed = ({"collapse_ratio": r, "probe_distance_ratio": r} for r in (0.9, 0.1))
    verdicts = names_after(Facts(), (healthy, 2000), (collapsed, MOST_LOOKS + 3))
    assert verdicts == {"mode_collapse images"}


def test_a_generator_is_given_time_to_leave_its_first_duplicates():
    assert names_after(Facts(), ({"probe_duplicates": 1.0}, 30)) == set()


def test_five_good_lines_do_not_hide_a_fault_for_long():
    diagnosis = Diagnosis(Facts())
    feed(diagnosis, {"spread_ratio": 0.9}, 5)
    feed(diagnosis, {"spread_ratio": 0.05}, 2000)
    feed(diagnosis, {"spread_ratio": 0.9}, 8)
    assert diagnosis.verdicts() == []
    feed(diagnosis, {"spread_ratio": 0.05}, MOST_LOOKS + 3)
    assert [v.name for v in diagnosis.verdicts()] == ["mode_collapse"]


@pytest.mark.parametrize(
    "stopped",
    [{"D_update_ratio": 0.0, "D_untrained": 0.0}, {"D_update_ratio": 1e-6}, {"D_gradient_norm": 1e-8}],
)
def test_a_discriminator_that_does_not_move_is_not_balanced(stopped):
    near_chance = {"D_real": 0.01, "D_fake": -0.01, "D_loss": 1.386}
    assert "balanced" in names_after(BCE, (near_chance, 30))
    assert "balanced" not in names_after(BCE, (near_chance | stopped, 30))


@pytest.mark.parametrize("alive", [{"share_G_loss": 0.1, "share_l1": 0.9}, {"D_auc": 0.95}])
def test_small_scores_that_work_are_not_dead(alive):
    wgan = Facts(adversarial="wgan")
    row = {"D_real": 4.5e-4, "D_fake": -4.5e-4, "D_clipped": 0.6, "D_gradient_norm": 0.02}
    assert names_after(wgan, (row, 30)) == {"critic_dead"}
    assert "critic_dead" not in names_after(wgan, (row | alive, 30))


@pytest.mark.parametrize(
    ("kind", "weight", "row"),
    [
        ("hinge", 1.0, {"D_real": 3.0, "D_fake": -3.0, "D_loss": 0.001, "r1_penalty": 0.02}),
        ("wgan-gp", 10.0, {"D_real": 0.05, "D_fake": -0.01, "D_loss": -0.06, "r1_penalty": 0.04}),
    ],
)
def test_a_penalty_is_not_measured_by_a_loss_near_0(kind, weight, row):
    facts = Facts(adversarial=kind, penalties={"r1_penalty": weight})
    assert not {name for name in names_after(facts, (row, 30)) if name.startswith("penalty_dominates")}


@pytest.mark.parametrize("kind", ["hinge", "relativistic", "lsgan", "bce"])
def test_a_certain_discriminator_is_named_by_its_loss(kind):
    facts = Facts(adversarial=kind)
    row = {"D_loss": 0.002 * facts.loss_of_chance}
    assert names_after(facts, ({"D_loss": facts.loss_of_chance}, 3), (row, 30)) == {"discriminator_wins"}


def test_a_certain_discriminator_is_named_by_accuracies_alone():
    row = {"D_accuracy_real": 1.0, "D_accuracy_fake": 0.998}
    assert names_after(Facts(), (row, 30)) == {"discriminator_wins"}
    assert names_after(Facts(), (row | {"D_accuracy_fake": 0.8}, 30)) == set()


def test_certainty_is_measured_between_the_labels():
    smoothed = Facts(adversarial="bce", real_label=0.9, fake_label=0.1)
    certain = {"D_probability_real": 0.89, "D_probability_fake": 0.11, "D_loss": 0.66}
    assert names_after(smoothed, (certain, 30)) == {"discriminator_wins"}
    playing = {"D_probability_real": 0.75, "D_probability_fake": 0.3, "D_loss": 1.0}
    assert names_after(smoothed, (playing, 30)) == set()


@pytest.mark.parametrize(
    ("facts", "row"),
    [
        # Most public code logs WGAN-GP's loss with the penalty.
        (Facts(adversarial="wgan-gp"), {"D_real": 3.0, "D_fake": -2.0, "D_loss": 5.0}),
        # SRGAN's code logs G's term with its weight of 1e-3.
        (BCE, {"D_real": 0.5, "D_fake": -0.5, "D_loss": 0.95, "G_loss": 7e-4}),
        # D's update comes between D_fake and G_loss.
        (HINGE, {"D_real": 0.3, "D_fake": 0.02, "D_loss": 1.72, "G_loss": 0.03, "G_loss_weight": 1.0}),
    ],
)
def test_logs_of_healthy_games_are_adversarial(facts, row):
    assert "not_adversarial" not in names_after(facts, (row, 30))


def test_a_discriminator_that_waits_for_its_turn_is_learning():
    row = {"D_untrained": 0.0, "D_update_ratio": 0.0}
    assert names_after(Facts(), (row | {"D_updated": 1.0}, 10)) == {"not_learning D"}
    assert names_after(Facts(), (row | {"D_updated": 0.0}, 10)) == set()


def test_the_end_of_a_schedule_is_not_a_small_step():
    assert names_after(Facts(), ({"G_update_ratio": 1e-3}, 100), ({"G_update_ratio": 1e-6}, 50)) == set()
    assert names_after(Facts(), ({"G_update_ratio": 1e-6}, 50)) == {"steps_too_small G"}


def test_a_figure_that_is_measured_no_longer_is_no_evidence():
    diagnosis = Diagnosis(BCE)
    certain = {"D_probability_real": 0.99, "D_probability_fake": 0.01, "D_loss": 0.02}
    feed(diagnosis, certain, 3)
    feed(diagnosis, {"D_loss": 1.3}, 60)
    assert diagnosis.verdicts() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"share_G_loss": 1e-5, "share_l1": 1.0, "G_loss_weight": 1e-4},
         {"share_G_loss": 0.0, "share_l1": 1.0, "G_loss_weight": 0.0}),
        ({"D_update_ratio": 1e-6, "D_untrained": 0.0}, {"D_update_ratio": 0.0, "D_untrained": 0.0}),
        ({"D_real": 0.99, "D_fake": 0.01}, {"D_real": 3.0, "D_fake": 1.0}),
    ],
)  # fmt: skip
def test_a_verdict_whose_question_has_lost_its_meaning_is_taken_back(before, after):
    diagnosis = Diagnosis()
    feed(diagnosis, before)
    said = {v.name for v in diagnosis.verdicts()}
    assert said
    feed(diagnosis, after)
    assert not said & {v.name for v in diagnosis.verdicts()}


def test_weights_that_were_blown_up_at_first_stay_so():
    small, large = ({"G_update_ratio": 1e-3, "G_weight_norm": size} for size in (1.0, 4.4))
    assert names_after(Facts(), (small, 3), (large, 300)) == {"steps_too_large G"}
    assert names_after(Facts(), (small, 200), (large, 300)) == set()  # they may grow in their time
    assert names_after(Facts(counts_updates=False), (small, 3), (large, 300)) == set()


def test_divergence_is_measured_by_a_term_s_own_size():
    diagnosis = Diagnosis()
    feed(diagnosis, {"mse_loss": 0.001}, 20)
    for value in (0.003, 0.009, 0.027, 0.08, 0.24):
        feed(diagnosis, {"mse_loss": value}, 1)
    assert {(v.name, v.subject) for v in diagnosis.verdicts()} == {("diverging", "mse_loss")}


def test_a_critic_s_scores_have_no_size():
    diagnosis = Diagnosis(Facts(adversarial="wgan-gp"))
    feed(diagnosis, {"D_real": 0.3, "D_fake": 0.2, "D_loss": -0.1}, 20)
    for value in (8.0, 20.0, 33.0, 60.0, 82.0):
        feed(diagnosis, {"D_real": value, "D_fake": value - 5, "D_loss": -5.0}, 1)
    assert diagnosis.verdicts() == []


def test_held_out_images_that_look_like_fakes_tell_of_overfitting():
    row = {"probe_overfitting": 1.0, "probe_auc_fake": 1.0, "probe_auc_held_out": 0.51}
    assert names_after(Facts(), (row, 3)) == {"discriminator_overfits"}


def test_values_that_no_float_has_are_infinite():
    diagnosis = Diagnosis(Facts(adversarial="lsgan"))
    feed(diagnosis, {"D_real": 1e200, "D_fake": 1e308, "D_loss": 1e308}, 5)
    assert {v.name for v in diagnosis.verdicts()} == {"diverging"}


def test_fakes_far_beyond_the_range_are_named():
    facts = Facts(value_range=(-1.0, 1.0))
    images = {"real_lowest": -1.0, "real_highest": 1.0, "fake_lowest": -40.0, "fake_highest": 50.0}
    assert names_after(facts, (images, 10)) == {"value_range fakes"}
    assert names_after(facts, (images | {"fake_lowest": -3.0, "fake_highest": 2.0}, 10)) == set()


def test_a_term_without_weight_does_not_hide_one_that_dominates():
    row = {"share_a": 0.999, "share_b": 0.001, "share_c": 0.0, "c_weight": 0.0}
    assert names_after(Facts(), (row, 30)) == {"term_dominates a"}


def test_adaptive_weights_are_no_ramp():
    diagnosis = Diagnosis()
    row = {"share_G_loss": 1e-5, "share_l1": 0.99}
    for _ in range(15):
        feed(diagnosis, row | {"G_loss_weight": 0.5}, 1)
        feed(diagnosis, row | {"G_loss_weight": 0.6}, 1)
    assert "gan_ignored" in {v.name for v in diagnosis.verdicts()}
    diagnosis, weight = Diagnosis(), 0.0
    for _ in range(30):
        weight += 0.01
        feed(diagnosis, row | {"G_loss_weight": weight}, 1)
    assert diagnosis.verdicts() == []


def test_a_term_of_a_critic_is_not_measured_by_a_loss_near_0():
    row = {"D_loss": -0.05, "D_category_loss": 1.0, "D_category_loss_weight": 1.0}
    assert names_after(Facts(adversarial="wgan"), (row, 30)) == set()


def test_probabilities_of_being_fake():
    facts = Facts(adversarial="bce", critic_sign=-1, scores_are_probabilities=True)
    assert names_after(facts, ({"D_real": 0.02, "D_fake": 0.97}, 30)) == {"discriminator_wins"}


def test_a_pipeline_that_d_takes_for_real_is_a_shortcut_too():
    assert names_after(Facts(), ({"probe_auc_null": 0.02}, 5)) == {"shortcut"}


@pytest.mark.parametrize("column", ["pose_error_deg", "val_loss", "eval_loss", "test_G_loss"])
def test_an_infinite_figure_that_nothing_is_trained_by_is_no_fault(column):
    assert names_after(Facts(), ({column: math.inf}, 3)) == set()
    assert names_after(Facts(), ({"errD": math.inf}, 3)) == {"diverging"}


def test_the_sentence_on_a_generator_that_wins_says_why():
    diagnosis = Diagnosis(BCE)
    feed(diagnosis, PLAYING | {"D_auc": 0.35, "D_loss": 1.25})
    (verdict,) = diagnosis.verdicts()
    assert "ranks fakes above reals" in verdict.says and "cost" not in verdict.says


def test_a_learning_rate_that_ends_at_0_is_learning():
    trained, over = ({"G_untrained": 0.0, "G_update_ratio": ratio} for ratio in (1e-3, 0.0))
    assert names_after(Facts(), (trained, 50), (over, 10)) == set()


def test_a_loss_that_holds_a_penalty_is_not_worse_than_chance():
    row = {"D_real": 0.6, "D_fake": -0.6, "D_loss": 2.4, "gp": 0.15}
    assert names_after(HINGE, (row, 30)) == set()
    assert "generator_wins" in names_after(HINGE, ({**row, "gp": 0.0} | {"D_auc": 0.2}, 30))


@pytest.mark.parametrize(("kind", "loss"), [("lsgan", -2.0), ("relativistic", -1.5)])
def test_a_loss_below_its_least_value_is_an_exchanged_sign(kind, loss):
    row = {"D_real": 1.0, "D_fake": 0.0, "D_loss": 0.3, "G_loss": loss, "G_loss_weight": 1.0}
    assert "not_adversarial" in names_after(Facts(adversarial=kind), (row, 30))


def test_a_term_that_is_annealed_from_0_does_not_diverge():
    diagnosis = Diagnosis()
    for number in range(60):
        feed(diagnosis, {"kl_loss": max(0, number - 20) * 5.0}, 1)
    feed(diagnosis, {"kl_loss": 200.0}, 20)
    assert diagnosis.verdicts() == []


def test_probabilities_are_not_taken_for_logits():
    facts = Facts(adversarial="bce", scores_are_probabilities=True)
    assert names_after(facts, ({"D_real": 0.85, "D_fake": 0.15, "D_loss": 0.325}, 30)) == set()


def test_labels_must_differ():
    with pytest.raises(ValueError, match="real_label and fake_label must differ, got 0.0 for both"):
        Facts(adversarial="lsgan", real_label=0.0)


def test_a_loss_that_a_balance_policy_leaves_out_is_no_victory():
    row = {"D_loss": 0.0, "D_real": 0.6, "D_fake": 0.5}
    facts = Facts(adversarial="lsgan")
    assert names_after(facts, (row | {"D_updated": 0.0}, 30)) == set()
    assert names_after(facts, (row | {"D_updated": 1.0}, 30)) == {"discriminator_wins"}


@pytest.mark.parametrize(
    ("value", "bound", "text"), [(0.5, 0.25, "x 0.5 > 0.25"), (1.1004, 1.1, "x 1.1004 > 1.1")]
)
def test_evidence_shows_that_a_bound_is_crossed(value, bound, text):
    assert str(Evidence("x", value, bound, is_above=True)) == text
