"""Checkpoints are written behind the training, one at a time, and no failure of a write is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgan.training import checkpoint, checkpoint_writer
from fastgan.training.checkpoint import load_checkpoint, state_tensors
from fastgan.training.checkpoint_files import checkpoint_files, checkpoint_path
from fastgan.training.checkpoint_writer import CheckpointWriter
from fastgan.training.loop import train
from fastgan.training.processes import children
from fastgan.training.processes.runtime import Runtime
from tests.conftest import DEVICES
from tests.training.toy import Toy, ToyConfig, toy_config

LONG = 60.0  # seconds, after which a test fails


class Gate:
    """Holds back each write until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        write = checkpoint.write_weights

        def waits(*arguments):
            assert self.opened.wait(LONG), "nobody has opened the gate"
            write(*arguments)

        monkeypatch.setattr(checkpoint, "write_weights", waits)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


def trained(folder: Path, device: str = "cpu") -> Toy:
    config = ToyConfig(runs_path=str(folder), exp_name="run", accelerator=device, ema_decay=0.9)
    recipe = Toy(config, Runtime(config))
    (folder / "checkpoints").mkdir()
    step(recipe)
    return recipe


def step(recipe: Toy) -> None:
    generator = torch.Generator(recipe.runtime.device)
    recipe.train_step(next(recipe.batches(0)), 0, generator)


@pytest.mark.parametrize("device", DEVICES)
def test_steps_after_a_save_do_not_reach_its_file(tmp_path, gate, device):
    recipe = trained(tmp_path, device)
    expected = {name: tensor.cpu().clone() for name, tensor in state_tensors(recipe).items()}
    with CheckpointWriter(tmp_path, keep=3) as writer:
        path = writer.save(recipe, 1)
        step(recipe)
        for optimizer in recipe.optimizers.values():
            optimizer.param_groups[0]["lr"] = 9.0
        assert not path.exists()
        gate.opened.set()
    loaded, written = load_checkpoint(path), load_file(path)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert loaded.step == 1 and loaded.state == {"steps_seen": 1}
    assert loaded.optimizers["generator"]["param_groups"][0]["lr"] == recipe.config.lr
    after = state_tensors(recipe)["networks/generator/0.weight"].cpu()
    assert not torch.equal(after, expected["networks/generator/0.weight"])


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path, gate, monkeypatch):
    config = toy_config(tmp_path, num_steps=8, log_interval=1)
    step_of = Toy.train_step

    def opens(self, batch, step, generator):
        if step == 6:  # after the checkpoint of step 4
            gate.opened.set()
        return step_of(self, batch, step, generator)

    monkeypatch.setattr(Toy, "train_step", opens)
    folder = train(Toy, config)
    assert [load_checkpoint(path).step for path in checkpoint_files(folder / "checkpoints")] == [4, 8]
    assert load_checkpoint(checkpoint_path(folder / "checkpoints", 4)).state == {"steps_seen": 4}


def test_a_save_waits_for_the_write_before_it(tmp_path, gate):
    recipe, saved = trained(tmp_path), threading.Event()
    expected = {}
    with CheckpointWriter(tmp_path, keep=3) as writer:
        expected[1] = {name: tensor.clone() for name, tensor in state_tensors(recipe).items()}
        places = {writer.save(recipe, 1): 1}
        step(recipe)
        expected[2] = {name: tensor.clone() for name, tensor in state_tensors(recipe).items()}

        def save():
            places[writer.save(recipe, 2)] = 2
            saved.set()

        second = threading.Thread(target=save)
        second.start()
        assert not saved.wait(0.2)
        gate.opened.set()
        second.join(LONG)
    for path, number in places.items():
        written = load_file(path)
        assert all(torch.equal(written[name], expected[number][name]) for name in written)


def test_copies_are_made_in_the_same_memory(tmp_path, monkeypatch):
    recipe, states = trained(tmp_path), []

    def write(state, folder, keep):
        states.append((state.step, {name: copy.data_ptr() for name, copy in state.tensors.items()}))

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", write)
    with CheckpointWriter(tmp_path, keep=3) as writer:
        for number in range(5):
            writer.save(recipe, number)
    assert [number for number, _ in states] == [*range(5)]
    assert all(places == states[0][1] for _, places in states)


def test_what_is_being_written_counts_as_the_newest(tmp_path, gate):
    recipe = trained(tmp_path)
    with CheckpointWriter(tmp_path, keep=3) as writer:
        assert writer.newest() is None
        path = writer.save(recipe, 1)
        threading.Timer(0.1, gate.opened.set).start()
        assert writer.newest() == path


def test_older_checkpoints_go_only_after_the_newer_one_is_there(tmp_path, gate):
    recipe = trained(tmp_path)
    gate.opened.set()
    with CheckpointWriter(tmp_path, keep=1) as writer:
        first = writer.save(recipe, 1)
        writer.wait()
        gate.opened.clear()
        second = writer.save(recipe, 2)
        assert checkpoint_files(first.parent) == [first]
        gate.opened.set()
    assert checkpoint_files(first.parent) == [second]


def test_a_process_that_another_one_ends_finishes_its_checkpoint(tmp_path, gate, monkeypatch):
    recipe, ended = trained(tmp_path), []
    with CheckpointWriter(tmp_path, keep=3) as writer:
        path = writer.save(recipe, 1)
        monkeypatch.setattr(children, "end_at_once", lambda code: ended.append((code, path.exists())))
        threading.Timer(0.1, gate.opened.set).start()
        children.leave("rank 1: its process died")
    assert ended == [(1, True)]
    assert children.BEFORE_LEAVING == []


# --- failures -----------------------------------------------------------------------------------------------


def fails(*arguments):
    raise OSError(28, "No space left on device")


FULL = r"could not write .*step-00000001.safetensors: \[Errno 28\] No space left on device"


@pytest.mark.parametrize("call", ["save", "wait", "check", "end"])
def test_a_failed_write_is_raised_once(tmp_path, monkeypatch, call):
    recipe = trained(tmp_path)
    monkeypatch.setattr("fastgan.training.weights.save_file", fails)
    with pytest.raises(OSError, match=FULL), CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(recipe, 1)
        assert writer.newest() is None  # it has failed by now
        if call != "end":
            with pytest.raises(OSError, match=FULL):
                writer.save(recipe, 2) if call == "save" else getattr(writer, call)()
            writer.check(), writer.wait()
            writer.save(recipe, 1)


def test_a_state_that_is_not_finite_is_not_written(tmp_path):
    recipe = trained(tmp_path)
    recipe.discriminator.bias.data.fill_(float("nan"))
    message = "^networks/discriminator/bias became NaN or infinite by step 1"
    with pytest.raises(FloatingPointError, match=message), CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(recipe, 1)
    assert checkpoint_files(tmp_path / "checkpoints") == []


def test_another_error_waits_for_the_write_and_is_not_hidden_by_its_failure(tmp_path, gate, monkeypatch):
    recipe, said = trained(tmp_path), []
    with pytest.raises(ZeroDivisionError), CheckpointWriter(tmp_path, keep=1, say=said.append) as writer:
        path = writer.save(recipe, 1)
        threading.Timer(0.1, gate.opened.set).start()
        raise ZeroDivisionError
    assert path.exists() and said == []
    path.unlink()
    monkeypatch.setattr("fastgan.training.weights.save_file", fails)
    with pytest.raises(ZeroDivisionError), CheckpointWriter(tmp_path, keep=1, say=said.append) as writer:
        writer.save(recipe, 1)
        raise ZeroDivisionError
    assert len(said) == 1 and "No space left on device" in said[0]


@pytest.mark.parametrize("end", ["leave", "interrupt"])
def test_a_write_that_fails_while_a_process_ends_is_told(tmp_path, gate, monkeypatch, end):
    recipe, said = trained(tmp_path), []
    monkeypatch.setattr("fastgan.training.weights.save_file", fails)
    monkeypatch.setattr(children, "end_at_once", lambda code: None)
    with pytest.raises(KeyboardInterrupt), CheckpointWriter(tmp_path, keep=1, say=said.append) as writer:
        writer.save(recipe, 1)
        if end == "leave":
            gate.opened.set()
            children.leave("rank 1: its process died")
        else:

            def interrupted():
                gate.opened.set()
                raise KeyboardInterrupt

            monkeypatch.setattr(writer, "wait", interrupted)
        raise KeyboardInterrupt
    assert len(said) == 1 and "No space left on device" in said[0]


def test_nothing_is_written_to_a_folder_that_is_another_runs_by_now(tmp_path):
    recipe = trained(tmp_path)

    def check():
        raise RuntimeError("another run has the folder")

    with (
        pytest.raises(RuntimeError, match="another run"),
        CheckpointWriter(tmp_path, keep=1, check_folder=check) as writer,
    ):
        writer.save(recipe, 1)
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


def test_a_run_ends_with_the_error_of_a_write_behind_it(tmp_path, monkeypatch):
    config = toy_config(tmp_path, num_steps=20, log_interval=1)
    steps, failed = [], threading.Event()
    step_of = Toy.train_step

    def counts(self, batch, step, generator):
        steps.append(step)
        if step == 11:
            assert failed.wait(LONG)
        return step_of(self, batch, step, generator)

    def fails_behind(*arguments):
        failed.set()
        fails()

    monkeypatch.setattr(Toy, "train_step", counts)
    monkeypatch.setattr("fastgan.training.weights.save_file", fails_behind)
    with pytest.raises(OSError, match=FULL.replace("00000001", "00000010")):
        train(Toy, config)
    assert 10 <= steps[-1] < 19, "it does not wait for the next checkpoint"
    assert checkpoint_files(config.folder / "checkpoints") == []
