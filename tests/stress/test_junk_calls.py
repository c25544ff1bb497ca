"""A seeded part of the junk calls, and tests that the harness distinguishes faults from good errors."""

from __future__ import annotations

import pytest
import torch

from tests.catalogue.entry import Entry
from tests.stress import junk_calls


def test_junk_is_refused_by_name():
    result = junk_calls.run(1500, seed=20260714)
    assert result["faults"] == []
    assert result["accepted"] + result["refused"] == 1500


def _scaled(x, gain):
    return x * gain


def _raises(message):
    def function(x, gain):
        raise ValueError(message)

    return function


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (_scaled, "passes on"),
        (lambda x, gain: x.no_such_method(gain), "raises AttributeError"),
        (_raises("gain is not right"), "does not name"),
        (_raises("the factor must be a number, got 'strong'"), "does not name"),
        (_raises("gain must be one of 1, 2, got None"), "does not name"),
        (_raises("gain must be a number, got 'strong'"), None),
        (_raises("gain must be a number, got str"), None),
    ],
)
def test_harness_tells_faults(monkeypatch, function, fault):
    """Makes this file count as part of fastgan."""
    monkeypatch.setattr(junk_calls, "FASTGAN", junk_calls.Path(__file__).parent)
    entry = Entry("ops.blur", dict, function)
    valid, arguments = {"x": torch.ones(2), "gain": 1.0}, {"x": torch.ones(2), "gain": "strong"}
    with pytest.raises(Exception) as caught:
        entry.run(**arguments)
    actual = junk_calls._fault(caught.value, entry, arguments, valid, {"gain"})
    assert actual is None if fault is None else actual.startswith(fault)
