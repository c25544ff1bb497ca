"""Every recipe's run, diagnosed from its folder: each figure explained, and the verdicts that it printed."""

from __future__ import annotations

import dataclasses
import re

import pytest

from fastgan.monitor.columns import OTHER, explain
from fastgan.monitor.facts import FACTS
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.config import write_config
from fastgan.training.diagnose import diagnose_run
from fastgan.training.loop import train
from tests.processes import run_script
from tests.recipes.runs import SCRIPT

OFTEN = "--log_interval 1 --sample_interval 4 --eval_interval 4 --checkpoint_interval 4"
OPTIONS = {
    "dcgan": "--r1_weight 1", "enhancenet": "--variant PAT", "stegastamp": "--no_im_loss_steps 0",
}  # fmt: skip


def printed(output):
    """Severity, name and first step of the verdicts in a run's output."""
    found = re.findall(r"^ +\d+  (fault|warning|note) (\w+), from step (\d+)", output, re.MULTILINE)
    return {(severity, name, int(step)) for severity, name, step in found}


@pytest.mark.parametrize("name", RECIPES)
def test_figures_are_explained_and_verdicts_are_those_that_were_printed(name, config_of, capsys):
    recipe, config = load_recipe(name), config_of(name, f"{OFTEN} {OPTIONS.get(name, '')}")
    folder = train(recipe, dataclasses.replace(config, num_steps=4))
    train(recipe, dataclasses.replace(config, num_steps=8, resume=True))
    # A half of the run was over earlier before it was given more steps.
    said = {
        verdict for verdict in printed(capsys.readouterr().out) if verdict != ("warning", "not_decayed", 2)
    }
    found = diagnose_run(folder)
    verdicts = [*found.verdicts(), *found.past]
    assert {(verdict.severity, verdict.name, verdict.step) for verdict in verdicts} == said
    for column in found.history.columns:
        question, says = explain(column, found)
        assert says, column
        speed = column in ("images_per_second", "seconds_per_step")
        assert (question == OTHER) is speed, column


def test_two_processes_have_the_verdicts_of_one(config_of, tmp_path):
    """Their figures are means over processes, of half a batch each."""
    recipe, config = load_recipe("dcgan"), config_of("dcgan")
    config = dataclasses.replace(
        config, num_steps=100, log_interval=10, eval_interval=50, batch_size=8, lr_d=1e-9, lr_g=1e-9
    )
    alone = diagnose_run(train(recipe, dataclasses.replace(config, exp_name="one")))
    half = dataclasses.replace(config, exp_name="two", batch_size=4, devices=2)
    write_config(half, tmp_path / "two.yaml")
    run_script(SCRIPT, tmp_path, recipe.name, tmp_path / "two.yaml", processes=2)
    together = diagnose_run(tmp_path / "two")
    said = [
        {(verdict.name, verdict.subject, verdict.step) for verdict in diagnosis.verdicts()}
        for diagnosis in (alone, together)
    ]
    assert said[0] == said[1]
    assert {("steps_too_small", "D"), ("steps_too_small", "G")} <= {verdict[:2] for verdict in said[0]}
    assert together.history.columns.keys() == alone.history.columns.keys()
    for name in ("D_loss", "D_real", "D_fake", "D_update_ratio", "G_update_ratio", "real_deviation"):
        assert together.history.first(name) == pytest.approx(alone.history.first(name), rel=0.05), name


def test_a_run_older_than_its_facts_is_diagnosed_by_its_options(config_of):
    folder = train(load_recipe("dcgan"), dataclasses.replace(config_of("dcgan"), num_steps=4))
    expected = diagnose_run(folder).facts
    (folder / FACTS).unlink()
    assert diagnose_run(folder).facts == expected
    assert expected.adversarial is not None and expected.num_steps == 4
