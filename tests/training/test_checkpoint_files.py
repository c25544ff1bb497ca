"""Checkpoint files: damage is detected, an older one is used instead, and permissions are the usual ones."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import stat
import struct
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastgan.training import checkpoint as checkpoints
from fastgan.training.checkpoint import (
    checkpoint_files,
    checkpoint_path,
    load_checkpoint,
    read_weights,
    write_weights,
)
from fastgan.training.loop import train
from tests.training.toy import Toy, ToyConfig


@pytest.fixture
def config(tmp_path):
    return ToyConfig(
        runs_path=str(tmp_path), exp_name="run", num_steps=20, log_interval=5, sample_interval=10,
        eval_interval=10, checkpoint_interval=5, accelerator="cpu", ema_decay=0.9,
    )  # fmt: skip


@pytest.fixture
def folder(config):
    return train(Toy, config) / "checkpoints"


def flip(path, first, end, seed):
    """Flips one bit of the bytes from `first` on."""
    data = bytearray(path.read_bytes())
    random_ = random.Random(seed)
    data[random_.randrange(first, end or len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


def header_end(path):
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "first weight": lambda path: flip(path, header_end(path), header_end(path) + 1, 0),
    "last weight": lambda path: flip(path, path.stat().st_size - 1, None, 0),
    **{f"bit {seed} of the tensors": lambda p, s=seed: flip(p, header_end(p), None, s) for seed in range(5)},
    **{f"bit {seed} of the header": lambda p, s=seed: flip(p, 0, header_end(p), s) for seed in range(15)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(folder, damage):
    newest, older = checkpoint_path(folder, 20), checkpoint_path(folder, 15)
    DAMAGES[damage](newest)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_checkpoint(folder.parent, "toy")
    assert loaded.step == 15 and loaded.path == older
    (warning,) = caught
    assert warning.category is RuntimeWarning and warning.filename == __file__
    assert str(warning.message).startswith(str(newest))
    assert str(warning.message).endswith(f"The older checkpoint {older} is taken")
    with pytest.raises(ValueError, match=str(newest)):  # a named file is never replaced by another
        load_checkpoint(newest)


def test_what_is_damaged_is_said(folder):
    path = checkpoint_path(folder, 20)
    DAMAGES["last weight"](path)
    with pytest.raises(ValueError, match=r"not a readable checkpoint: its tensor \S+ does not match"):
        load_checkpoint(path)
    path = checkpoint_path(folder, 15)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"step":"15"', b'"step":"14"'))
    with pytest.raises(ValueError, match="its metadata does not match its checksum"):
        load_checkpoint(path)


def test_without_any_whole_checkpoint_all_are_named(folder):
    for step in (15, 20):
        DAMAGES["cut"](checkpoint_path(folder, step))
    with pytest.raises(ValueError, match=r"none of 2 checkpoints .* can be used: .*-00000020.*-00000015"):
        load_checkpoint(folder)


def test_a_run_goes_on_from_the_older_checkpoint_to_the_same_end(config, folder):
    intact = folder / "whole"  # a copy, because loaded tensors stay mapped to their file
    shutil.copy(checkpoint_path(folder, 20), intact)
    expected = load_file(intact)
    DAMAGES["last weight"](checkpoint_path(folder, 20))
    with pytest.warns(RuntimeWarning, match="The older checkpoint"):
        train(Toy, ToyConfig(**{**config.__dict__, "resume": True, "keep_checkpoints": 1}))
    resumed = load_file(checkpoint_path(folder, 20))
    assert resumed.keys() == expected.keys()
    for key in expected:
        assert torch.equal(resumed[key], expected[key]), key
    assert sorted(path.name for path in folder.iterdir()) == [
        "step-00000020.safetensors", "step-00000020.safetensors.damaged", "whole"
    ]  # fmt: skip


def test_a_damaged_newer_checkpoint_never_costs_the_one_just_saved(config, folder):
    checkpoint_path(folder, 20).rename(checkpoint_path(folder, 99))
    from fastgan.training.processes.runtime import Runtime

    checkpoints.write_checkpoint(checkpoints.state_of(Toy(config, Runtime(config)), 16), folder, keep=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "step-00000016.safetensors", "step-00000099.safetensors"
    ]  # fmt: skip


def test_a_checkpoint_with_nan_of_an_older_version_is_passed_over(folder):
    path = checkpoint_path(folder, 20)
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if not k.startswith("crc32")}
    save_file(load_file(path) | {"networks/discriminator/bias": torch.tensor([float("nan")])}, path, metadata)
    with pytest.warns(RuntimeWarning, match="of no use: networks/discriminator/bias is NaN or infinite"):
        assert load_checkpoint(folder).step == 15


def test_checkpoints_of_older_versions_have_no_checksums_and_are_read(folder):
    path = checkpoint_path(folder, 20)
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if not k.startswith("crc32")}
    save_file(load_file(path), path, metadata)
    assert load_checkpoint(path).step == 20


def test_another_recipes_newest_checkpoint_is_an_error_and_no_damage(folder):
    with pytest.raises(ValueError, match="-00000020.* is a checkpoint of the recipe 'toy', not of 'dcgan'"):
        load_checkpoint(folder, "dcgan")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENOENT])
def test_a_checkpoint_that_cannot_be_read_is_an_error_and_no_damage(config, folder, monkeypatch, number):
    newest = checkpoint_path(folder, 20)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    open_of = Path.open

    def fails(path, *arguments, **options):
        if path == newest:
            raise OSError(number, os.strerror(number), str(path))
        return open_of(path, *arguments, **options)

    for resume in (True, "auto"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(OSError, match=f"could not read {newest}: ") as error,
        ):
            patch.setattr(Path, "open", fails)
            train(Toy, ToyConfig(**{**config.__dict__, "resume": resume}))
        assert os.strerror(number) in str(error.value)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert load_checkpoint(folder).step == 20


def test_a_folder_that_cannot_be_read_is_an_error_and_not_empty(config, folder, monkeypatch):
    def fails(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr("fastgan.training.checkpoint_files.os.listdir", fails)
    with pytest.raises(OSError, match=f"Stale file handle: '{folder}'"):
        train(Toy, ToyConfig(**{**config.__dict__, "resume": "auto"}))


def test_a_checkpoint_of_a_later_format_is_an_error_and_no_damage(config, folder):
    newest = checkpoint_path(folder, 20)
    metadata, tensors = read_weights(newest)
    write_weights(newest, tensors, {**metadata, "format": "fastgan-checkpoint-2"})
    names = sorted(folder.iterdir())
    with pytest.raises(ValueError, match=f"{newest} has the format 'fastgan-checkpoint-2', which this"):
        train(Toy, ToyConfig(**{**config.__dict__, "resume": True}))
    assert sorted(folder.iterdir()) == names


def test_the_newest_is_the_one_of_the_latest_step(folder):
    checkpoint_path(folder, 15).rename(checkpoint_path(folder, 100_000_000))
    (folder / "step-999999999999.safetensors").mkdir()
    (folder / "step-new.safetensors").write_bytes(b"")
    assert checkpoint_files(folder)[-1] == checkpoint_path(folder, 100_000_000)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8]
)
def test_weights_come_back_with_their_checksums_checked(tmp_path, dtype):
    tensors = {"a": torch.ones(3, 2, dtype=dtype).t(), "b": torch.ones((), dtype=dtype), "c": torch.empty(0)}
    path = tmp_path / "x.safetensors"
    write_weights(path, tensors, {"made": "here"})
    metadata, loaded = read_weights(path)
    assert metadata["made"] == "here" and json.loads(metadata["crc32"]).keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)
    assert list(tmp_path.iterdir()) == [path]
    flip(path, header_end(path), None, seed=1)
    with pytest.raises(ValueError, match=r"x.safetensors is not a readable .* file: its tensor [ab] does"):
        read_weights(path)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_everything_a_run_writes_follows_the_umask(config, umask):
    before = os.umask(umask)
    try:
        folder = train(Toy, config)
        from fastgan.training.report import write_report

        write_report(folder, "toy")
    finally:
        os.umask(before)
    modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert len(modes) > 10
    for path, mode in modes.items():
        assert mode == ((0o777 if (folder / path).is_dir() else 0o666) & ~umask), path


def test_what_a_killed_process_left_is_swept_away(config, folder):
    begun = folder / "step-00000003.safetensors.incomplete"
    begun.mkdir()
    (begun / ".tmpAbCdEf").write_bytes(b"half")
    train(Toy, ToyConfig(**{**config.__dict__, "resume": True, "num_steps": 25}))
    assert sorted(path.name for path in folder.iterdir()) == [
        "step-00000020.safetensors", "step-00000025.safetensors"
    ]  # fmt: skip
