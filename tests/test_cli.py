"""The command line itself: help everywhere, errors of one line, and what was probably meant."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import fastgan_command
from fastgan.cli import COMMANDS, main
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.signals import Interrupted
from tests.processes import in_forks


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
    output = capsys.readouterr().out
    assert output.startswith(f"usage: {' '.join(('fastgan', *words))}")
    assert ":mod:" not in output and ":class:" not in output and ":func:" not in output


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


@pytest.mark.parametrize("name, said", [("no.yaml", "No such file"), ("", "Is a directory")])
def test_a_configuration_that_is_no_file_is_one_line(name, said, tmp_path, capsys):
    assert main(["train", "dcgan", "--config", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fastgan: error: --config must name a YAML file, got {tmp_path / name}: {said}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text, said",
    [
        ("lr_q: 3", "has an option that is not known here: lr_q; did you mean lr_g?"),
        ("preset: demo", "must not have the option 'preset': give --preset on the command line"),
    ],
)
def test_names_in_a_configuration_that_are_no_options_are_one_line(text, said, tmp_path, capsys):
    (tmp_path / "options.yaml").write_text(text)
    assert main(["train", "dcgan", "--config", str(tmp_path / "options.yaml")]) == 1
    assert capsys.readouterr().err == f"fastgan: error: {tmp_path / 'options.yaml'} {said}\n"


@pytest.mark.parametrize("option", ["--config", "--preset", "--num_steps"])
def test_an_option_without_its_value_is_one_line(option, capsys):
    assert leaves("train", "dcgan", option) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fastgan train dcgan: error: argument {option}: expected one argument")
    assert error.count("\n") == 1


def test_warnings_are_one_line(monkeypatch, capsys):
    shown = []

    def warns(arguments):
        shown.append(warnings.formatwarning("odd\n  file \x1b[1m", UserWarning, "x.py", 3))
        return 0

    monkeypatch.setitem(COMMANDS, "info", ("", warns))
    before = warnings.formatwarning
    assert main(["info"]) == 0
    assert shown == ["fastgan: warning: odd file \\x1b[1m\n"]
    assert warnings.formatwarning is before


def test_skipped_files_are_named_in_lines_without_python(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(30):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"no image")
    options = {"train_path": tmp_path / "images", "runs_path": tmp_path, "image_size": 32, "g_width": 2}
    command = fastgan("train", "dcgan", *(f"--{name}={value}" for name, value in options.items()))
    output = command.communicate()[1].decode().splitlines()
    assert command.returncode == 1
    assert len(output) > 1 and output[0].startswith("fastgan: warning: skipped unusable image 1: "), output
    assert all(line.startswith("fastgan: ") for line in output), output


def test_ctrl_c_is_one_line_once_folders_that_last_as_long_as_the_command_are_gone(monkeypatch, capsys):
    left = []

    def interrupted(arguments):
        try:
            raise KeyboardInterrupt
        finally:
            left.append("folder")

    monkeypatch.setitem(COMMANDS, "report", ("", interrupted))
    assert main(["report"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "fastgan: ended by SIGINT\n" and left == ["folder"]


def test_an_interrupted_run_within_a_command_is_one_line(monkeypatch, capsys):
    def interrupted(arguments):
        raise Interrupted("stopped after step 3", signal.SIGTERM)

    monkeypatch.setitem(COMMANDS, "demo", ("", interrupted))
    assert main(["demo"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "fastgan: stopped after step 3\n"


def fastgan(*words, **streams):
    return subprocess.Popen([sys.executable, "-m", "fastgan", *words], stderr=subprocess.PIPE, **streams)


@pytest.mark.parametrize(
    "words", [("info",), ("train", "dcgan", "--help"), ("--print_shtab", "bash")], ids=" ".join
)
def test_nobody_needs_to_read_what_a_command_says(words):
    reading, writing = os.pipe()
    os.close(reading)
    command = fastgan(*words, stdout=writing)
    os.close(writing)
    assert (command.communicate()[1], command.returncode) == (b"", 0)


def test_ctrl_c_ends_the_start_of_a_run_in_one_line(tmp_path):
    pipe = tmp_path / "photograph.png"
    os.mkfifo(pipe)
    command = fastgan("train", "dcgan", "--config", str(pipe))
    writing = os.open(pipe, os.O_WRONLY)  # waits until the command reads
    command.send_signal(signal.SIGINT)
    assert command.communicate()[1] == b"fastgan: ended by SIGINT\n"
    assert command.returncode == 128 + signal.SIGINT
    os.close(writing)


def test_ctrl_c_during_the_import_of_torch_is_one_line(tmp_path):
    imported = tmp_path / "imported"
    (tmp_path / "torch.py").write_text(
        f"import time\nopen({str(imported)!r}, 'w').close()\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise ImportError('swallowed') from None\n"
    )
    environment = os.environ | {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(fastgan_command.__file__).parent}"
    }
    command = subprocess.Popen(
        [sys.executable, "-c", "import fastgan_command; fastgan_command.main()"],
        stderr=subprocess.PIPE, env=environment, cwd=tmp_path,
        # A shell's background jobs ignore SIGINT, and with them what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not imported.exists() and command.poll() is None:
        time.sleep(0.01)
    command.send_signal(signal.SIGINT)
    assert command.communicate()[1] == b"fastgan: interrupted\n"
    assert command.returncode == 128 + signal.SIGINT


# Each takes a tenth of a second or more to import; together, several times as long as torch.
HEAVY = {
    "diffusers", "lightning_fabric", "lpips", "matplotlib", "pandas", "scipy", "skimage", "sklearn", "sympy",
    "tensorboard", "torch._dynamo", "torch._inductor", "torch.distributed.rpc", "torch.distributed.tensor",
    "torchmetrics", "torchvision", "triton",
}  # fmt: skip


def test_help_imports_nothing_heavy_beyond_torch(tmp_path):
    commands = [(), ("train",), *(("train", recipe) for recipe in RECIPES)]
    programs = [
        f"""
import sys, torch
before = set(sys.modules)
from fastgan.cli import main
try:
    main([*{words!r}, "--help"])
finally:
    print("imported:", *set(sys.modules) - before)
"""
        for words in commands
    ]
    for words, (code, output) in zip(commands, in_forks(programs, tmp_path), strict=True):
        assert code == 0 and output.startswith(f"usage: {' '.join(('fastgan', *words))}"), output
        imported = set(output.splitlines()[-1].split()[1:])
        assert "fastgan.cli" in imported and not HEAVY & imported, words


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
    output = capsys.readouterr().out
    assert all(f"\n{title}:\n" in output for title in sections)


@pytest.mark.parametrize("name", RECIPES)
def test_choices_are_shown(name, capsys):
    leaves("train", name, "--help")
    output = capsys.readouterr().out
    assert "--balance {every_step,ratio,threshold,adaptive}" in output
    assert "--accelerator {auto,cpu,cuda}" in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_of_shells(shell, capsys):
    assert main(["--print_shtab", shell]) == 0
    output = capsys.readouterr().out
    assert all(word in output for word in ("resume", "starganv2", "image_size", "wgan-gp"))
