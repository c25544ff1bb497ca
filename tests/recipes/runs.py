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
for path in sys.argv[2:]:
    train(recipe, parse_config(recipe.config_class, recipe.presets, ["--config", path], "train"))
"""

MEASURES_OF_IMAGES = {
    "real_lowest", "real_highest", "fake_lowest", "fake_highest", "real_deviation", "spread_ratio"
}  # fmt: skip
PROBES = {
    "probe_auc_fake", "probe_overfitting", "probe_auc_held_out", "probe_distance_ratio",
    "probe_memorized", "probe_duplicates", "probe_stable_rank",
}  # fmt: skip


def measures_of(network: str) -> set[str]:
    """The columns that the monitor adds to metrics.csv for a network."""
    names = (
        "gradient_norm",
        "weight_norm",
        "update_ratio",
        "untrained",
        *(["at_bound"] if network == "D" else []),
    )
    return {f"{network}_{name}" for name in names}


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


@dataclasses.dataclass(frozen=True)
class OneAndTwo:
    """Runs of 5 steps by one process, and by two with half its batch, which are started once for all runs."""

    recipe: type[Recipe]
    configs: dict[str, TrainingConfig]
    folder: Path

    def __post_init__(self) -> None:
        files = []
        for name, config in self._short().items():
            half = dataclasses.replace(
                config, exp_name=f"{name}-two", batch_size=config.batch_size // 2, devices=2
            )
            files.append(self.folder / f"{half.exp_name}.yaml")
            write_config(half, files[-1])
        run_script(SCRIPT, self.folder, self.recipe.name, *files, processes=2)

    def _short(self) -> dict[str, TrainingConfig]:
        changes = dict.fromkeys(
            ("num_steps", "log_interval", "sample_interval", "eval_interval", "checkpoint_interval"), 5
        ) | {"accelerator": "cpu", "runs_path": str(self.folder)}
        return {name: dataclasses.replace(config, **changes) for name, config in self.configs.items()}

    def assert_equal(self, name: str) -> None:
        """Parameters and moving averages to 1e-5; then the two processes' run goes on in one."""
        config, threads = self._short()[name], torch.get_num_threads()
        torch.set_num_threads(1)  # as the two processes have
        try:
            train(self.recipe, dataclasses.replace(config, exp_name=f"{name}-one"))
        finally:
            torch.set_num_threads(threads)
        one, two = newest(self.folder / f"{name}-one"), newest(self.folder / f"{name}-two")
        assert one.keys() == two.keys()
        for key in one:
            if key.startswith(("networks", "averages")):
                torch.testing.assert_close(
                    two[key], one[key], rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
                )
        goes_on = dataclasses.replace(config, exp_name=f"{name}-two", num_steps=6, resume=True)
        assert (train(self.recipe, goes_on) / "checkpoints" / "step-00000006.safetensors").exists()
