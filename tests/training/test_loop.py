"""The shared loop: bit-exact resume, no waiting for the device, clean stops, clear errors."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan._files import naming
from fastgan.training import checkpoint as checkpoints
from fastgan.training import run_folder
from fastgan.training import weights as weights_files
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.loop import Interrupted, step_seed, train
from fastgan.training.statistics import Statistics, report

from .toy import Toy, rows, toy_config


@pytest.fixture
def config(tmp_path):
    return toy_config(tmp_path, num_steps=20, log_interval=5)


def test_a_run_is_a_folder(config):
    folder = train(Toy, config)
    assert (folder / "config.yaml").exists()
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["5", "10", "15", "20"]
    assert [row["step"] for row in rows(folder / "evaluation.csv")] == ["10", "20"]
    assert [path.name for path in sorted((folder / "samples").glob("*.png"))] == [
        "step-00000010.png", "step-00000020.png"
    ]  # fmt: skip
    assert len(list(folder.glob("events.out.tfevents*"))) == 1
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_resume_is_bit_exact(config, tmp_path):
    uninterrupted = load_checkpoint(train(Toy, config))
    first = dataclasses.replace(config, exp_name="parts", num_steps=10)
    train(Toy, first)
    folder = train(Toy, dataclasses.replace(first, num_steps=20, resume=True))
    parts = load_checkpoint(folder)
    assert parts.step == uninterrupted.step == 20
    assert parts.state == uninterrupted.state == {"steps_seen": 20}
    a, b = load_file(uninterrupted.path), load_file(parts.path)
    assert a.keys() == b.keys() and len(a) > 20
    for key in a:
        assert torch.equal(a[key], b[key]), key
    expected = rows(tmp_path / "run" / "metrics.csv")
    for actual, required in zip(rows(folder / "metrics.csv"), expected, strict=True):
        for row in (actual, required):
            assert float(row.pop("images_per_second")) * float(row.pop("seconds_per_step")) > 0
        assert actual == required


def test_resume_drops_rows_that_will_be_written_again(config):
    folder = train(Toy, config)
    checkpoints.checkpoint_path(folder / "checkpoints", 20).unlink()
    train(Toy, dataclasses.replace(config, resume=True))
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["5", "10", "15", "20"]


class HostReads(TorchDispatchMode):
    """Counts operations that wait for the device: .item(), .tolist(), bool(), copies to the CPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function) or "is_nonzero" in str(function):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_loop_reads_the_device_only_at_log_lines(config, monkeypatch):
    config = dataclasses.replace(config, log_interval=20, sample_interval=20, eval_interval=20)
    counts = []
    take = Statistics.take

    def at_log_line(self, *args):
        counts.append((len(self._values["loss_g"]), list(mode.names)))
        return take(self, *args)

    monkeypatch.setattr(Statistics, "take", at_log_line)
    with HostReads() as mode:
        train(Toy, config)
    assert counts[0][0] == 20
    # torch.optim.Adam without capturable reads its CPU step counters; nothing else may read.
    from_optimizers = 20 * sum(1 for _ in "weight bias" for _ in range(2)) + 20 * 2
    assert len(counts[0][1]) <= from_optimizers


def test_ctrl_c_finishes_the_step_saves_and_can_be_resumed(config, monkeypatch):
    uninterrupted = load_checkpoint(train(Toy, config))
    interrupted = dataclasses.replace(config, exp_name="interrupted")
    step_of = Toy.train_step

    def interrupt_at_step_seven(self, batch, step, generator):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step_of(self, batch, step, generator)

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "train_step", interrupt_at_step_seven)
        with pytest.raises(Interrupted, match="step 8"):
            train(Toy, interrupted)
    assert load_checkpoint(interrupted.folder).step == 8
    resumed = load_checkpoint(train(Toy, dataclasses.replace(interrupted, resume=True)))
    for name, weights in uninterrupted.networks.items():
        for key in weights:
            assert torch.equal(weights[key], resumed.networks[name][key])


def test_a_run_whose_time_is_over_ends_as_after_its_last_step(config, monkeypatch):
    from fastgan.training import loop

    uninterrupted = load_checkpoint(train(Toy, config))
    config = dataclasses.replace(config, exp_name="short", max_minutes=7)
    minutes = [0]
    step_of = Toy.train_step

    def takes_a_minute(self, *arguments):
        minutes[0] += 1
        return step_of(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: 60.0 * minutes[0]))
        patch.setattr(Toy, "train_step", takes_a_minute)
        folder = train(Toy, config)
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["5", "7"]
    assert [row["step"] for row in rows(folder / "evaluation.csv")] == ["7"]
    assert [path.name for path in (folder / "samples").glob("*.png")] == ["step-00000007.png"]
    assert load_checkpoint(folder).step == 7
    resumed = load_checkpoint(train(Toy, dataclasses.replace(config, resume=True, max_minutes=0)))
    for name, weights in uninterrupted.networks.items():
        for key in weights:
            assert torch.equal(weights[key], resumed.networks[name][key])


def test_nan_stops_the_run_and_names_term_and_step(config, monkeypatch):
    step_of = Toy.train_step

    def logs_nan(self, batch, step, generator):
        step_of(self, batch, step, generator)
        report("loss_d", float("nan") if step == 13 else 1.0)

    monkeypatch.setattr(Toy, "train_step", logs_nan)
    with pytest.raises(FloatingPointError, match=r"loss_d became nan within the steps before 15"):
        train(Toy, config)


def test_what_broke_is_named_rather_than_the_term_that_shows_it(config):
    with pytest.raises(FloatingPointError, match=r"networks/discriminator/\w+ became NaN .* by step 15"):
        train(Toy, dataclasses.replace(config, fail_at=14))
    assert "nan" in (config.folder / "metrics.csv").read_text()


def test_another_run_is_not_overwritten(config):
    train(Toy, config)
    with pytest.raises(FileExistsError, match="--resume true, or give this one another --exp_name"):
        train(Toy, config)


def test_an_unwritable_folder_is_an_error_at_the_start(config, tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(OSError, match=r"run's folder .* cannot be written"):
        train(Toy, config)


def test_a_full_disk_is_an_error_at_the_start(config, monkeypatch):
    monkeypatch.setattr(run_folder, "NEEDED_BYTES", 1 << 62)
    with pytest.raises(OSError, match=r"only \d+ MiB are free"):
        train(Toy, config)


def test_a_write_that_fails_names_the_file():
    with pytest.raises(OSError, match="No space left on device: 'metrics.csv'"), naming(Path("metrics.csv")):
        Path("/dev/full").write_text("x")


def test_the_thread_of_tensorboard_fails_without_a_traceback(config, monkeypatch, capsys):
    def fails(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", fails)
    with pytest.raises(OSError, match=r"No space left on device: .*events\.out\.tfevents"):
        train(Toy, config)
    assert "Traceback" not in capsys.readouterr().err


def test_a_failed_write_leaves_no_checkpoint_under_the_final_name(config, monkeypatch):
    def fills_the_disk(tensors, path, metadata):
        save_file(dict(list(tensors.items())[:1]), path, metadata)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_files, "save_file", fills_the_disk)
    with pytest.raises(OSError, match=r"could not write .*step-00000010.*No space left"):
        train(Toy, config)
    assert list((config.folder / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other recipe", "missing"])
def test_unusable_checkpoints_are_named(config, tmp_path, damage):
    path = checkpoints.checkpoint_path(train(Toy, config) / "checkpoints", 20)
    error, message, recipe = ValueError, "not a readable checkpoint", "toy"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        save_file({"a": torch.ones(1)}, path)
        message = "not a checkpoint of fastgan"
    elif damage == "other recipe":
        recipe, message = "stegastamp", "checkpoint of the recipe 'toy', not of 'stegastamp'"
    else:
        path, error, message = tmp_path / "nowhere", FileNotFoundError, "no checkpoint at"
    with pytest.raises(error, match=message):
        load_checkpoint(path, recipe)


def test_step_seeds_differ_between_steps_processes_and_runs():
    seeds = {step_seed(s, t, r) for s in range(3) for t in range(50) for r in range(3)}
    assert len(seeds) == 450
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


def test_intervals_of_zero_and_num_epochs_count_epochs(config, monkeypatch):
    build = Toy.__init__

    def with_epochs(self, config, runtime):
        build(self, config, runtime)
        self.images_per_epoch = 26  # six whole batches of four

    monkeypatch.setattr(Toy, "__init__", with_epochs)
    config = dataclasses.replace(config, num_epochs=2, log_interval=0, eval_interval=0, sample_interval=0)
    folder = train(Toy, config)
    assert [row["step"] for row in rows(folder / "metrics.csv")] == ["6", "12"]
    assert [row["step"] for row in rows(folder / "evaluation.csv")] == ["6", "12"]


def test_epochs_of_a_recipe_without_are_refused(config):
    with pytest.raises(ValueError, match="toy has no epochs"):
        train(Toy, dataclasses.replace(config, log_interval=0))


def test_warnings_of_a_recipe_are_kept_and_reported(config, monkeypatch):
    from fastgan.training.report import write_report

    monkeypatch.setattr(Toy, "watch", lambda self, step, metrics: f"<{step}>" if step == 20 else None)
    folder = train(Toy, config)
    assert rows(folder / "warnings.csv") == [{"step": "20", "warning": "<20>"}]
    assert "step 20: &lt;20&gt;" in write_report(folder, "toy").read_text()
