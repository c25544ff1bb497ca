"""NaN never replaces earlier checkpoints: it is detected before saving, and its origin is named."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from fastgan.cli import main
from fastgan.training.checkpoint import check_finite_state, load_checkpoint, state_of, write_checkpoint
from fastgan.training.finite import first_non_finite
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from tests.processes import ROOT
from tests.training.toy import Toy, ToyConfig


@pytest.fixture
def config(tmp_path):
    return ToyConfig(
        runs_path=str(tmp_path), exp_name="run", num_steps=20, log_interval=20, sample_interval=20,
        eval_interval=20, checkpoint_interval=1, accelerator="cpu", ema_decay=0.9,
    )  # fmt: skip


def breaks_at(monkeypatch, step, damage):
    """Calls `damage(recipe)` after the step; no logged term shows it."""
    step_of = Toy.train_step

    def train_step(self, batch, number, generator):
        terms = step_of(self, batch, number, generator)
        if number + 1 == step:
            damage(self)
        return terms

    monkeypatch.setattr(Toy, "train_step", train_step)


def finite(path):
    return all(tensor.isfinite().all() for tensor in load_file(path).values() if tensor.is_floating_point())


def weights_become_nan(recipe):
    recipe.discriminator.bias.data.fill_(math.nan)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_first_tensor_that_is_not_finite_is_named(dtype, value):
    state = {
        "large": torch.full((3,), torch.finfo(dtype).max, dtype=dtype),
        "empty": torch.empty(0),
        "step": torch.tensor(3),
        "scalar": torch.tensor(1.0),
        "wrong": torch.ones(2, 3, dtype=dtype),
        "after": torch.tensor(math.nan),
    }
    state["wrong"][1, 1] = value
    assert first_non_finite(state) == "wrong"
    del state["wrong"], state["after"]
    assert first_non_finite(state) is None
    assert first_non_finite({}) is None


@pytest.mark.parametrize("step", [7, 20])
def test_a_run_whose_weights_become_nan_ends_and_keeps_its_last_finite_checkpoint(config, monkeypatch, step):
    breaks_at(monkeypatch, step, weights_become_nan)
    last = config.folder / "checkpoints" / f"step-{step - 1:08d}.safetensors"
    with pytest.raises(FloatingPointError) as stopped:
        train(Toy, config)
    message = str(stopped.value)
    assert message.startswith(
        f"networks/discriminator/bias became NaN or infinite by step {step}, which is not"
    )
    assert f"the last finite checkpoint is {last}." in message
    remaining = sorted((config.folder / "checkpoints").iterdir())
    assert len(remaining) == 2 and remaining[-1] == last and all(map(finite, remaining))


def test_nothing_is_made_of_weights_that_are_not_finite(config, monkeypatch):
    breaks_at(monkeypatch, 20, weights_become_nan)
    for method in ("samples", "evaluate"):
        monkeypatch.setattr(Toy, method, lambda *_: pytest.fail("the weights are NaN"))
    with pytest.raises(FloatingPointError, match="by step 20"):
        train(Toy, dataclasses.replace(config, checkpoint_interval=100))


@pytest.mark.parametrize("part", ["optimizer", "average", "number"])
def test_all_of_the_state_is_looked_at(config, monkeypatch, part):
    def damage(recipe):
        if part == "optimizer":
            parameter = recipe.optimizers["generator"].param_groups[0]["params"][2]
            recipe.optimizers["generator"].state[parameter]["exp_avg_sq"][0, 0] = math.inf
        elif part == "average":
            recipe.averages["generator"][0].weight.data[1, 1] = math.nan
        else:
            recipe.state["D_loss"] = math.nan

    name = {
        "optimizer": "optimizers/generator/2/exp_avg_sq", "average": "averages/generator/0.weight",
        "number": "state/D_loss",
    }[part]  # fmt: skip
    breaks_at(monkeypatch, 5, damage)
    with pytest.raises(FloatingPointError, match=f"^{name} became NaN or infinite by step 5"):
        train(Toy, config)
    assert load_checkpoint(config.folder).step == 4


def test_whoever_saves_cannot_save_nan(config, tmp_path):
    recipe = Toy(config, Runtime(config))
    write_checkpoint(state_of(recipe, 1), tmp_path, keep=1)
    weights_become_nan(recipe)
    with pytest.raises(FloatingPointError, match="by step 2"):
        write_checkpoint(state_of(recipe, 2), tmp_path, keep=1)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["step-00000001.safetensors"]


def test_a_run_that_is_nan_before_its_first_checkpoint_says_so(config, monkeypatch):
    breaks_at(monkeypatch, 1, weights_become_nan)
    with pytest.raises(FloatingPointError, match="there is no checkpoint yet"):
        train(Toy, config)
    assert list((config.folder / "checkpoints").iterdir()) == []


def test_the_check_waits_for_the_device_once(config):
    from tests.training.test_loop import HostReads

    recipe = Toy(config, Runtime(config))
    recipe.train_step(next(recipe.batches(0)), 0, torch.Generator())
    with HostReads() as mode:
        check_finite_state(recipe, 1, lambda: None)
    assert len(mode.names) == 1


@pytest.mark.parametrize(("lr_d", "log_interval"), [("1e30", 20), ("1e8", 20), ("1e30", 1)])
def test_the_command_ends_with_1_and_what_it_leaves_is_finite(tmp_path, capsys, lr_d, log_interval):
    pytest.importorskip("sklearn")
    options = dict(
        preset="demo", runs_path=tmp_path, exp_name="run", num_epochs=0, num_steps=20, lr_d=lr_d,
        checkpoint_interval=1, log_interval=log_interval, sample_interval=20, eval_interval=20, g_width=4,
        d_width=4, batch_size=4, frechet="off", accelerator="cpu",
    )  # fmt: skip
    assert main(["train", "dcgan", *(str(part) for k, v in options.items() for part in (f"--{k}", v))]) == 1
    output, folder = capsys.readouterr().err, tmp_path / "run"
    assert "fastgan: error: networks/" in output and "became NaN or infinite by step" in output
    remaining = sorted((folder / "checkpoints").iterdir())
    for_use = [folder / "model.safetensors"] if remaining else []
    assert (str(remaining[-1]) if remaining else "there is no checkpoint yet") in output
    assert list(folder.glob("*.safetensors")) == for_use and all(map(finite, remaining + for_use))
    assert bool(remaining) == (lr_d == "1e8")


SCRIPT = """
import sys
from fastgan.training.loop import train
from tests.training.toy import Toy, ToyConfig

step_of = Toy.train_step
def train_step(self, batch, step, generator):
    terms = step_of(self, batch, step, generator)
    if step == 2 and self.runtime.rank == 1:
        self.discriminator.bias.data.fill_(float("nan"))
    return terms

Toy.train_step = train_step
from fastgan.training.processes.runtime import ProcessFailed
try:
    train(Toy, ToyConfig(runs_path=sys.argv[1], exp_name="run", num_steps=5, batch_size=2, devices=2,
                         accelerator="cpu", log_interval=5, checkpoint_interval=1))
except ProcessFailed as error:
    print(f"left: {error}", flush=True)
"""


def test_all_processes_leave_when_one_has_nan(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    message = "left: rank 1: networks/discriminator/bias became NaN or infinite by step 3"
    assert done.stdout.count(message) == 2, done.stderr[-3000:]
    assert load_checkpoint(tmp_path / "run").step == 2
