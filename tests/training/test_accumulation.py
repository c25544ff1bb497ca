"""Micro-batches in turns make the step of the whole batch."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from torch import nn

from fastgan.training.accumulation import MicroBatches
from fastgan.training.config import TrainingConfig
from fastgan.training.loop import train
from tests.processes import run_script
from tests.recipes.runs import newest
from tests.training.test_nodes import JOINT, OPTIONS, options
from tests.training.toy import Toy, ToyConfig

CPU = torch.device("cpu")


def test_all_pass_an_update_before_any_goes_on():
    batches, done = MicroBatches(3), []

    def step(number):
        done.append(f"{number} forward")
        for name in ("D", "G"):
            with batches.update(name) as turn:
                done.append(f"{number} {name}{' first' * turn.is_first}{' last' * turn.is_last}")
        assert batches.number == number
        done.append(f"{number} end")

    for _ in range(2):
        done.clear()
        batches.run([lambda number=number: step(number) for number in range(3)], [], CPU)
        assert done == [
            "0 forward", "0 D first", "1 forward", "1 D", "2 forward", "2 D last",
            "0 G first", "1 G", "2 G last", "0 end", "1 end", "2 end",
        ]  # fmt: skip
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fastgan-batch")]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_error_in_one_ends_all(which):
    batches, passed = MicroBatches(3), []

    def step(number, fails):
        with batches.update("D"):
            if fails and number == which:
                raise ValueError(f"no such image in {number}")
        passed.append(number)

    with pytest.raises(ValueError, match=f"no such image in {which}"):
        batches.run([lambda number=number: step(number, True) for number in range(3)], [], CPU)
    assert passed == []
    batches.run([lambda number=number: step(number, False) for number in range(3)], [], CPU)
    assert passed == [0, 1, 2]
    batches.close()


@pytest.mark.parametrize("updates", [["DG", "D"], ["D", "DG"], ["DG", "GD"]])
def test_micro_batches_with_other_updates_are_named(updates):
    batches = MicroBatches(2)

    def step(names):
        for name in names:
            with batches.update(name):
                pass

    with pytest.raises(RuntimeError, match="micro-batch 1 updates"):
        batches.run([lambda names=names: step(names) for names in updates], [], CPU)
    batches.close()


def test_frozen_networks_and_random_draws_are_each_ones_own():
    network, batches = nn.Linear(2, 2), MicroBatches(2)
    seen = []

    def step(number):
        torch.manual_seed(number)
        torch.rand(3)
        trained = network.weight.requires_grad
        network.requires_grad_(False)
        with batches.update("G"):
            seen.append(trained)
        seen.append(torch.rand(1).item())
        network.requires_grad_(trained)

    batches.run([lambda: step(0), lambda: step(1)], [network], CPU)
    assert seen[:2] == [True, True] and network.weight.requires_grad
    for number, drawn in enumerate(seen[2:]):
        torch.manual_seed(number)
        torch.rand(3)
        assert drawn == torch.rand(1).item()
    batches.close()


@pytest.mark.parametrize("changes, message", [
    ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
    ({"global_batch_size": 0}, "global_batch_size must be at least 1, got 0"),
    ({"accumulate": 2, "balance": "adaptive"}, "accumulate 2 does not go with balance adaptive"),
    ({"accumulate": 2, "shares": ("G_loss=1",)}, "accumulate 2 does not go with shares"),
])  # fmt: skip
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_the_batch_size_follows_from_the_global_one():
    config = TrainingConfig(global_batch_size=24, accumulate=2, batch_size=5)
    assert config.shared_by(3).batch_size == 4
    assert TrainingConfig(batch_size=5).shared_by(3).batch_size == 5
    with pytest.raises(ValueError, match="a multiple of 5 processes times 2 micro-batches, got 24"):
        config.shared_by(5)
    with pytest.raises(ValueError, match="a multiple of 48 processes, got 24"):
        TrainingConfig(global_batch_size=24).shared_by(48)


def test_only_one_of_the_batch_sizes_is_given(tmp_path):
    from fastgan.training.command_line import parse_config

    def parse(*words):
        return parse_config(ToyConfig, {"large": ToyConfig(global_batch_size=64)}, [*words], "train")

    assert parse("--preset", "large").global_batch_size == 64
    assert parse("--preset", "large", "--batch_size", "3").global_batch_size is None
    with pytest.raises(ValueError, match="--batch_size 3 and --global_batch_size 6 both say"):
        parse("--batch_size", "3", "--global_batch_size", "6")


# --- whole runs ---------------------------------------------------------------------------------------------


# DCGAN's generator normalizes each micro-batch by itself.
EXACT = [recipe for recipe in OPTIONS if recipe != "dcgan"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each recipe's run of whole batches, of micro-batches, and of micro-batches in two processes."""
    folder = tmp_path_factory.mktemp("accumulated")
    script = JOINT + "for words in sys.argv[1:]:\n    assert main(['train', *words.split()]) == 0\n"
    for name, processes, changes in (
        ("whole", 1, {"batch_size": 6}),
        ("three", 1, {"batch_size": 2, "accumulate": 3}),
        ("two-by-three", 2, {"global_batch_size": 6, "accumulate": 3}),
    ):
        words = [options(recipe, runs_path=folder / name, **changes) for recipe in EXACT]
        run_script(script, folder, *map(" ".join, words), processes=processes)
    return folder


@pytest.mark.parametrize("name", ["three", "two-by-three"])
@pytest.mark.parametrize("recipe", EXACT)
def test_micro_batches_equal_the_whole_batch(runs, name, recipe):
    whole, parts = newest(runs / "whole" / recipe), newest(runs / name / recipe)
    assert whole.keys() == parts.keys()
    for key in whole:
        if key.startswith(("networks", "averages")):
            torch.testing.assert_close(
                parts[key], whole[key], rtol=1e-5, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}"
            )
        elif key.startswith("emas"):
            assert parts[key] == whole[key]


def test_batch_normalization_in_micro_batches_is_noted(tmp_path, capsys):
    from fastgan.cli import main

    assert main(["train", *options("dcgan", runs_path=tmp_path, accumulate=2, num_steps=2)]) == 0
    assert "accumulate 2: batch normalization sees 2 images at a time" in capsys.readouterr().out
    # Once per micro-batch, although its activations are computed twice.
    assert newest(tmp_path / "dcgan")["networks/generator/layers.1.num_batches_tracked"] == 4


def test_accumulated_runs_resume_to_the_bit(tmp_path):
    config = ToyConfig(
        runs_path=str(tmp_path), accelerator="cpu", accumulate=3, batch_size=2, ema_decay=0.9,
        checkpoint_interval=2, log_interval=2,
    )  # fmt: skip
    whole = train(Toy, dataclasses.replace(config, exp_name="whole", num_steps=4))
    train(Toy, dataclasses.replace(config, exp_name="parts", num_steps=2))
    parts = train(Toy, dataclasses.replace(config, exp_name="parts", num_steps=4, resume=True))
    expected, actual = newest(whole), newest(parts)
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
