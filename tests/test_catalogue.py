"""The catalogue has every public callable, and its calls are valid."""

from __future__ import annotations

import warnings

import pytest

from tests.catalogue import ENTRIES, EXEMPT, public_callables, resolve


def test_every_public_callable_has_an_entry():
    known = [resolve(name) for name in ENTRIES]
    assert not [name for name in public_callables() if name not in EXEMPT and resolve(name) not in known]


def test_nothing_is_exempt_that_is_not_public():
    assert EXEMPT.keys() <= set(public_callables())


@pytest.mark.parametrize("name", ENTRIES)
def test_calls_are_valid(name):
    entry = ENTRIES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entry.run(**entry.arguments())
