"""Explanations of figures, in the run's own numbers."""

from __future__ import annotations

import math
import re

import pytest
import torch

from fastgan.losses import AdversarialLoss
from fastgan.monitor import Diagnosis, Facts
from fastgan.monitor.columns import COLUMNS, OTHER, QUESTIONS, describe, explain, is_known, question_of
from fastgan.monitor.columns.game import least_loss
from fastgan.monitor.rules import RULES


def diagnosed(facts=None, count=20, **columns):
    """A diagnosis of columns: numbers, or functions of the part of the run that is over."""
    diagnosis = Diagnosis(facts)
    for row in range(count):
        figures = {
            name: each(row / (count - 1)) if callable(each) else each for name, each in columns.items()
        }
        diagnosis.add(10 * (row + 1), {name: value for name, value in figures.items() if value is not None})
    return diagnosis


def says(column, facts=None, **columns):
    return explain(column, diagnosed(facts, **columns)).says


BCE, HINGE = Facts(adversarial="bce"), Facts(adversarial="hinge", penalties={"r1_penalty": 5.0})


def test_every_question_has_columns_and_every_column_that_a_rule_reads_is_explained():
    assert {column.question for column in COLUMNS} == {*QUESTIONS, OTHER}
    read = {column.replace("*", "X") for rule in RULES for column in rule.columns}
    assert {"D_loss", "share_X", "X_update_ratio"} <= read
    assert not [column for column in read if not is_known(column)]


@pytest.mark.parametrize(
    "column, question",
    [
        ("D_loss", 0), ("G_loss", 0), ("D_auc", 0), ("r1_penalty", 0), ("adv_ref_loss", 0),
        ("probe_overfitting", 0), ("share_l1_loss", 1), ("cosine_a_b", 1), ("l1_loss_weight", 1),
        ("lambda_ds", 1), ("bit_acc_jpeg_50", 2), ("psnr_y_bicubic", 2), ("l1_loss", 2), ("fid", 2),
        ("collapse_ratio", 3), ("spread_ratio", 3), ("probe_duplicates", 3), ("lpips_latent", 3),
        ("ds_lat_loss", 3), ("style_encoder_update_ratio", 4), ("D_untrained", 4), ("lr_d", 4),
        ("fake_highest", 4), ("D_clipped", 4), ("D_gradient_norm", 4), ("seconds_per_step", 5), ("mine", 5),
        ("share_r1_penalty", 1), ("D_mine_loss", 2), ("D_category_loss", 2), ("D_real_loss", 0), ("a\nb", 5),
    ],
)  # fmt: skip
def test_columns_answer_their_questions(column, question):
    explanation = explain(column, diagnosed(**{column: 0.5}))
    assert explanation.question == question_of(column, Facts()) == (*QUESTIONS, OTHER)[question]
    assert explanation.says.endswith("It is 0.5 throughout.")


@pytest.mark.parametrize(
    "facts, loss, apart, said",
    [
        (HINGE, 2.0, 1.0, "2 is what the same answer to every sample costs; 0 is certainty. Near it is fine"),
        (HINGE, 2.0, 1e-6, "Scores of real and fake samples are the same, too: D may have stopped."),
        (BCE, 1.38, 0.5, "1.39 is what the same answer to every sample costs"),
        (BCE, 0.7, 0.5, "D is ahead of G, which is normal."),
        (BCE, 0.001, 0.5, "D is certain of nearly everything"),
        (BCE, 1.8, 0.5, "Above it, D does worse than by not looking at all."),
        (Facts(adversarial="wgan"), -3.0, 0.5, "its size means nothing by itself"),
        (Facts(adversarial="lsgan"), 0.25, 0.5, "0.25 is what the same answer"),
        (None, 2.0, 0.5, "depends on the adversarial loss, which was not given"),
    ],
)
def test_d_s_loss_is_read_beside_its_value_without_skill(facts, loss, apart, said):
    assert said in says("D_loss", facts, D_loss=loss, D_real=apart, D_fake=0.0)


def test_a_column_that_is_g_s_adversarial_loss_is_about_the_game_whatever_its_name():
    facts = Facts(adversarial="hinge", generator_loss="mine_loss")
    assert question_of("mine_loss", facts) == QUESTIONS[0] != question_of("mine_loss", Facts())
    assert "Minus D's mean score of fakes" in says("mine_loss", facts, mine_loss=1.0)


def test_every_further_term_of_d_s_loss_is_known():
    text = "A further term of D's loss, beside the game's. It is 2 throughout."
    assert is_known("D_mine_loss") and says("D_mine_loss", D_mine_loss=2.0) == text
    assert "the mean of real and of generated ones" in describe("D_category_loss"), "as zi2zi's recipe does"


SMOOTH = Facts(adversarial="bce", real_label=0.9)


@pytest.mark.parametrize(
    "facts, loss, said",
    [
        (BCE, 0.01, "0 is certainty. D is certain of nearly everything"),
        (
            SMOOTH,
            0.33,
            "0.325, the least that labels of 0.9 and 0 allow, is certainty. D is certain of nearly",
        ),
        (Facts(adversarial="bce", real_label=0.9, fake_label=0.1), 0.7, "0.65, the least that labels"),
        (SMOOTH, 0.5, "D is ahead of G, which is normal."),
        (
            Facts(adversarial="lsgan", real_label=0.9, fake_label=0.1),
            0.001,
            "0 is certainty. D is certain of",
        ),
        (Facts(adversarial="wgan", critic_sign=-1), 0.2, "Mean score of reals minus that of fakes"),
    ],
)
def test_the_least_loss_that_labels_allow_is_certainty(facts, loss, said):
    assert said in says("D_loss", facts, D_loss=loss, D_real=1.0, D_fake=0.0)


@pytest.mark.parametrize("kind, labels", [("bce", (0.9, 0.1)), ("bce", (1, 0)), ("lsgan", (0.9, 0.1))])
def test_certainty_and_chance_are_what_the_losses_compute(kind, labels):
    loss = AdversarialLoss(kind, real_label=labels[0], fake_label=labels[1])
    facts = Facts(adversarial=kind, real_label=labels[0], fake_label=labels[1])
    scores = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    real, fake = zip(*(loss.halves(score.view(1), score.view(1)) for score in scores), strict=True)
    assert least_loss(facts) == pytest.approx(float(min(real) + min(fake)), abs=1e-5)
    undecided = torch.tensor([sum(labels) / 2 if kind == "lsgan" else 0.0])
    chance = float(loss.generator(undecided))
    assert f" {chance:.3g} where D " in says("G_loss", facts, G_loss=1.0)


def test_what_d_is_trained_to_give_has_the_critic_s_sign():
    facts = Facts(adversarial="lsgan", real_label=0.9, critic_sign=-1)
    assert "High means fake, D is trained to give -0.9." in says("D_real", facts, D_real=0.1)
    assert "D is trained to give 0." in says("D_fake", facts, D_fake=0.1)


def test_certainty_of_reals_is_measured_by_their_label():
    text = says("D_probability_real", SMOOTH, D_probability_real=0.85)
    assert "D is certain, which is bad only if D_probability_fake is below 0.1." in text
    assert "Between 0.5 and 0.81 both" in says("D_probability_real", SMOOTH, D_probability_real=0.7)


@pytest.mark.parametrize(
    "penalty, said",
    [
        (0.1, "costs D 0.5 a step, 50% of its adversarial loss: normal."),
        (
            0.9,
            "costs D 4.5 a step, 4.5 times its adversarial loss: more than usual, and from 5 times on D may",
        ),
        (2.0, "costs D 10 a step, 10 times its adversarial loss: so much that D may hardly answer."),
    ],
)
def test_a_penalty_is_normal_only_below_the_loss_that_it_belongs_to(penalty, said):
    assert said in says("r1_penalty", HINGE, D_loss=1.0, r1_penalty=penalty)


@pytest.mark.parametrize("value, remarked", [(0.003, True), (0.009, False)])
def test_a_share_is_too_small_below_the_rule_s_bound(value, remarked):
    text = says("share_G_loss", HINGE, share_G_loss=value, share_l1_loss=1 - value)
    assert ("Below 0.004, D has no say in what G learns." in text) is remarked
    assert ("A few hundredths to a half is usual" in text) is not remarked


def test_a_ratio_of_exactly_0_is_collapse():
    assert "Below 0.5 counts as collapse." in says("collapse_ratio", collapse_ratio=0.0)
    assert "counts as collapse" not in says("collapse_ratio", collapse_ratio=0.6)
    assert "D does not move." in says("D_update_ratio", D_update_ratio=0.0)


def test_a_figure_by_chance_is_normal_until_the_rule_says_otherwise():
    planned = Facts(num_steps=400, chance={"bit_acc": 0.5})
    assert "learned nothing yet, which is normal until step 3000." in says("bit_acc", bit_acc=0.51)
    assert "learned nothing yet, which is no longer normal." in says("bit_acc", planned, bit_acc=0.51)
    planned = Facts(num_steps=1000, chance={"bit_acc": 0.5})
    assert "learned nothing yet, which is normal until step 250." in says("bit_acc", planned, bit_acc=0.51)


def test_a_column_is_described_without_a_run():
    read = {column.replace("*", "NAME") for rule in RULES for column in rule.columns}
    for name in read:
        text = describe(name)
        assert text[-1] == "." and not re.search(r"not given|It is [0-9]|no value yet| now\b", text), (
            name,
            text,
        )
    assert "1.39 for bce" in describe("D_loss") and "0.25 for lsgan" in describe("D_loss")
    assert describe("bit_acc").endswith("Without any skill it is 0.5.")
    assert describe("mine") == ""


def test_a_lazy_penalty_is_averaged_over_all_log_lines_and_over_those_that_have_it():
    text = says("r1_penalty", HINGE, D_loss=1.0, r1_penalty=lambda part: 0.2 if part < 0.49 else None)
    assert "It is the mean over the steps that compute it" in text
    assert "10 of 20 log lines have such a step; over all lines it would be 0.1." in text
    assert "With its weight of 5 it costs D 1 a step, 100% of its adversarial loss: normal." in text


def test_zeros_of_a_penalty_that_was_not_computed_are_told_apart():
    text = says("r1_penalty", HINGE, r1_penalty=lambda part: 0.2 if part < 0.49 else 0.0)
    assert "It is 0.1 over all rows, 0.2 over the 10 of 20 that compute it" in text


def test_a_term_has_its_weight_and_its_share():
    columns = {"l1_loss": 0.3, "l1_loss_weight": 100.0, "share_l1_loss": 0.25}
    assert "In G's loss: weight 100, share 25.0% of G's gradient." in says("l1_loss", **columns)
    columns = {"cyc_ref_loss": 0.3, "cyc_ref_loss_weight": 2.0, "share_cyc": 0.25}
    assert "In G's loss: weight 2, share 25.0% of G's gradient." in says("cyc_ref_loss", **columns)
    assert "Its weight is 0 now." in says("l1_loss", l1_loss=0.3, l1_loss_weight=0.0)


def test_lambda_ds_is_told_to_fall_by_schedule():
    text = says("lambda_ds", lambda_ds=lambda part: 1 - part)
    assert "It falls to 0 over the run by schedule" in text and "and falling of late" in text
    assert "nothing holds it up any more" in says("ds_lat_loss", ds_lat_loss=0.1, lambda_ds=0.0)


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda part: part, "It is 0.974 now, 0.0263 at first, and rising of late."),
        (lambda part: -part, "and falling of late."),
        (lambda part: 1 + 1e-3 * math.sin(30 * part), "and level of late."),
        (lambda part: 5 + math.sin(90 * part), "and level of late."),
        (lambda part: math.nan if part > 0.6 else 0.5, "It has been NaN or infinite since step 130."),
        (lambda part: math.nan, "It has been NaN or infinite since step 10."),
        (lambda part: math.inf if part == 1 else part, "since step 200."),
    ],
)
def test_courses_of_unknown_columns_are_described(function, said):
    assert said in says("mine", mine=function)


def test_a_figure_of_a_task_has_its_value_without_skill():
    facts = Facts(chance={"mine": 0.25, "bit_acc": 0.5})
    assert "Without any skill it is 0.25." in says("mine", facts, mine=0.3)
    assert "Without any skill it is 0.5. It has learned nothing yet" in says("bit_acc", facts, bit_acc=0.51)
    assert "learned nothing" not in says("bit_acc", facts, bit_acc=0.9)


def test_figures_are_read_beside_what_takes_no_skill():
    assert "That is better than psnr_y_bicubic, 30" in says("psnr_y", psnr_y=31.0, psnr_y_bicubic=30.0)
    assert "That is worse than l1_of_source, 0.1" in says("l1", l1=0.2, l1_of_source=0.1)


@pytest.mark.parametrize(
    "kind", [None, "bce", "nonsaturating", "lsgan", "hinge", "wgan", "wgan-gp", "relativistic"]
)
@pytest.mark.parametrize("value", [0.0, 1e-12, -3.0, 1e30, None])
def test_all_columns_are_explained_whatever_their_values(kind, value):
    names = [
        "D_loss", "D_real", "D_fake", "D_real_after", "D_difference", "D_probability_real", "D_accuracy_fake",
        "D_auc", "D_penalty", "r1_penalty", "G_loss", "adv_lat_loss", "share_G_loss", "cosine_a_b", "lr",
        "a_weight", "ds_ref_loss", "secret_loss", "bit_acc", "str_acc_clean", "psnr", "ssim_y_bicubic", "x",
        "l1_ratio_worst", "collapse_ratio_nearest", "probe_memorized", "G_update_ratio", "real_lowest",
        "lpips_range_low", "D_mine_loss", "mine_penalty", "D_clipped", "lambda_ds", "D_fake", "spread_ratio",
    ]  # fmt: skip
    facts = Facts(adversarial=kind, penalties={"D_penalty": 10.0, "r1_penalty": 0.0})
    diagnosis = diagnosed(facts, count=2, **dict.fromkeys(names, 0.1 if value is None else value))
    for name in names:
        question, text = explain(name, diagnosis)
        assert question in (*QUESTIONS, OTHER)
        assert text and "\n" not in text and "  " not in text and text[-1] == "."
        assert not {"None", "nan"} & set(text.split())
    assert explain("not_there", diagnosis).says == "It has no value yet."
