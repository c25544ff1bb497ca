"""Libraries that are written for a test and forgotten after it."""

import importlib
import sys

import pytest

import fastgan
from tests.patching.libraries import PACKAGES


@pytest.fixture(autouse=True)
def _nothing_stays():
    finders = list(sys.meta_path)
    yield
    fastgan.unpatch()
    assert sys.meta_path == finders


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes modules, which are forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if not name.startswith(("fastgan", "torch")):
            del sys.modules[name]


@pytest.fixture
def packages(write):
    write(PACKAGES)
