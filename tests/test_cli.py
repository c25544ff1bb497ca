"""The command line itself: help everywhere, errors of one line, and what was probably meant."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastgan.cli import COMMANDS, main
from fastgan.recipes import RECIPES, load_recipe


def leaves(*words):
    with pytest.raises(SystemExit) as left:
        main([*words])
    return left.value.code


def commands(tree=COMMANDS, words=()):
    for name, (_, command) in tree.items():
        yield (*words, name)
        if isinstance(command, dict):
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("words", [(), *commands()], ids=" ".join)
def test_every_command_has_help(words, capsys):
    assert leaves(*words, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {' '.join(('fastgan', *words))}")
    assert ":mod:" not in said and ":class:" not in said and ":func:" not in said


def test_all_recipes_can_be_trained():
    assert {*COMMANDS["train"][1]} == {*RECIPES}


@pytest.mark.parametrize(
    "words, said",
    [
        (["trian"], "did you mean train?"),
        (["sample", "dcgam"], "did you mean dcgan?"),
        (
            ["train", "dcgan", "--batchsize", "3"],
            "arguments: --batchsize 3; did you mean --batch_size?",
        ),
        (["train", "dcgan", "--batch", "3"], "did you mean --batch_size?"),
        (["train", "dcgan", "--loss", "gan"], "--loss must be one of bce, nonsaturating, "),
        (["train", "dcgan", "--lr_d", "fast"], "--lr_d must be a finite number, got fast"),
        (["train", "dcgan", "--resume", "maybe"], "--resume must be true or false or auto, got maybe"),
        (["train", "dcgan", "--devices", "x"], "--devices must be an integer or null, got x"),
        (
            ["train", "dcgan", "--balance_ratio", "[1]"],
            "--balance_ratio must be a list of 2 such as [A,B], each an integer",
        ),
        (
            ["train", "dcgan", "--diff_augment", "[zoom]"],
            "--diff_augment must be a list such as [A,B], each one of",
        ),
        (["train", "dcgan", "--preset", "papr"], "did you mean paper?"),
        (["upscale", "x.png"], "the following arguments are required: "),
        (["report", "a", "b"], "unrecognized arguments: b"),
        (["info", "x"], "unrecognized arguments: x"),
    ],
)
def test_mistakes_are_one_line(words, said, capsys):
    assert leaves(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert error.startswith("fastgan") and "--help` explains all)" in error


@pytest.mark.parametrize(
    "text, said",
    [
        ("train_path: null", "train_path must be of type str, got None"),
        ("lr_g: .inf", "lr_g must be finite, got inf"),
        ("lr_g: .nan", "lr_g must be finite, got nan"),
    ],
)
def test_values_of_a_file_that_cannot_be_are_one_line(text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yaml").write_text(text)
    assert main(["train", "dcgan", "--config", "options.yaml"]) == 1
    assert capsys.readouterr().err == f"fastgan: error: {said}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["options.yaml"]


def test_a_device_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "dcgan", "--train_path", "x", "--accelerator", "cuda"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fastgan: error: accelerator 'cuda' cannot be used: ") and error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_without_a_command_the_help_is_shown(capsys):
    for words in ([], ["train"], ["data"]):
        assert main(words) == 2
        assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_every_option_has_its_section(name, capsys):
    config = load_recipe(name).config_class
    sections = config.in_sections()
    assert "other" not in sections and {"run", "data", "networks", "losses"} <= sections.keys()
    listed = [option for names in sections.values() for option in names]
    assert sorted(listed) == sorted(field.name for field in dataclasses.fields(config))
    leaves("train", name, "--help")
    said = capsys.readouterr().out
    assert all(f"\n{title}:\n" in said for title in sections)


@pytest.mark.parametrize("name", RECIPES)
def test_choices_are_shown(name, capsys):
    leaves("train", name, "--help")
    said = capsys.readouterr().out
    assert "--balance {every_step,ratio,threshold,adaptive}" in said
    assert "--accelerator {auto,cpu,cuda}" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_of_shells(shell, capsys):
    assert main(["--print_shtab", shell]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("resume", "starganv2", "image_size", "wgan-gp"))
