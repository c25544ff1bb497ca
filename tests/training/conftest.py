"""Fixtures of the tests of shards."""

from __future__ import annotations

import pytest

from fastgan.training.shards import store
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.writer import write_shards
from tests.training.shard_server import write_images


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of this test's cache of shards; failed transfers are tried again at once."""
    monkeypatch.setenv("FASTGAN_SHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    store._remote_store.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def few(tmp_path):
    """A folder of three shards, to be damaged."""
    write_shards(write_images(tmp_path / "few-images", 60), tmp_path / "few", shard_size=25_000)
    assert [path.name for path in sorted((tmp_path / "few").iterdir())] == [
        "00000.tar", "00001.tar", "00002.tar", INDEX
    ]  # fmt: skip
    return tmp_path / "few"
