"""Shards of URLs on this machine's disk: what is kept, what is deleted, and what is never touched."""

from __future__ import annotations

import gc
import os
import shutil

import pytest

from fastgan._files import alone
from fastgan.training.data import find_images
from fastgan.training.orders import epoch_order
from fastgan.training.shards.cache import ShardCache
from fastgan.training.shards.paths import data_root
from fastgan.training.shards.writer import write_shards
from tests.training.shard_server import served, write_images

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

pytestmark = pytest.mark.usefixtures("cache")


def add(kept, folder, shard):
    """A shard of a folder, added to a cache."""
    kept.add(shard, lambda path: shutil.copy(folder / shard.name, path)).close()


def test_what_is_read_last_is_kept(few, tmp_path):
    index = data_root(few).store.index
    sizes = [shard.size for shard in index.shards]
    kept = ShardCache(tmp_path / "kept", limit=sum(sizes[:2]) + 10)
    for number in (0, 1):
        add(kept, few, index.shards[number])
    os.utime(kept.path(index.shards[1]), (1, 1))
    add(kept, few, index.shards[2])
    assert [kept.path(shard).exists() for shard in index.shards] == [True, False, True]


def test_files_of_others_in_the_folder_are_never_touched(few, tmp_path):
    kept = ShardCache(tmp_path / "kept", limit=1)
    kept.folder.mkdir()
    names = [
        "backup.tar",
        "0" * 63 + ".tar",
        "A" * 64 + ".tar",
        "download.incomplete",
        "0" * 64 + ".incomplete",
    ]
    for name in names:
        (kept.folder / name).write_text("of somebody else")
        os.utime(kept.folder / name, (1, 1))
    shards = data_root(few).store.index.shards
    for shard in shards:
        add(kept, few, shard)
    assert sorted(path.name for path in kept.folder.iterdir() if not path.name.startswith(".")) == sorted(
        [*names, kept.path(shards[-1]).name]
    )


def test_what_interrupted_transfers_left_is_deleted_and_what_is_under_way_is_kept_and_counts(few, tmp_path):
    shards = data_root(few).store.index.shards
    kept = ShardCache(tmp_path / "kept", limit=sum(shard.size for shard in shards))
    kept.folder.mkdir()
    left, under_way = (kept.folder / f"{digit * 64}.{digit * 32}.incomplete" for digit in "01")
    left.write_bytes(b"half of a shard")
    under_way.write_bytes(bytes(shards[0].size))
    os.utime(under_way, (1, 1))
    with alone(kept.folder / ".11.lock"):
        for shard in shards:
            add(kept, few, shard)
    assert not left.exists() and under_way.exists()
    assert sum(kept.path(shard).exists() for shard in shards) == 2
    kept.tidy()
    assert not under_way.exists()


def test_what_an_interrupted_run_left_is_deleted_when_the_next_opens_its_url(few, cache):
    cache.mkdir()
    left = cache / f"{'0' * 64}.{'0' * 32}.incomplete"
    left.write_bytes(b"half of a shard")
    with served(few) as server:
        find_images(server.url)
    assert not left.exists()


def test_a_shard_of_another_user_is_read_and_closed(few, cache, monkeypatch):
    with served(few) as server:
        files = find_images(server.url)
        expected = files[0].read_bytes()

        def refused(*arguments):
            raise PermissionError("Operation not permitted")

        monkeypatch.setattr(os, "utime", refused)
        before = len(os.listdir("/proc/self/fd"))
        assert all(files[0].read_bytes() == expected for _ in range(3))
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_shard_that_is_deleted_while_it_is_read_is_read_to_its_end(few, cache, monkeypatch):
    """As by another process, whose limit is smaller."""
    added = ShardCache.add

    def deleted(self, shard, fetch):
        file = added(self, shard, fetch)
        self.path(shard).unlink()
        return file

    monkeypatch.setattr(ShardCache, "add", deleted)
    with served(few) as server:
        there, here = find_images(server.url)[30:32], find_images(few)[30:32]
        assert [file.read_bytes() for file in there] == [file.read_bytes() for file in here]
        assert server.requests["00001.tar"] == 2


# --- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["0", "-1", "many", "inf", "nan"])
def test_a_limit_that_is_none_is_refused(few, monkeypatch, limit):
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", limit)
    with served(few) as server, pytest.raises(ValueError, match=f"SHARD_CACHE_GB must .*got '{limit}'"):
        find_images(server.url)


def test_a_limit_below_what_an_order_needs_is_refused(few, monkeypatch):
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", "0.00005")
    with served(few) as server:
        files = find_images(server.url)
        with pytest.raises(ValueError, match=f"CACHE_GB must be at least 8.2e-05 for {server.url} and all"):
            epoch_order(files, 0)


def test_the_limit_must_hold_what_all_orders_need_and_three_shards_of_each(tmp_path, monkeypatch):
    write_shards(write_images(tmp_path / "images", 400), tmp_path / "out", shard_size=10_000, window=10_000)
    largest = max(shard.size for shard in data_root(tmp_path / "out").store.index.shards)
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", str(6.5 * largest / 1e9))
    gc.collect()
    with served(tmp_path / "out") as server:
        files = find_images(server.url)
        domains = [files[100 * number : 100 * number + 100] for number in range(3)]
        orders = [epoch_order(domain, 0) for domain in domains[:2]]
        with pytest.raises(ValueError, match="CACHE_GB must be at least .* and all that is read with it"):
            epoch_order(domains[2], 0)
        del orders[0]
        epoch_order(domains[2], 0)
