"""A seeded part of what `make stress` does to training runs: a few kills, and each damage once."""

from __future__ import annotations

import time
from unittest import mock

from fastgan.training import loop
from tests.stress import __main__ as stress
from tests.stress import damaged_runs, killed_runs

KINDS = list(damaged_runs.DAMAGES)


def run(calls: int, seed: int) -> dict:
    """All in one process, and with the fastest recipe, because starting dominates here."""
    kills = killed_runs.run(calls, seed, ("dcgan",))
    damage = damaged_runs.run(len(KINDS), seed, ("dcgan",))
    with mock.patch.object(loop, "step_seed", lambda seed, step, rank: time.time_ns()):
        detected = killed_runs.run(1, seed, ("dcgan",))["faults"]
    return {
        **damage, "calls": calls, "kills": kills["calls"], "found": detected,
        "faults": kills["faults"] + damage["faults"],
    }  # fmt: skip


def test_runs_go_on_to_the_same_bits_whatever_happens_to_them():
    figures = stress._run(stress.Part(__name__, "faults"), 4, seed=21)
    assert figures["faults"] == []
    assert figures["kills"] == 4
    assert all(figures[kind] == 1 for kind in KINDS if kind != "disk_full")
    assert figures["disk_full"] + figures["skipped"] == 1  # it needs the permission to mount
    assert "tensors differ" in figures["found"][0], "a run that is not the same goes unnoticed"
