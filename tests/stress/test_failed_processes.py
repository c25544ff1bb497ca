"""A seeded part of what `make stress` does to runs of several processes: the kinds that no other test has."""

from __future__ import annotations

from tests.stress import __main__ as stress
from tests.stress import failed_processes

KINDS = ("killed_while_writing", "nan_gradient", "missing_gradients", "slow")


def run(calls: int, seed: int) -> dict:
    return failed_processes.run(calls, seed, KINDS, ("dcgan",), ((1, 1),))


def test_all_processes_end_or_go_on_to_the_same_bits_whatever_happens_to_one():
    figures = stress._run(stress.Part(__name__, "faults"), len(KINDS), seed=3)
    assert figures.pop("faults") == []
    assert figures == {"calls": len(KINDS), **dict.fromkeys(KINDS, 1)}
