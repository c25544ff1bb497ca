"""`fastgan bench recipes`: one row per provider, kept beside those of other recipes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("lightning_fabric")
pytest.importorskip("pytest_benchmark")

from fastgan.cli import main


def test_steps_of_a_recipe_are_timed_with_their_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = {"recipe": "other", "preset": "demo", "precision": "32-true"}
    for _ in range(2):
        assert main(["bench", "recipes", "dcgan", "--steps", "2", "--output", str(tmp_path)]) == 0
        (path,) = tmp_path.glob("recipes-*.json")
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([*(row for row in rows if row["recipe"] != "other"), other]))
    assert [row.get("provider") for row in rows] == ["fastgan", "reference", None]
    for row in rows[:2]:
        assert row["steps"] == 2 and row["mean_s"] > 0 and row["batch_size"] == 64
        assert {"discriminator_step", "generator_step"} <= row["parts"].keys()
        assert all(0 < share <= 1 for share in row["parts"].values())
        assert row["device"] and row["torch"] and row["commit"]
    table = capsys.readouterr().out
    assert "dcgan" in table and "generator_step" in table
