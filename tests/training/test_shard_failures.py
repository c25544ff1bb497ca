"""What damaged, missing or invalid shards and URLs say."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter

import pytest

from fastgan.training.data import ImageFolder, find_images
from fastgan.training.shards import store
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.paths import data_root
from fastgan.training.shards.store import ShardError
from tests.training.shard_server import served

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

pytestmark = pytest.mark.usefixtures("cache")


def missing(folder):
    (folder / "00001.tar").unlink()


def truncated(folder):
    os.truncate(folder / "00001.tar", 5000)


def changed(folder):
    content = bytearray((folder / "00001.tar").read_bytes())
    content[2000] ^= 1
    (folder / "00001.tar").write_bytes(content)


def read_all(place):
    dataset = ImageFolder(find_images(place), (6, 6), "fit")
    for k in range(60):
        dataset.sample(k)


@pytest.mark.parametrize(
    ("damage", "remote", "tries", "reason"),
    [
        (missing, False, 0, "is not the shard of the index: it is not there"),
        (missing, True, 1, "is not there"),
        (truncated, False, 0, ": it has 5000 bytes, where the index says 30720"),
        (truncated, True, 3, ": it has 5000 bytes, where the index says 30720"),
        (
            changed,
            True,
            3,
            ": its checksum is not that of the index",
        ),  # computed of what is transferred alone
    ],
)
def test_a_damaged_shard_is_an_error_that_names_it_and_its_place(few, cache, damage, remote, tries, reason):
    damage(few)
    with served(few) as server:
        file = find_images(server.url if remote else few)[25]
        place = server.url if remote else few
        with pytest.raises(ShardError, match=f"00001.tar of {place} .*{reason}$"):
            file.read_bytes()
        assert server.requests["00001.tar"] == tries
    assert not [path for path in cache.rglob("*") if path.suffix in (".incomplete", ".tar")]


def test_a_transfer_that_arrives_damaged_once_is_tried_again(few, cache):
    with served(few) as server:
        server.shortened = Counter({"00001.tar": 1})
        assert find_images(server.url)[25].read_bytes() == find_images(few)[25].read_bytes()
        assert server.requests["00001.tar"] == 2


def test_a_transfer_that_breaks_off_is_tried_again_and_never_kept(few, cache):
    with served(few) as server:
        server.cut = {"00001.tar"}
        with pytest.raises(ShardError, match=f"00001.tar of {server.url} cannot be read: .*"):
            read_all(server.url)
        assert server.requests["00001.tar"] >= 3 and len(list(cache.glob("*.tar"))) <= 2
        server.cut = set()
        server.busy = Counter({"00001.tar": 2, INDEX: 2})
        store._remote_store.cache_clear()
        read_all(server.url)
    assert len(list(cache.glob("*.tar"))) == 3 and not list(cache.glob("*.incomplete"))


def test_a_shard_that_was_damaged_in_the_cache_is_fetched_again(few, cache):
    with served(few) as server:
        read_all(server.url)
        for path in cache.glob("*.tar"):
            os.truncate(path, 100)
        read_all(server.url)
        assert server.requests["00001.tar"] == 2


def test_a_url_without_shards_or_server_is_an_error_that_names_it(tmp_path):
    with served(tmp_path) as server:
        with pytest.raises(FileNotFoundError, match=f"{server.url} has no fastgan-shards.json"):
            find_images(server.url)
        server.busy[INDEX] = 3
        with pytest.raises(ShardError, match=f"fastgan-shards.json of {server.url} cannot be read: .*503"):
            find_images(server.url)
    with pytest.raises(ShardError, match=f"{server.url} cannot be read: ClientConnectorError"):
        find_images(server.url)
    with pytest.raises(ValueError, match="ftpx://host/x is no URL that can be read: .*ftpx"):
        find_images("ftpx://host/x")


def test_what_a_url_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValueError, match="s3://bucket/x needs a package.*: pip install s3fs"):
        find_images("s3://bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"http://host/x needs .*fsspec.*\.\[stream\]"):
        find_images("http://host/x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not in JSON"),
        (b"[]", "must have the format 'fastgan shards 1', got None"),
        (b'{"format": "fastgan shards 2"}', "got 'fastgan shards 2'"),
        (b'{"format": "fastgan shards 1"}', "is not as `fastgan data shard` writes it: .*shards"),
    ],
)
def test_an_index_that_is_none_is_an_error_that_names_it(tmp_path, content, reason):
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path / INDEX} .*{reason}"):
        find_images(tmp_path)


def shards_changed(plain, key, value):
    plain["shards"][0][key] = value


def file_changed(plain, place, value):
    plain["shards"][0]["files"][0][place] = value


def all_empty(plain, *arguments):
    for shard in plain["shards"]:
        shard["size"] = 0
        shard["files"] = [[name, 0, 0] for name, _, _ in shard["files"]]


def window_changed(plain, value):
    plain["window"] = value


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        (shards_changed, ("name", "../x.tar"), "a shard cannot be named '../x.tar'"),
        (shards_changed, ("name", 5), "a shard cannot be named 5"),
        (shards_changed, ("sha256", "../../x"), "00000.tar has no checksum"),
        (shards_changed, ("sha256", 5), "00000.tar has no checksum"),
        (shards_changed, ("size", 10), "lies behind the end of 00000.tar"),
        (shards_changed, ("size", -1), "the size of 00000.tar must be a number of bytes, got -1"),
        (all_empty, (), "the size of 00000.tar must be above 0"),
        (file_changed, (0, "/abs.png"), "a file of 00000.tar cannot be named '/abs.png'"),
        (file_changed, (0, ""), "a file of 00000.tar cannot be named ''"),
        (file_changed, (0, "a//b.png"), "a file of 00000.tar cannot be named 'a//b.png'"),
        (file_changed, (0, "./b.png"), "a file of 00000.tar cannot be named './b.png'"),
        (file_changed, (0, "../x.png"), "a file of 00000.tar cannot be named '../x.png'"),
        (file_changed, (0, "a\0.png"), r"a file of 00000.tar cannot be named 'a\\x00.png'"),
        (file_changed, (0, ["a.png"]), r"a file of 00000.tar cannot be named \['a.png'\]"),
        (file_changed, (1, 1.5), "the place of '00/0000.png' must be a number of bytes, got 1.5"),
        (file_changed, (2, True), "the size of '00/0000.png' must be a number of bytes, got True"),
        (window_changed, (10**400,), r"window must be a number of bytes, got 10{79}\.\.\.$"),
        (window_changed, ("2 GB",), "window must be a number of bytes, got '2 GB'"),
    ],
)
def test_an_index_with_an_impossible_value_is_refused_by_its_name(few, change, arguments, reason):
    index = json.loads((few / INDEX).read_text())
    change(index, *arguments)
    (few / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"{few / INDEX} is not as .* writes it: .*{reason}"):
        find_images(few)


def test_a_read_that_returns_less_than_asked_for_goes_on(few, monkeypatch):
    """Linux returns 2 GiB at most."""
    expected = [file.read_bytes() for file in find_images(few)]
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 7), offset))
    assert [file.read_bytes() for file in find_images(few)] == expected
    monkeypatch.setattr(os, "pread", lambda file, size, offset: b"")
    message = f"00/0000.png in 00000.tar of {few} cannot be read: only 0 of its {len(expected[0])} bytes"
    with pytest.raises(ShardError, match=message):
        find_images(few)[0].read_bytes()


def test_a_transfer_may_take_any_time_while_bytes_arrive(few):
    with served(few) as server:
        timeout = data_root(server.url).store.source.files.client_kwargs["timeout"]
    assert (timeout.total, timeout.sock_connect, timeout.sock_read) == (None, 30, 60)


def test_a_full_disk_is_named_and_not_taken_for_the_servers_failure(few, cache, monkeypatch):
    with served(few) as server:
        dataset = ImageFolder(find_images(server.url), (6, 6), "fit")

        def full(remote, local):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(dataset.files[0].store.source.files, "get_file", full)
        with pytest.raises(OSError, match=f"No space left on device: '{cache}"):
            dataset.sample(0)
