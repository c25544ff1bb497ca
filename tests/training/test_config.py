"""Sources of hyper-parameters, and values that are refused."""

from __future__ import annotations

import dataclasses
import os
import re
import threading

import pytest

from fastgan.cli import main
from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.command_line import _field_docs, parse_config
from fastgan.training.config import TrainingConfig, from_plain, to_plain, write_config

from .toy import Toy, ToyConfig


def parse(*arguments):
    return parse_config(ToyConfig, Toy.presets, list(arguments), "fastgan train toy")


def test_command_line_beats_file_beats_preset_beats_default(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("lr: 0.5\nbatch_size: 9\n")
    assert parse().lr == 0.001
    assert parse("--preset", "fast").lr == 0.1
    both = parse("--preset", "fast", "--config", str(file))
    assert (both.lr, both.batch_size, both.log_interval) == (0.5, 9, 7)
    assert parse("--preset", "fast", "--config", str(file), "--lr", "2").lr == 2


def test_a_written_configuration_is_read_back(tmp_path):
    config = ToyConfig(lr=0.25, exp_name="x")
    write_config(config, tmp_path / "config.yaml")
    assert parse("--config", str(tmp_path / "config.yaml")) == config
    assert from_plain(ToyConfig, to_plain(config)) == config


def test_help_explains_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "Learning rate of both networks. (type: float, default: 0.001)" in " ".join(text.split())
    assert text.count("default:") >= 18


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit):
        parse("--learning_rate", "1")
    assert "learning_rate" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown options for ToyConfig: speed"):
        from_plain(ToyConfig, {"speed": 1})


@pytest.mark.parametrize("options, message", [
    ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"timeout": 0.0}, "timeout must be positive, got 0.0"),
    ({"timeout": 1e30}, r"timeout must be at most 525600 \(a year\), got 1e\+30"),
    ({"precision": "16-mixed"}, "precision 16-mixed .* NaN in float16"),
    ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
    ({"exp_name": "../x"}, "plain name"),
])  # fmt: skip
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("seed", -1, r"seed must lie in \[0, 2\*\*63\), got -1"),
        ("seed", 2**70, "seed must fit in 64 bits, got 1180591620717411303424"),
        ("num_steps", 2**64, "num_steps must fit in 64 bits"),
        ("lr", float("inf"), "lr must be finite, got inf"),
        ("lr", float("nan"), "lr must be finite, got nan"),
        ("balance_threshold", -float("inf"), "balance_threshold must be finite, got -inf"),
        ("max_minutes", 10**400, "max_minutes must fit in 64 bits"),
        ("max_pixels", 0, "max_pixels must be at least 1, got 0"),
        ("runs_path", "a\0b", "runs_path must not have a zero byte"),
    ],
)
def test_numbers_that_nothing_can_be_done_with_are_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        ToyConfig(**{name: value})


@pytest.mark.parametrize(
    "name, value",
    [
        ("batch_size", "4"), ("batch_size", 4.0), ("batch_size", True), ("batch_size", None), ("lr", "fast"),
        ("lr", [1]), ("resume", 1), ("exp_name", 5), ("balance_ratio", 3), ("balance_ratio", [1, 1]),
        ("balance_ratio", (1, "a")), ("balance_ratio", (1, 2, 3)),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be "):
        ToyConfig(**{name: value})


def test_integers_that_cannot_be_shown_are_refused_by_name():
    with pytest.raises(ValueError, match="num_steps must fit in 64 bits, got an integer of thousands"):
        ToyConfig(num_steps=10**5000)


@pytest.mark.parametrize(
    "option, value",
    [("seed", "-1"), ("seed", str(2**70)), ("lr_d", "1e400"), ("lr_g", ".nan"), ("beta1", "-.inf")],
)
def test_the_command_names_the_option(option, value, tmp_path, capsys):
    arguments = [f"--{option}={value}", "--runs_path", str(tmp_path / "runs"), "--train_path", str(tmp_path)]
    assert main(["train", "dcgan", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"fastgan: error: {option} must ")
    assert not (tmp_path / "runs").exists()


RANGE = re.compile(
    r"(\w+) must (?:lie in (?P<interval>[\[(].+?[\])])|(?P<bound>be .+|not be negative)), got "
)
IN_HELP = {"be positive": "above 0", "not be negative": "not below 0"}


@pytest.mark.parametrize("name", RECIPES)
def test_help_says_the_range_of_every_option_that_has_one(name):
    config_class = load_recipe(name).config_class
    docs, default = _field_docs(config_class), config_class()
    with_range = set()
    for field in dataclasses.fields(config_class):
        kind = field.type.split(" ")[0]
        for value in {"int": (-1, 0, 1, 10**6), "float": (-1.0, 0.0, 1.0, 1e6)}.get(kind, ()):
            try:
                dataclasses.replace(default, **{field.name: value})
            except ValueError as error:
                matched = RANGE.match(str(error))
                if matched is None or matched[1] != field.name:
                    continue
                if matched["interval"]:
                    expected = matched["interval"]
                else:
                    expected = IN_HELP.get(matched["bound"], matched["bound"].removeprefix("be ")).split(",")[
                        0
                    ]
                expected = re.sub(r" = [^\])]+", "", expected)  # as in (0, lr = 0.001]
                with_range.add(field.name)
                assert expected in docs[field.name].lower(), (field.name, expected)
    assert len(with_range) > 15


def test_every_float_of_every_recipe_must_be_finite():
    for name in RECIPES:
        recipe = load_recipe(name)
        default = recipe.config_class()
        floats = [f.name for f in dataclasses.fields(default) if f.type in ("float", "float | None")]
        assert len(floats) > 5
        for field in floats:
            for value in (float("nan"), float("inf"), -float("inf")):
                with pytest.raises(ValueError, match=f"^{field} must be finite, got"):
                    dataclasses.replace(default, **{field: value})


@pytest.mark.parametrize(
    "text", ["a: &a [1]\nb: [*a, *a]\n", "lr: " + "[" * 20000, "", "[1, 2]", "lr: !!python/name:os.x"]
)
def test_configuration_files_with_aliases_or_objects_are_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match="x.yaml"):
        parse("--config", str(tmp_path / "x.yaml"))


BOMB = "a: &a [1]\nb: [*a, *a]\n"


def test_a_configuration_file_cannot_name_another(tmp_path):
    (tmp_path / "x.yaml").write_text(f"config: {tmp_path / 'y.yaml'}\n")
    (tmp_path / "y.yaml").write_text(BOMB)
    with pytest.raises(ValueError, match=r"x.yaml .*'config'"):
        parse("--config", str(tmp_path / "x.yaml"))


def through_a_pipe(path, text):
    """A pipe, as a shell makes for <(command)."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(text,), daemon=True)
    writer.start()
    return str(path)


def test_configurations_through_pipes_are_read_and_checked(tmp_path):
    assert parse("--config", through_a_pipe(tmp_path / "fine", "lr: 2e-4\nseed: 7\n")).seed == 7
    assert parse(f"--config={through_a_pipe(tmp_path / 'as-well', 'lr: 2e-4')}").lr == 2e-4
    with pytest.raises(ValueError, match=r"bomb cannot be read as YAML: aliases"):
        parse("--config", through_a_pipe(tmp_path / "bomb", BOMB))
    with pytest.raises(ValueError, match=r"other .*'config'"):
        parse("--config", through_a_pipe(tmp_path / "other", "config: x.yaml"))


def test_options_in_place_of_a_file_are_checked_as_well():
    assert parse("--config", "{lr: 2e-4, seed: 7}").lr == 2e-4
    with pytest.raises(ValueError, match="--config cannot be read as YAML: aliases"):
        parse("--config", BOMB)
    with pytest.raises(ValueError, match=r"--config .*'config'"):
        parse("--config", "config: x.yaml")


@pytest.mark.parametrize("name", ["", "no.yaml"])
def test_a_configuration_that_is_no_file_is_named(tmp_path, capsys, name):
    with pytest.raises((SystemExit, OSError)) as error:
        parse("--config", str(tmp_path / name))
    assert str(tmp_path / name) in capsys.readouterr().err + str(error.value)


EPOCHS = {"epochs": ToyConfig(num_epochs=7)}


@pytest.mark.parametrize("arguments, length", [
    (["--preset", "epochs"], (140000, 7)),
    (["--preset", "epochs", "--num_steps", "5"], (5, 0)),
    (["--num_steps=5", "--preset=epochs"], (5, 0)),
    (["--preset", "epochs", "--config", "num_steps: 5"], (5, 0)),
    (["--preset", "epochs", "--config", "{num_steps: 5, num_epochs: 3}"], (5, 3)),
    (["--config", "num_epochs: 3", "--config", "num_steps: 5"], (5, 0)),
    (["--config", "num_steps: 5", "--num_epochs", "3"], (5, 3)),
    (["--num_steps", "5", "--num_epochs", "0"], (5, 0)),
    (["--num_steps", "5", "--config", "{num_steps: 50, num_epochs: 3}"], (5, 0)),
    (["--num_epochs", "2", "--config", "{num_steps: 50, num_epochs: 3}"], (50, 2)),
])  # fmt: skip
def test_the_length_that_is_given_counts(arguments, length):
    config = parse_config(ToyConfig, EPOCHS, arguments, "prog")
    assert (config.num_steps, config.num_epochs) == length


def test_two_lengths_on_the_command_line_are_an_error():
    with pytest.raises(ValueError, match="--num_steps 5 and --num_epochs 3 both say"):
        parse_config(ToyConfig, EPOCHS, ["--num_steps", "5", "--num_epochs", "3"], "prog")
