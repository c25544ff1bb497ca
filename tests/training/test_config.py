"""Where a hyper-parameter's value comes from, and which values are refused."""

from __future__ import annotations

import pytest

from fastgan.training.config import TrainingConfig, from_plain, parse_config, to_plain, write_config

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
    ({"precision": "16-mixed"}, "gradient penalties give NaN in float16"),
    ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
    ({"exp_name": "../x"}, "plain name"),
])  # fmt: skip
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)
