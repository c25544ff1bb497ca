"""`fastgan export`: files that compute what the networks do; models on the Hub, which is a folder here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

import fastgan
from fastgan.cli import main
from fastgan.recipes import RECIPES
from fastgan.recipes.dcgan.model import DCGANModel
from fastgan.recipes.stegastamp.model import StegaStampModel
from fastgan.training import export as exporting
from fastgan.training.model import Model
from tests.recipes.models import untrained

FORMATS = ("safetensors", "onnx", "pt2")
FILES = {
    "dcgan": ("x",),
    "stegastamp": ("x-encoder", "x-decoder"),
    "enhancenet": ("x",),
    "zi2zi": ("x",),
    "starganv2": ("x-generator", "x-mapping_network", "x-style_encoder"),
}


@pytest.fixture
def saved(tmp_path):
    """Makes a model's file of a recipe."""

    def save(name):
        untrained(name).save(tmp_path / f"{name}.safetensors", overwrite=True)
        return tmp_path / f"{name}.safetensors"

    return save


def needs(form):
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_format_of_every_recipe(name, form, saved, tmp_path, capsys):
    needs(form)
    model = fastgan.load(saved(name))
    output = tmp_path / "out" / f"x.{form}"
    assert main(["export", str(saved(name)), "--output", str(output)]) == 0
    names = ("x",) if form == "safetensors" else FILES[name]
    expected = [output.with_name(f"{each}.{form}") for each in names]
    assert capsys.readouterr().out.split() == [str(path) for path in expected]
    assert sorted(output.parent.iterdir()) == sorted(expected)
    if form == "safetensors":
        weights = fastgan.load(output).state_dict()
        assert all(torch.equal(weights[key], w) for key, w in model.state_dict().items())
        return
    for path, exported in zip(expected, model.exported().values(), strict=True):
        inputs = exported.inputs(5)
        with torch.no_grad():
            wanted = exported.network(**inputs)
        if form == "pt2":
            about = {exporting.ABOUT: ""}
            program = torch.export.load(path, extra_files=about)
            assert json.loads(about[exporting.ABOUT])["recipe"] == name
            assert not [node for node in program.graph.nodes if "fastgan" in str(node.target)]
            actual = program.module()(**inputs)
        else:
            import onnx
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            assert [each.name for each in session.get_inputs()] == list(inputs)
            assert [each.name for each in session.get_outputs()] == [exported.output]
            properties = {each.key: each.value for each in onnx.load(path).metadata_props}
            assert properties["fastgan.recipe"] == name and "z_dim" not in properties["fastgan"]
            actual = torch.from_numpy(session.run(None, {key: x.numpy() for key, x in inputs.items()})[0])
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_self_attention_is_exported(form, tmp_path):
    needs(form)
    model = untrained("zi2zi", self_attention=True)
    torch.nn.init.ones_(model.generator.attention.gamma)
    assert exporting.export(model, tmp_path / f"x.{form}", form) == [tmp_path / f"x.{form}"]


def test_a_pt2_runs_without_fastgan(saved, tmp_path):
    assert main(["export", str(saved("starganv2")), "--output", str(tmp_path / "x.pt2")]) == 0
    code = "import sys, torch; m = torch.export.load('x-generator.pt2').module(); "
    code += "print(m(image=torch.rand(1, 3, 16, 16), style=torch.rand(1, 4)).shape, 'fastgan' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["torch.Size([1,", "3,", "16,", "16])", "False"], done.stderr


def test_what_differs_is_not_written(saved, tmp_path, monkeypatch, capsys):
    def doubled(model, exported, file):
        file.write_bytes(b"wrong")
        return lambda inputs: exported.network(**inputs) * 2

    monkeypatch.setattr(exporting, "_write_pt2", doubled)
    output = tmp_path / "out" / "x.pt2"
    assert main(["export", str(saved("dcgan")), "--output", str(output)]) == 1
    assert "the exported generator differs by" in capsys.readouterr().err
    assert not list(output.parent.iterdir())


def test_bad_arguments(saved, tmp_path, capsys):
    path = saved("stegastamp")
    for arguments, message in (
        (
            ["--output", "x.pt"],
            "--format, or what FILE ends in, must be one of safetensors, onnx, pt2, got 'pt'",
        ),
        (["--output", "x.onnx", "--format", "pt2"], "--output must end in .pt2, got x.onnx"),
        (
            ["--output", str(tmp_path / "x.pt2")],
            "x-decoder.pt2 is there already: replace with --overwrite, or",
        ),
    ):
        (tmp_path / "x-decoder.pt2").write_bytes(b"mine")
        assert main(["export", str(path), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "x-decoder.pt2").read_bytes() == b"mine" and not (tmp_path / "x-encoder.pt2").exists()
    assert main(["export", "nowhere", "--output", str(tmp_path / "y.pt2")]) == 1
    assert "no checkpoint at nowhere" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match="model must be on the CPU in torch.float32, got cpu and torch.float64"
    ):
        exporting.export(untrained("dcgan").double(), tmp_path / "z.pt2", "pt2")


def test_a_missing_extra_is_named(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(saved("dcgan")), "--output", str(tmp_path / "x.onnx")]) == 1
    assert (
        "fastgan export needs onnx, which is not installed: pip install '.[onnx]'" in capsys.readouterr().err
    )


# --- the Hub ----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in place of the Hub, by its functions that reach the network."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from fastgan.training import hub as ours

    def create_repo(self, repo_id, **options):
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self, repo_id, folder_path, **options):
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}"

    def download(repo_id, filename, **options):
        return str(tmp_path / repo_id / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", download)
    monkeypatch.setattr(ours, "hf_hub_download", download)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_models_go_to_the_hub_and_come_back(hub, name):
    model = untrained(name)
    model.push_to_hub("me/mine", private=True)
    assert {path.name for path in (hub / "me" / "mine").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    config = json.loads((hub / "me" / "mine" / "config.json").read_text())
    assert config["recipe"] == name and config["options"]["train_path"] == ""
    for back in (
        Model.from_pretrained("me/mine"),
        type(model).from_pretrained("me/mine"),
        Model.from_pretrained(hub / "me" / "mine"),
        fastgan.load(hub / "me" / "mine"),
    ):
        assert type(back) is type(model) and back.config == model.config
        assert all(torch.equal(back.state_dict()[key], w) for key, w in model.state_dict().items())
    assert Model.from_pretrained("me/mine", dtype=torch.float64).dtype == torch.float64


def test_a_folder_of_the_hub_is_not_written_over(hub):
    model = untrained("dcgan")
    model.save_pretrained(hub / "folder")
    before = (hub / "folder" / "config.json").read_text()
    with pytest.raises(FileExistsError, match="model.safetensors is there already"):
        untrained("stegastamp").save_pretrained(hub / "folder")
    assert (hub / "folder" / "config.json").read_text() == before
    with pytest.raises(ValueError, match="is a model of the recipe 'dcgan', not of 'stegastamp'"):
        StegaStampModel.from_pretrained(hub / "folder")
    (hub / "folder" / "config.json").write_text("{")  # which is for the Hub's pages alone
    assert type(Model.from_pretrained(hub / "folder", revision="main")) is DCGANModel
    (hub / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in"):
        DCGANModel.from_pretrained(hub / "empty")
    for name, error, message in (
        (hub / "nowhere", FileNotFoundError, "nowhere is no folder$"),
        (str(hub / "nowhere"), FileNotFoundError, "nowhere is no folder$"),
        ("./nowhere", FileNotFoundError, "nowhere is no folder$"),
        (
            hub / "folder" / "model.safetensors",
            FileNotFoundError,
            "model.safetensors is no folder, but a file: fastgan.load reads it",
        ),
        (3, TypeError, "name must be a folder, or 'user/name', got int 3"),
    ):
        with pytest.raises(error, match=message):
            Model.from_pretrained(name)
    with pytest.raises(TypeError, match="unexpected keyword argument 'revison'"):
        Model.from_pretrained(hub / "folder", revison="main")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "fastgan.training.hub", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"need huggingface_hub: pip install '.\[hub\]'"):
        untrained("dcgan").push_to_hub("me/mine")
