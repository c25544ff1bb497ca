"""A seeded part of the random valid calls; `make stress` makes 20 000."""

from __future__ import annotations

import sys

from tests.stress import valid_calls
from tests.stress.cases import CASES


def test_kernels_and_references_agree():
    result = valid_calls.run(300, seed=20)
    assert result["disagreements"] == []
    assert result["calls"] == 300 and result["comparisons"] > 100_000
    assert set(result["ops"]) == set(CASES)


def test_a_seed_makes_its_call_again():
    first, repeated = (valid_calls.check(7) for _ in range(2))
    assert first == repeated


def test_a_kernel_that_is_off_is_found(monkeypatch):
    op = sys.modules["fastgan.ops.squared_norm"]
    monkeypatch.setattr(op, "_supported_layout", lambda x: 1.001 * x.contiguous())
    disagreements = valid_calls.run(200, seed=1)["disagreements"]
    assert disagreements and {entry["op"] for entry in disagreements} == {"squared_norm"}
    assert all(valid_calls.check(entry["seed"])[2] for entry in disagreements[:2])
