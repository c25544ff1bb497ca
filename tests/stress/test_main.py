"""Evaluation by `make stress` of its parts' results."""

from __future__ import annotations

import json
import os

from tests.stress import __main__ as stress


def run(calls: int, seed: int) -> dict:
    """A part whose second batch ends its process."""
    if seed == 1:
        os.abort()
    return {"calls": calls, "accepted": calls, "ops": {"blur": calls}, "faults": []}


def test_crash_is_a_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(stress, "PARTS", {"junk": stress.Part(__name__, "faults", 2500)})
    monkeypatch.setattr("sys.argv", ["stress", "--output", str(tmp_path)])
    (tmp_path / "stress.json").write_text('[{"part": "junk", "calls": 1}, {"part": "other", "calls": 2}]')
    assert stress.main() == 1
    assert "seed 1: the process died" in capsys.readouterr().out
    junk, other = json.loads((tmp_path / "stress.json").read_text())
    assert (junk["calls"], junk["accepted"], junk["faults"]) == (2500, 1500, 1)
    assert junk["ops"] == {"blur": 1500}
    assert {"device", "commit", "torch"} <= junk.keys()
    assert other == {"part": "other", "calls": 2}
