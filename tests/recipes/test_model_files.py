"""Files of trained models: dtypes, places, damage, a run that is still writing; what loading leaves alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import fastgan
from fastgan.recipes import RECIPES
from fastgan.training import checkpoint as checkpoints
from fastgan.training.config import to_plain
from fastgan.training.export import export
from fastgan.training.model_files import FORMAT
from fastgan.training.weights import write_weights
from tests.recipes.models import untrained
from tests.recipes.test_commands_input import checkpoint

NAMES = {
    "size": 32, "pixels": 20, "baseline": 24,
    "categories": [{"name": "plain", "path": "/a.ttf"}, {"name": "bold", "path": "/b.ttf"}],
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """The folder of a run of zi2zi with one checkpoint, and the names of its fonts beside."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint("zi2zi", folder / "checkpoints" / "step-00000001.safetensors")
    (folder / "glyphs.json").write_text(json.dumps(NAMES))
    return folder


# --- dtypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", RECIPES)
def test_a_model_is_loaded_in_the_dtype_of_its_file(name, dtype, tmp_path):
    model = untrained(name).to(dtype)
    if dtype == torch.float64:  # with digits that float32 would lose
        for weights in model.parameters():
            weights.mul_(1 + 1e-10)
    model.save(tmp_path / "x.safetensors")
    loaded = fastgan.load(tmp_path / "x.safetensors")
    assert loaded.dtype == dtype
    for key, weights in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weights), key
        assert loaded.state_dict()[key].dtype == weights.dtype, key
    assert fastgan.load(tmp_path / "x.safetensors", dtype=torch.float32).dtype == torch.float32


def test_torch_s_default_dtype_and_device_do_not_count(tmp_path):
    untrained("starganv2").save(tmp_path / "x.safetensors")
    images = torch.rand(2, 3, 16, 16)
    expected = fastgan.load(tmp_path / "x.safetensors").translate(images, "b", seed=1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            model = fastgan.load(tmp_path / "x.safetensors")
            assert (model.device.type, model.dtype) == ("cpu", torch.float32)
            actual = model.translate(images, "b", seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(actual, expected)


def test_a_file_of_mixed_dtypes_is_loaded_in_float32(tmp_path):
    model, key = untrained("dcgan"), "generator.layers.0.weight"
    weights = model.state_dict()
    metadata = {"format": FORMAT, "recipe": "dcgan", "config": json.dumps(to_plain(model.config))}
    write_weights(tmp_path / "mixed.safetensors", {**weights, key: weights[key].half()}, metadata)
    assert {w.dtype for w in fastgan.load(tmp_path / "mixed.safetensors").parameters()} == {torch.float32}


# --- what loading and use leave alone -----------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_loading_draws_no_random_numbers_of_the_user_s(name, tmp_path):
    untrained(name).save(tmp_path / "x.safetensors")
    before = torch.get_rng_state()
    fastgan.load(tmp_path / "x.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_loaded_in_inference_mode_can_be_trained_and_saved(tmp_path):
    untrained("dcgan").save(tmp_path / "x.safetensors")
    # In a process of its own, whose imports also happen in inference mode.
    code = """
import torch, fastgan
with torch.inference_mode():
    model = fastgan.load("x.safetensors")
    images = model.generate(2)
model.save("y.safetensors")
z = torch.randn(2, 4)
model.requires_grad_(True).generator(z).sum().backward()
print(torch.equal(fastgan.load("y.safetensors").generate(2), images))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


# --- places -----------------------------------------------------------------------------------------------


def test_the_names_of_fonts_are_found_from_any_folder(run, tmp_path, monkeypatch):
    (tmp_path / "best.safetensors").symlink_to(run / "checkpoints" / "step-00000001.safetensors")
    monkeypatch.chdir(run / "checkpoints")
    for path in ("step-00000001.safetensors", ".", "..", tmp_path / "best.safetensors"):
        assert fastgan.load(path).categories == ["plain", "bold"], path
    # A folder of checkpoints may be a link to another disk.
    shutil.move(run / "checkpoints", tmp_path / "disk")
    (run / "checkpoints").symlink_to(tmp_path / "disk")
    assert fastgan.load(run).categories == ["plain", "bold"]


# --- damage -----------------------------------------------------------------------------------------------


def test_without_an_intact_checkpoint_the_run_s_model_is_taken_with_a_warning(run):
    (path,) = (run / "checkpoints").iterdir()
    expected = fastgan.load(run)
    expected.save(run / "model.safetensors")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.warns(RuntimeWarning, match=r"step-00000001.*model.safetensors is taken"):
        loaded = fastgan.load(run)
    assert all(torch.equal(loaded.state_dict()[key], w) for key, w in expected.state_dict().items())
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="none of 1 checkpoints in .* can be used: .*step-00000001"):
        fastgan.load(run)


def test_a_checkpoint_that_the_run_removes_meanwhile_is_no_error(run, monkeypatch):
    (old,) = (run / "checkpoints").iterdir()
    read = checkpoints.read_tensors

    def read_late(path, kind):
        if path == old and old.exists():  # the run goes on between the look into the folder and the read
            checkpoint("zi2zi", run / "checkpoints" / "step-00000001.safetensors")
            newer = checkpoint("zi2zi", run / "checkpoints" / "step-00000002.safetensors")
            weights = load_file(newer)
            metadata = {
                "format": checkpoints.FORMAT, "recipe": "zi2zi", "step": "2", "state": "{}",
                "param_groups": "{}", "config": json.dumps(to_plain(untrained("zi2zi").config)),
            }  # fmt: skip
            write_weights(newer, weights, metadata)
            old.unlink()
        return read(path, kind)

    monkeypatch.setattr(checkpoints, "read_tensors", read_late)
    assert checkpoints.load_checkpoint(run).step == 2
    assert fastgan.load(run).categories == ["plain", "bold"]


def test_a_file_without_a_known_recipe_is_named(tmp_path):
    for recipe, message in (
        ({}, "its metadata has no 'recipe'"),
        ({"recipe": "pix"}, "there is no recipe 'pix' here; there are: dcgan, "),
    ):
        metadata = {"format": FORMAT, "config": "{}", **recipe}
        write_weights(tmp_path / "x.safetensors", {"x": torch.ones(1)}, metadata)
        with pytest.raises(ValueError, match=rf"x\.safetensors .*: {message}"):
            fastgan.load(tmp_path / "x.safetensors")


# --- export -----------------------------------------------------------------------------------------------


def test_an_export_never_replaces_what_it_reads(run, capsys):
    from fastgan.cli import main

    (path,) = (run / "checkpoints").iterdir()
    before = path.read_bytes()
    link = run.parent / "link.safetensors"
    link.symlink_to(path)
    for source, output in ((run, path), (path, path), (link, path)):
        assert main(["export", str(source), "--output", str(output), "--overwrite"]) == 1
        assert f"{path} is a trained model to export: name another --output" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_folder_is_not_overwritten_by_an_export(tmp_path):
    (tmp_path / "x.pt2").mkdir()
    with pytest.raises(FileExistsError, match=r"x\.pt2 is a folder: give another output"):
        export(untrained("dcgan"), tmp_path / "x.pt2", "pt2", overwrite=True)
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(FileExistsError, match=r"x\.safetensors is a folder: give another path"):
        untrained("dcgan").save(tmp_path / "x.safetensors", overwrite=True)
