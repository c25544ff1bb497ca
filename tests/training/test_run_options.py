"""Resuming by a run's folder: its own options by default, and any of its checkpoints."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from fastgan import cli
from fastgan.cli import main
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.command_line import parse_config
from fastgan.training.config import write_config
from fastgan.training.loop import train
from fastgan.training.yaml_files import read_options

from .toy import Toy, ToyConfig, rows, toy_config


@pytest.fixture
def run(tmp_path):
    """A run of four steps with non-default options."""
    config = dataclasses.replace(toy_config(tmp_path, 4, 1), lr=0.25, batch_size=3, keep_checkpoints=9)
    return train(Toy, config)


@pytest.fixture
def command(monkeypatch):
    """Registers the toy recipe with the command."""
    from fastgan.recipes import RECIPES, Registration

    monkeypatch.setitem(RECIPES, "toy", Registration("tests.training.toy:Toy", "a toy"))
    return lambda *arguments: main([str(argument) for argument in arguments])


def parse(*arguments, lines=None):
    say = (lambda text: None) if lines is None else lines.append
    return parse_config(ToyConfig, Toy.presets, [str(a) for a in arguments], "fastgan train toy", say=say)


def of(run, resume="true"):
    return "--runs_path", run.parent, "--exp_name", run.name, "--resume", resume


@pytest.mark.parametrize("resume", ["true", "auto"])
def test_options_that_are_not_given_are_the_runs(run, resume):
    lines = []
    config = parse(*of(run, resume), "--batch_size", 5, lines=lines)
    assert (config.lr, config.batch_size, config.num_steps, config.ema_decay) == (0.25, 5, 4, 0.9)
    assert len(lines) == 1 and lines[0].startswith(f"taken from {run / 'config.yaml'}: ")
    assert "lr 0.25" in lines[0] and "num_steps 4" in lines[0] and "batch_size" not in lines[0]
    assert (config.exp_name, config.runs_path) == (run.name, str(run.parent))


def test_a_file_and_what_a_preset_sets_count_as_given(run, tmp_path):
    (tmp_path / "options.yaml").write_text("batch_size: 7\n")
    config = parse(*of(run), "--preset", "fast", "--config", tmp_path / "options.yaml")
    assert (config.lr, config.log_interval) == (0.1, 7)  # the preset's
    assert (config.batch_size, config.keep_checkpoints) == (7, 9)


def test_a_length_that_is_given_takes_the_place_of_the_runs(run):
    write_config(dataclasses.replace(parse(*of(run)), num_epochs=3), run / "config.yaml")
    assert parse(*of(run)).num_epochs == 3
    config = parse(*of(run), "--num_steps", 8)
    assert (config.num_steps, config.num_epochs) == (8, 0)


def test_where_there_is_no_run_the_defaults_count(tmp_path):
    lines = []
    assert parse("--runs_path", tmp_path, "--resume", "auto", lines=lines).lr == 0.001
    assert lines == []


def test_without_config_yaml_the_checkpoints_options_count(run):
    (run / "config.yaml").unlink()
    lines = []
    assert parse(*of(run), lines=lines).lr == 0.25
    assert "step-00000004.safetensors: " in lines[0]


def test_options_of_another_version_are_left_out_and_named(run):
    with (run / "config.yaml").open("a") as file:
        file.write("colour: red\n")
    with pytest.warns(RuntimeWarning, match=r"config\.yaml has options that are not known here: colour"):
        assert parse(*of(run)).lr == 0.25


def test_what_is_no_value_is_named(run):
    with (run / "config.yaml").open("a") as file:
        file.write("workers: many\n")
    with pytest.raises(ValueError, match="workers"):
        parse(*of(run))


def test_a_batch_size_that_followed_from_the_global_one_is_not_told(run):
    lines = []
    parse(*of(run), "--global_batch_size", 6, lines=lines)
    assert len(lines) == 1 and "batch_size" not in lines[0].partition(": ")[2]


def test_under_torchrun_the_number_of_devices_is_its(run, monkeypatch):
    write_config(dataclasses.replace(parse(*of(run)), devices=4), run / "config.yaml")
    assert parse(*of(run)).devices == 4
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert parse(*of(run)).devices is None


# --- the command ------------------------------------------------------------------------------------------


def test_resume_is_given_a_run_and_what_changes(run, command, capsys):
    assert command("resume", run, "--num_steps", 6, "--lr", "0.5") == 0
    output = capsys.readouterr().out
    assert f"taken from {run / 'config.yaml'}: " in output and "batch_size 3" in output
    assert "resumed with: num_steps 4 -> 6, lr 0.25 -> 0.5" in output
    assert [row["step"] for row in rows(run / "metrics.csv")] == ["1", "2", "3", "4", "5", "6"]
    assert read_options(run / "config.yaml")["batch_size"] == 3


def test_a_finished_run_says_that_nothing_is_left(run, command, capsys):
    before = (run / "config.yaml").read_text()
    assert command("resume", f"{run}/") == 0
    assert "nothing left to do: 4 steps are done, of 4" in capsys.readouterr().out
    assert (run / "config.yaml").read_text().replace("resume: true", "resume: false") == before


def test_resume_true_of_everyones_first_try(run, command, capsys):
    assert command("train", "toy", *of(run)) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert load_checkpoint(run).step == 4


def test_a_checkpoint_can_be_chosen(run, command, capsys):
    assert command("resume", run, "--checkpoint", 2, "--lr", "0.5") == 0
    assert "resumed with: lr 0.25 -> 0.5" in capsys.readouterr().out
    assert [row["step"] for row in rows(run / "metrics.csv")] == ["1", "2", "3", "4"]
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "step-00000002.safetensors", "step-00000004.safetensors", "step-00000004.safetensors.set-aside",
    }  # fmt: skip
    assert read_options(run / "config.yaml")["checkpoint"] is None
    assert load_checkpoint(run).config["checkpoint"] is None


def test_a_checkpoint_that_is_not_there(run, command, capsys):
    before = sorted(path.name for path in run.rglob("*"))
    assert command("resume", run, "--checkpoint", 3) == 1
    output = capsys.readouterr().err
    assert f"no checkpoint of step 3 in {run / 'checkpoints'}; there are: 2, 4" in output
    assert sorted(path.name for path in run.rglob("*")) == before


def test_a_checkpoint_is_chosen_once(run):
    with pytest.raises(ValueError, match="checkpoint 2 needs --resume true, got 'auto'"):
        parse(*of(run, "auto"), "--checkpoint", 2)
    with pytest.raises(ValueError, match="checkpoint 2 needs --resume true, got False"):
        parse("--checkpoint", 2)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--num_steps", "3"]])
def test_resume_without_a_run_tells_its_use(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["resume", *arguments])
    out, err = capsys.readouterr()
    if arguments == ["--help"]:
        assert left.value.code == 0 and "usage: fastgan resume RUN" in out
    else:
        assert left.value.code == 2 and "RUN" in err


def test_resume_of_no_run(tmp_path, capsys):
    assert cli.main(["resume", str(tmp_path / "nothing")]) == 1
    assert f"no run to resume in {tmp_path / 'nothing'}" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_a_run_of_another_recipe_is_named(run):
    with pytest.raises(ValueError, match="holds a run of the recipe 'toy', not of 'dcgan'"):
        parse_config(ToyConfig, Toy.presets, [str(a) for a in of(run)], "fastgan train dcgan", "dcgan")


# --- starts that fail -------------------------------------------------------------------------------------


def fails(self, config, runtime):
    raise ValueError("train_path must name a folder")


@pytest.mark.parametrize("there", ["nothing", "runs", "folder", "files"])
def test_a_start_that_fails_leaves_nothing_behind(there, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "run"
    if there != "nothing":
        (folder.parent if there == "runs" else folder).mkdir(parents=True)
    if there == "files":
        (folder / "notes.txt").write_text("mine")
    if there == "runs":
        (folder.parent / "another").mkdir()
    monkeypatch.setattr(Toy, "__init__", fails)
    with pytest.raises(ValueError, match="train_path"):
        train(Toy, toy_config(folder.parent, 4, 1))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} - {"runs/run/.lock"}
    remaining = {"runs/run", "runs/run/notes.txt", "runs/run/checkpoints", "runs/run/samples"}
    assert left == {
        "nothing": set(), "runs": {"runs", "runs/another"}, "folder": {"runs", "runs/run"},
        "files": {"runs", *remaining},
    }[there]  # fmt: skip


def test_a_lock_that_was_removed_while_one_waited_is_taken_anew(tmp_path):
    from fastgan._folder_lock import NAME
    from fastgan.training.run_lock import run_lock

    folder, took = tmp_path / "run", []

    def waits():
        with run_lock(folder):
            took.append((folder / NAME).exists())

    thread = threading.Thread(target=waits)
    with run_lock(folder) as lock:
        lock.holder.held = False  # about to end
        lock._write()
        thread.start()
        time.sleep(0.3)
    thread.join()
    assert took == [True]


def test_options_in_a_crafted_checkpoint_are_one_error(run):
    (run / "config.yaml").unlink()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    path = run / "checkpoints" / "step-00000002.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"recipe": "toy", "config": "[1, 2]"})
    with pytest.raises(ValueError, match=r"step-00000002\.safetensors must hold options"):
        parse(*of(run))
