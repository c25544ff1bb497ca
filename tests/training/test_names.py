"""Names of runs and files: invalid names of folders, and characters that a terminal must not get."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from fastgan._names import printable
from fastgan.cli import main
from fastgan.training.config import TrainingConfig
from fastgan.training.data import ImageFolder, find_images


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("..", "it is a path"),
        (".", "it is a path"),
        ("a/b", "it is a path"),
        ("/abs", "it is a path"),
        ("a\\b", "it is a path"),
        ("a\nb", r"U\+000A is no character that can be seen"),
        ("a\x1b[2Jb", r"U\+001B is no"),
        ("a\0b", "zero byte"),
        ("a\x7f", r"U\+007F is no"),
        ("a\u202egnp.exe", r"U\+202E is no"),
        ("a\u200bb", r"U\+200B is no"),
        ("\ufeffa", r"U\+FEFF is no"),
        ("a\u2028b", r"U\+2028 is no"),
        ("a\udcff", r"U\+DCFF is no"),
        ("a ", "nor end with a space or a dot"),
        ("a.", "nor end with a space or a dot"),
        (" a", "must neither begin with a space"),
        ("x" * 256, "it takes 256 bytes, more than 255"),
        ("\N{SNOWMAN}" * 86, "it takes 258 bytes, more than 255"),
    ],
)
def test_names_that_a_run_cannot_have(name, reason):
    with pytest.raises(ValueError, match=f"exp_name must .*{reason}") as error:
        TrainingConfig(exp_name=name)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name", ["run", ".hidden", "a b", "lr=0.1,b", "\N{SNOWMAN}", "日本語", "x" * 255, "..a"]
)
def test_names_that_a_run_may_have(name):
    assert TrainingConfig(exp_name=name).exp_name == name


def test_printable_escapes_what_acts_and_nothing_else():
    assert printable("a\x1b[2J\r\n\t\u202e\u200b\udcff\x9b") == "a\\x1b[2J\\r\\n\\t\\u202e\\u200b\\udcff\\x9b"
    assert printable("日本 é\u3000\N{SNOWMAN} '\"\\") == "日本 é\u3000\N{SNOWMAN} '\"\\"
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_the_command_refuses_such_names_by_their_option(tmp_path, capsys):
    for name in ("..", "a\x1b]0;title\x07", "a\u202eb", "x" * 300):
        arguments = ["--exp_name", name, "--runs_path", str(tmp_path / "runs"), "--train_path", str(tmp_path)]
        assert main(["train", "dcgan", *arguments]) == 1
        output = capsys.readouterr().err
        assert (
            output.startswith("fastgan: error: exp_name must be a plain name")
            and output.rstrip("\n").isprintable()
        )
    assert not (tmp_path / "runs").exists()


EVIL = os.fsdecode(b"a\x1b]0;owned\x07\xe2\x80\xaeb\xff.png")


def test_names_of_files_are_printed_with_escapes(tmp_path, capsys):
    (tmp_path / EVIL).write_bytes(b"no image")
    with pytest.warns(UserWarning) as caught, pytest.raises(ValueError) as error:
        ImageFolder(find_images(tmp_path), (8, 8)).sample(0)
    for text in (str(caught[0].message), str(error.value)):
        assert text.isprintable() and "a\\x1b]0;owned\\x07\\u202eb\\udcff.png" in text
    for arguments in (
        ["stegastamp", "decode", "--checkpoint", str(tmp_path / EVIL), "--image", str(tmp_path / EVIL)],
        ["sample", "dcgan", "--checkpoint", str(tmp_path / EVIL), "--output", "x.png"],
        ["sample", "dcgan", "--checkpoint", str(tmp_path / "none\x1b"), "--output", "x.png"],
        ["upscale", str(tmp_path / "none\x1b"), "x.png", "--checkpoint", str(tmp_path / "none\x1b")],
        ["report", str(tmp_path / "none\x1b")],
        ["train", "dcgan", "--train_path", str(tmp_path / "none\x1b"), "--runs_path", str(tmp_path / "runs")],
    ):
        assert main(arguments) == 1, arguments
        printed = capsys.readouterr().err.rstrip("\n")
        assert printed.isprintable() and "\\x1b" in printed, printed


def test_written_files_are_printed_with_escapes(tmp_path, capsys):
    import json

    from fastgan.recipes.dcgan.config import DEMO
    from fastgan.recipes.dcgan.networks import DCGANGenerator
    from fastgan.training.checkpoint import write_weights
    from fastgan.training.config import to_plain

    network = DCGANGenerator(DEMO.image_size, DEMO.channels, DEMO.z_dim, DEMO.g_width)
    metadata = {"recipe": "dcgan", "config": json.dumps(to_plain(DEMO))}
    write_weights(tmp_path / "g.safetensors", network.state_dict(), metadata)
    target = tmp_path / EVIL
    arguments = ["--checkpoint", str(tmp_path / "g.safetensors"), "--num", "1", "--output", str(target)]
    assert main(["sample", "dcgan", *arguments]) == 0
    assert capsys.readouterr().out == f"{printable(target)}\n" and Image.open(target).size[0] >= 32
