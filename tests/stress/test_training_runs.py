"""A seeded part of what `make stress` does to training runs: a few kills, and each damage once."""

from __future__ import annotations

from tests.stress import __main__ as stress
from tests.stress import damaged_runs, killed_runs


def run(calls: int, seed: int) -> dict:
    """Both parts, in one process and of the recipe that is fastest, since starting takes longest here."""
    kills = killed_runs.run(calls, seed, ("dcgan",))
    damage = damaged_runs.run(len(damaged_runs.DAMAGES), seed, ("dcgan",))
    return {**damage, "kills": kills["calls"], "calls": calls, "faults": kills["faults"] + damage["faults"]}


def test_runs_go_on_to_the_same_bits_whatever_happens_to_them():
    figures = stress._run(stress.Part(__name__, "faults"), 4, seed=21)
    assert figures["faults"] == []
    assert figures["kills"] == 4
    assert all(figures[kind] == 1 for kind in damaged_runs.DAMAGES if kind != "disk_full")
    assert figures["disk_full"] + figures["skipped"] == 1  # it takes the right to mount
