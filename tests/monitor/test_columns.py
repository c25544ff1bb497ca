"""Explanations of figures, in the run's own numbers."""

from __future__ import annotations

import math

import pytest

from fastgan.monitor import Diagnosis, Facts
from fastgan.monitor.columns import COLUMNS, OTHER, QUESTIONS, explain, is_known
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
    assert {question for _, question, _ in COLUMNS} == {*QUESTIONS, OTHER}
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
    ],
)  # fmt: skip
def test_columns_answer_their_questions(column, question):
    explanation = explain(column, diagnosed(**{column: 0.5}))
    assert explanation.question == (*QUESTIONS, OTHER)[question]
    assert explanation.says.endswith("It is 0.5 throughout.")


@pytest.mark.parametrize(
    "facts, loss, apart, said",
    [
        (HINGE, 2.0, 1.0, "2 is what the same answer to every sample costs, 0 is certainty. Near it is fine"),
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


def test_a_lazy_penalty_is_averaged_over_all_log_lines_and_over_those_that_have_it():
    text = says("r1_penalty", HINGE, D_loss=1.0, r1_penalty=lambda part: 0.2 if part < 0.49 else None)
    assert "as the mean over the steps that compute it" in text
    assert "10 of 20 log lines have such a step; over all lines it would be 0.1." in text
    assert "With its weight of 5 it costs D 1 a step, 100% of its adversarial loss: normal." in text


def test_zeros_of_a_penalty_that_was_not_computed_are_told_apart():
    text = says("r1_penalty", HINGE, r1_penalty=lambda part: 0.2 if part < 0.49 else 0.0)
    assert "0.1 over all rows, 0.2 over the 10 of 20 that compute it" in text


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
    assert "0.5 by guessing. It has learned nothing yet" in says("bit_acc", facts, bit_acc=0.51)
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
        "lpips_range_low",
    ]  # fmt: skip
    facts = Facts(adversarial=kind, penalties={"D_penalty": 10.0, "r1_penalty": 0.0})
    diagnosis = diagnosed(facts, count=2, **dict.fromkeys(names, 0.1 if value is None else value))
    for name in names:
        question, text = explain(name, diagnosis)
        assert question in (*QUESTIONS, OTHER)
        assert text and "\n" not in text and "  " not in text and text[-1] == "."
        assert not {"None", "nan"} & set(text.split())
    assert explain("not_there", diagnosis).says == "It has no value yet."
