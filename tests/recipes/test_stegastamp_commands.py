"""`fastgan train stegastamp`, `encode` and `decode` as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fastgan.cli import main
from fastgan.recipes.stegastamp.message import message_to_bits
from fastgan.training.image_files import to_tensor
from tests.training.toy import Toy, ToyConfig


def options(photo_folder, tmp_path, *more):
    arguments = dict(
        train_path=photo_folder, runs_path=tmp_path / "runs", exp_name="small", image_size=32, secret_size=32,
        batch_size=2, num_steps=2, log_interval=1, sample_interval=2, eval_interval=2, val_images=2,
        accelerator="cpu", lpips_loss_scale=0, no_im_loss_steps=0,
    )  # fmt: skip
    return [
        "train",
        "stegastamp",
        *(str(part) for k, v in arguments.items() for part in (f"--{k}", v)),
        *more,
    ]


@pytest.fixture(scope="module")
def run(photo_folder, tmp_path_factory):
    """The folder of a run of two steps, made by the command."""
    base = tmp_path_factory.mktemp("command")
    assert main(options(photo_folder, base)) == 0
    return base / "runs" / "small"


@pytest.fixture
def photograph(tmp_path):
    data = pytest.importorskip("skimage.data")
    path = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()[:200, :300]).save(path)
    return path


def cooperative(model, message):
    """A decoder that reads the message whatever the image, as a trained one would."""
    bits = message_to_bits(message, model.config.secret_size)
    last = model.decoder.reader[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(bits * 2 - 1)


def test_training_leaves_a_complete_folder(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "evaluation.csv", "report.html", "samples", "checkpoints"} <= names
    text = (run / "report.html").read_text()
    assert "bit_acc_jpeg_50" in text and text.count("data:image/png;base64,") >= 6


def test_help_explains_options_with_defaults_and_origin(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "stegastamp", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--no_im_loss_steps" in text and "First steps with the secret loss alone" in text
    assert "(type: int, default: 500)" in text


def test_yaml_and_command_line_make_one_configuration(photo_folder, tmp_path):
    (tmp_path / "mine.yaml").write_text("l2_loss_scale: 3.5\nborders: white\n")
    arguments = options(photo_folder, tmp_path, "--config", str(tmp_path / "mine.yaml"), "--borders", "image")
    assert main(arguments) == 0
    config = yaml.safe_load((tmp_path / "runs" / "small" / "config.yaml").read_text())
    assert (config["l2_loss_scale"], config["borders"]) == (3.5, "image")


def test_encode_writes_stamped_image_and_residual(run, photograph, tmp_path, capsys):
    saved = tmp_path / "out"
    arguments = ["--checkpoint", str(run), "--image", str(photograph), "--secret", "hi"]
    assert main(["stegastamp", "encode", *arguments, "--save_dir", str(saved)]) == 0
    hidden, residual = (Image.open(saved / f"cat_{n}.png") for n in ("hidden", "residual"))
    assert hidden.size == residual.size == (32, 32)
    assert str(saved / "cat_hidden.png") in capsys.readouterr().out
    assert (
        main(["stegastamp", "encode", *arguments, "--save_dir", str(saved), "--full_size", "--overwrite"])
        == 0
    )
    assert Image.open(saved / "cat_hidden.png").size == (300, 200)


def test_stamped_is_photograph_plus_residual(run, photograph):
    from fastgan.recipes.stegastamp.model import StegaStampModel

    image = Image.open(photograph)
    cover = to_tensor(image)
    stamped, residual = StegaStampModel.load(run).encode(cover, message_to_bits("hi", 32), residual=True)
    assert torch.equal(stamped, (cover + residual).clamp(0, 1)) and residual.std() > 0.01


def test_decode_prints_the_message(run, photograph, monkeypatch, capsys):
    from fastgan.recipes.stegastamp import commands as commands

    load = commands.StegaStampModel.load

    def loaded(path):
        model = load(path)
        cooperative(model, "hi")
        return model

    monkeypatch.setattr(commands.StegaStampModel, "load", loaded)
    arguments = ["stegastamp", "decode", "--checkpoint", str(run), "--image", str(photograph)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{photograph}: hi\n"
    assert main([*arguments, "--raw"]) == 0
    bits = "".join(str(int(b)) for b in message_to_bits("hi", 32))
    assert capsys.readouterr().out == f"{photograph}: {bits}\n"


def test_decode_says_when_nothing_is_found_and_fails(run, photograph, monkeypatch, capsys):
    from fastgan.recipes.stegastamp import commands as commands

    monkeypatch.setattr(commands, "bits_to_message", lambda bits: None)
    assert main(["stegastamp", "decode", "--checkpoint", str(run), "--image", str(photograph)]) == 1
    assert "no message found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--secret", "abc"], "the message 'abc' takes 3 bytes in UTF-8; a secret of 32 bits holds 2"),
        (["--raw", "--secret", "01"], "raw secrets are 32 characters 0 or 1, got '01'"),
        (["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
        (["--image", "nowhere.png"], "no such image: nowhere.png"),
    ],
)
def test_encode_names_what_is_wrong(run, photograph, tmp_path, capsys, changes, message):
    arguments = ["stegastamp", "encode", "--checkpoint", str(run), "--image", str(photograph)]
    arguments += ["--secret", "hi", "--save_dir", str(tmp_path / "out"), *changes]
    assert main(arguments) == 1
    assert f"fastgan: error: {message}" in capsys.readouterr().err


def test_a_truncated_photograph_is_an_error_for_encode(run, photograph, tmp_path, capsys):
    cut = tmp_path / "cut.png"
    cut.write_bytes(photograph.read_bytes()[:2000])
    arguments = ["--checkpoint", str(run), "--image", str(cut), "--secret", "hi", "--save_dir", str(tmp_path)]
    assert main(["stegastamp", "encode", *arguments]) == 1
    assert f"{cut} cannot be read as an image" in capsys.readouterr().err


def test_a_checkpoint_of_another_recipe_is_refused(photograph, tmp_path, capsys):
    from fastgan.training.loop import train

    config = ToyConfig(runs_path=str(tmp_path), num_steps=1, accelerator="cpu")
    folder = train(Toy, config)
    assert main(["stegastamp", "decode", "--checkpoint", str(folder), "--image", str(photograph)]) == 1
    assert "is a checkpoint of the recipe 'toy', not of 'stegastamp'" in capsys.readouterr().err


def test_images_dir_takes_a_whole_folder(run, photo_folder, tmp_path, capsys):
    arguments = ["--checkpoint", str(run), "--images_dir", str(photo_folder / "coffee"), "--secret", "hi"]
    assert main(["stegastamp", "encode", *arguments, "--save_dir", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*_hidden.png"))) == 4
    with pytest.raises(SystemExit):
        main(["stegastamp", "encode", "--checkpoint", str(run), "--secret", "a", "--save_dir", "x"])


@pytest.mark.parametrize("content", ["empty", "only text", "missing"])
def test_a_folder_without_images_is_an_error(photo_folder, tmp_path, capsys, content):
    folder = tmp_path / "photographs"
    if content != "missing":
        folder.mkdir()
    if content == "only text":
        (folder / "notes.txt").write_text("no image")
    arguments = options(folder, tmp_path)
    assert main(arguments) == 1
    expected = f"no such folder: {folder}" if content == "missing" else f"{folder} holds no image"
    assert expected in capsys.readouterr().err


def test_truncated_jpegs_are_skipped_counted_and_listed_once(photo_folder, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photo_folder, folder)
    files = sorted(folder.rglob("*.jpg"))
    for path in files[1:3]:
        path.write_bytes(path.read_bytes()[:900])
    with pytest.warns(UserWarning, match="skipped unusable image") as warned:
        assert main(options(folder, tmp_path, "--num_steps", "12")) == 0
    named = [str(w.message) for w in warned if "skipped unusable" in str(w.message)]
    assert len(named) == 2
    assert all(any(str(path) in text for text in named) for path in files[1:3])


def test_unknown_recipes_and_commands_are_named(capsys):
    for words, meant in ((["train", "stegostamp"], "stegastamp"), (["trian"], "train")):
        with pytest.raises(SystemExit) as left:
            main(words)
        output = capsys.readouterr().err
        assert left.value.code == 2 and output.count("\n") == 1
        assert f"invalid choice: '{words[-1]}' (choose from " in output and f"did you mean {meant}?" in output


def test_another_run_is_kept(run, photo_folder, capsys):
    before = (run / "metrics.csv").read_text()
    assert main(options(photo_folder, run.parent.parent)) == 1
    assert "already holds a run: continue it with --resume true" in capsys.readouterr().err
    assert (run / "metrics.csv").read_text() == before


@pytest.mark.slow
def test_two_processes_train_the_same_networks(photo_folder, tmp_path):
    """Torchrun with two processes; weights stay equal, so the checkpoint of the first one is that of both."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    arguments = options(photo_folder, tmp_path, "--devices", "2")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "fastgan", *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs" / "small"
    assert (folder / "report.html").exists()
    rows = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == [1, 2]
