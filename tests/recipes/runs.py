"""Comparisons of complete runs: resumed and uninterrupted, two processes and one."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file

from fastgan.training.config import TrainingConfig, write_config
from fastgan.training.loop import train
from fastgan.training.recipe import Recipe
from tests.processes import run_script

SCRIPT = """
import sys
from fastgan.recipes import load_recipe
from fastgan.training.command_line import parse_config
from fastgan.training.loop import train

recipe = load_recipe(sys.argv[1])
train(recipe, parse_config(recipe.config_class, recipe.presets, sys.argv[2:], "train"))
"""


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a run's CSV file without what depends on the clock."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in ("images_per_second", "seconds_per_step"):
            row.pop(name, None)
    return rows


def newest(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "checkpoints").glob("step-*.safetensors"))[-1])


def assert_resume_is_bit_exact(recipe: type[Recipe], config: TrainingConfig, at: int, steps: int) -> None:
    """Networks, averages, optimizers and terms of a run with a stop after `at` steps and of one without."""
    config = dataclasses.replace(
        config, log_interval=at, sample_interval=steps, eval_interval=steps, checkpoint_interval=at
    )
    uninterrupted = train(recipe, dataclasses.replace(config, exp_name="whole", num_steps=steps))
    train(recipe, dataclasses.replace(config, exp_name="parts", num_steps=at))
    parts = train(recipe, dataclasses.replace(config, exp_name="parts", num_steps=steps, resume=True))
    expected, actual = newest(uninterrupted), newest(parts)
    assert expected.keys() == actual.keys()
    assert {key.split("/")[0] for key in expected} == {"networks", "averages", "emas", "optimizers"}
    for key in expected:
        assert torch.equal(actual[key], expected[key]), key
    assert table(parts / "metrics.csv") == table(uninterrupted / "metrics.csv")


def assert_two_processes_equal_one(recipe: type[Recipe], config: TrainingConfig, folder: Path) -> None:
    """Parameters and moving averages to 1e-5 after 5 steps; then the two processes' run goes on in one."""
    config = dataclasses.replace(
        config, num_steps=5, log_interval=5, sample_interval=5, eval_interval=5, checkpoint_interval=5,
        accelerator="cpu", runs_path=str(folder),
    )  # fmt: skip
    half = dataclasses.replace(config, exp_name="two", batch_size=config.batch_size // 2, devices=2)
    for each, processes in ((dataclasses.replace(config, exp_name="one"), 1), (half, 2)):
        write_config(each, folder / f"{each.exp_name}.yaml")
        run_script(
            SCRIPT, folder, recipe.name, "--config", folder / f"{each.exp_name}.yaml", processes=processes
        )
    one, two = newest(folder / "one"), newest(folder / "two")
    assert one.keys() == two.keys()
    for key in one:
        if key.startswith(("networks", "averages")):
            torch.testing.assert_close(
                two[key], one[key], rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
            )
    resumed = train(recipe, dataclasses.replace(config, exp_name="two", num_steps=6, resume=True))
    assert (resumed / "checkpoints" / "step-00000006.safetensors").exists()
