"""`fastgan bench exchange`: what is hidden, and that a delay shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

pytest.importorskip("pytest_benchmark")


def test_buckets_hide_what_a_flat_exchange_does_not(tmp_path):
    arguments = ["stegastamp", "--preset", "demo", "--steps", "2", "--part", "0.5", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", "bench", "exchange", *arguments], cwd=ROOT, timeout=300,
        capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("exchange-*.json")
    buckets, flat = json.loads(path.read_text())
    assert (buckets["variant"], flat["variant"]) == ("buckets", "flat")
    assert buckets["same_bits"] and flat["buckets"] == 1 < buckets["buckets"]
    assert flat["hidden"] < 0.2 < buckets["hidden"]
    assert done.stdout.count("stegastamp") == 2, "one process prints"


def test_each_recipe_is_measured_by_a_command_of_its_own(monkeypatch):
    """Processes that a measurement starts run its command again, and must not begin with another recipe."""
    from fastgan.bench import exchange

    commands = []

    def run(command):
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 1 if "zi2zi" in command else 0)

    monkeypatch.setattr(exchange.subprocess, "run", run)
    assert exchange.main(["--steps", "1"]) == 1
    assert commands == [["bench", "exchange", name, "--steps", "1"] for name in exchange.CHANGES]


def test_a_single_process_exchanges_nothing(capsys):
    from fastgan.bench import exchange

    with pytest.raises(SystemExit):
        exchange.main(["zi2zi", "--processes", "1"])
    assert "--processes must be at least 2, got 1" in capsys.readouterr().err
