"""`fastgan bench verdicts`: a planted fault is named, from the training run to the file of results."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pytest_benchmark")

from fastgan.bench import verdicts
from fastgan.cli import main

BRIEF = {"num_steps": 50, "batch_size": 4, "g_width": 8, "d_width": 8, "eval_interval": 50}


@pytest.fixture
def brief(monkeypatch):
    """Makes runs of dcgan as short as a verdict on weights or data needs."""
    healthy = verdicts.HEALTHY["dcgan"]
    monkeypatch.setitem(verdicts.HEALTHY, "dcgan", healthy._replace(options={**healthy.options, **BRIEF}))

    def trained(name, folder):
        if name in verdicts.FAULTS:
            monkeypatch.setitem(verdicts.FAULTS, name, verdicts.FAULTS[name]._replace(options={}))
        run = verdicts.Run(name, 5)
        assert verdicts.train_run(run, folder) == ""
        return run

    return trained


@pytest.mark.parametrize("name", ["D not in its optimizer", "images in [0, 1] for [-1, 1]"])
def test_a_planted_fault_is_named_within_the_run(name, brief, tmp_path):
    row = verdicts.judge_run(brief(name, tmp_path), tmp_path)
    assert row["right"] and row["named_at"] <= BRIEF["num_steps"]
    assert row["half"] == "report" and row["beside"] == []


def test_results_are_written_and_runs_that_are_missing_are_told(brief, tmp_path, capsys):
    brief("dcgan", tmp_path)
    arguments = ["bench", "verdicts", "--judge", "--only", "dcgan", "--runs_path", str(tmp_path)]
    assert main([*arguments, "--seeds", "5", "--output", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").glob("verdicts-*.json")
    (row,) = json.loads(path.read_text())
    assert (row["run"], row["seed"], row["is_fault"], row["right"]) == ("dcgan", 5, False, True)
    assert "false alarms in 0 of 1 healthy runs" in capsys.readouterr().out
    assert main([*arguments, "--seeds", "5", "2"]) == 1
    assert "holds no run of 'dcgan', seed 2" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verdicts", "questions"])
@pytest.mark.parametrize("count", ["0", "-2", "many"])
def test_a_number_of_processes_that_is_none_is_refused_even_where_none_starts(command, count, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", command, "--processes", count, "--judge"][: 5 if command == "verdicts" else 4])
    assert left.value.code == 2
    assert (
        f"argument --processes: must be a whole number of at least 1, got '{count}'"
        in capsys.readouterr().err
    )
