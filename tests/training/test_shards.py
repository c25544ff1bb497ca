"""Streams from shards: their order, what is kept of a URL, and what a damaged dataset says."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from fastgan.training.crops import CROPS
from fastgan.training.data import ImageFolder, batches, find_images, split_held_out
from fastgan.training.orders import EpochOrder, epoch_order
from fastgan.training.shards import store
from fastgan.training.shards.cache import ShardCache
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.paths import data_root, on_disk
from fastgan.training.shards.store import ShardError
from fastgan.training.shards.writer import write_shards
from tests.processes import ROOT
from tests.training.shard_server import served, write_images

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

COUNT, SHARD = 1000, 50_000  # 48 files a shard
# Of windows that hold a part of the shards, and all.
WINDOWS = {"part": 300_000, "whole": 10**9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    """Folders of shards by the name of their window."""
    out = tmp_path_factory.mktemp("shards")
    for name, window in WINDOWS.items():
        write_shards(folder, out / name, shard_size=SHARD, window=window)
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
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


def numbers(place, count=20, steps=COUNT // 20, **options):
    """The numbers of the images in each batch of a stream."""
    dataset = ImageFolder(find_images(place), (6, 6), "fit", seed=5)
    stream = batches(dataset, count, **options)
    images = [(batch[:, :2, 0, 0] * 255).round().long() for batch in itertools.islice(stream, steps)]
    stream.close()
    return [(pair[:, 0] * 256 + pair[:, 1]).tolist() for pair in images]


@pytest.mark.parametrize("window", WINDOWS)
def test_the_order_is_the_same_for_any_processes_threads_resume_and_place(shards, window):
    place = shards / window
    expected = numbers(place)
    assert sorted(itertools.chain(*expected)) == list(range(COUNT))
    with served(place) as server:
        for where, world in ((place, 2), (place, 4), (server.url, 1), (server.url, 2)):
            parts = [numbers(where, 20 // world, rank=rank, world_size=world) for rank in range(world)]
            joined = [list(itertools.chain(*step)) for step in zip(*parts, strict=True)]
            assert joined == expected
        resumed = numbers(server.url, start_step=27, steps=30, workers=4)
    assert resumed[: COUNT // 20 - 27] == expected[27:]
    assert resumed[COUNT // 20 - 27 :] == numbers(place, start_step=COUNT // 20, steps=7)
    assert numbers(place, start_step=COUNT // 20, steps=7) != expected[:7], "another epoch"


@pytest.mark.parametrize("crop", CROPS)
def test_a_dataset_that_fits_into_the_window_is_the_folder_to_the_bit(folder, shards, crop):
    size = (4, 5)
    streams = [
        batches(ImageFolder(split_held_out(place)[0], size, crop, seed=2), 16)
        for place in (folder, shards / "whole")
    ]
    for from_folder, from_shards in itertools.islice(zip(*streams, strict=True), 4):
        assert torch.equal(from_shards, from_folder)
    names = [[file.name for file in part] for part in split_held_out(folder)]
    assert names == [[file.name for file in part] for part in split_held_out(shards / "part")]


def test_an_epoch_mixes_a_window_of_shards_at_a_time_from_its_beginning_to_its_end(shards):
    files = find_images(shards / "part")
    order = epoch_order(files, seed=1)
    total = len(files[0].store.index.shards)
    for epoch in range(3):
        read = [files[order.index(epoch * COUNT + k)].shard for k in range(COUNT)]
        first = {shard: read.index(shard) for shard in read}
        last = {shard: COUNT - 1 - read[::-1].index(shard) for shard in read}
        in_use = [sum(first[s] <= k <= last[s] for s in first) for k in range(COUNT)]
        window = WINDOWS["part"] / SHARD
        assert len(first) == total > 3 * window
        assert max(in_use) <= 1.5 * window + 2
        for start in range(0, COUNT, 50):
            assert len(set(read[start : start + 50])) >= window / 2, "no run of one shard's files"
    sequences = {tuple(order.index(epoch * COUNT + k) for k in range(COUNT)) for epoch in range(3)}
    assert len(sequences) == 3


def test_a_part_of_a_dataset_has_its_share_of_the_window(shards):
    files = find_images(shards / "part")
    order = epoch_order(files[:100], seed=1)
    assert order.window == pytest.approx(epoch_order(files, seed=1).window / 10, abs=1)
    assert sorted(order.index(k) for k in range(100)) == list(range(100))
    assert type(epoch_order([ROOT / "a.png"], 0)) is EpochOrder


def test_a_url_takes_no_more_disk_than_the_limit_and_brings_each_shard_once_an_epoch(
    shards, cache, monkeypatch
):
    limit = 2 * WINDOWS["part"]
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", str(limit / 1e9))
    with served(shards / "part") as server:
        dataset = ImageFolder(find_images(server.url), (6, 6), "fit", seed=5)
        largest = 0
        for k in range(COUNT - 1):
            dataset.sample(k)
            if k % 10 == 0:
                with contextlib.suppress(FileNotFoundError):  # deleted by the thread that fetches
                    largest = max(largest, sum(path.stat().st_size for path in cache.glob("*.tar")))
        total = len(list((shards / "part").glob("*.tar")))
        fetched = {name: count for name, count in server.requests.items() if name.endswith(".tar")}
    assert len(fetched) == total
    # The next epoch's first shards were fetched ahead, and some of them had been deleted since.
    assert sum(fetched.values()) <= 1.5 * total
    assert 0.5 * limit < largest <= limit + SHARD + 10_000


def test_what_is_read_last_is_kept(few, tmp_path):
    index = data_root(few).store.index
    sizes = [shard.size for shard in index.shards]
    kept = ShardCache(tmp_path / "kept", limit=sum(sizes[:2]) + 10)
    for number in (0, 1):
        kept.add(index.shards[number], lambda path, n=number: shutil.copy(few / f"{n:05d}.tar", path))
    os.utime(kept.path(index.shards[1]), (1, 1))
    kept.add(index.shards[2], lambda path: shutil.copy(few / "00002.tar", path))
    assert [kept.path(shard).exists() for shard in index.shards] == [True, False, True]


SCRIPT = """
import sys
from fastgan.training.data import ImageFolder, find_images
dataset = ImageFolder(find_images(sys.argv[1]), (6, 6), "fit", seed=5)
rank = int(sys.argv[2])
print([dataset.sample_and_file(k)[1].name for k in range(rank, 60, 2)])
"""


def test_two_processes_share_what_one_has_fetched(few, cache):
    expected = ImageFolder(find_images(few), (6, 6), "fit", seed=5)
    with served(few) as server:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, server.url, str(rank)],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )
            for rank in (0, 1)
        ]  # fmt: skip
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        requests = server.requests
    for rank, output in enumerate(outputs):
        assert output.strip() == str([expected.sample_and_file(k)[1].name for k in range(rank, 60, 2)])
    assert requests == {INDEX: 2, "00000.tar": 1, "00001.tar": 1, "00002.tar": 1}
    assert len(list(cache.glob("*.tar"))) == 3


# --- what goes wrong --------------------------------------------------------------------------------------


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
    ("damage", "remote", "reason"),
    [
        (missing, False, "is not the shard of the index: it is not there"),
        (missing, True, "is not there"),
        (truncated, False, ": it has 5000 bytes, where the index says 30720"),
        (truncated, True, ": it has 5000 bytes, where the index says 30720"),
        (changed, True, ": its checksum is not that of the index"),  # computed of what is transferred alone
    ],
)
def test_a_damaged_shard_is_an_error_that_names_it_and_its_place(few, cache, damage, remote, reason):
    damage(few)
    with served(few) as server:
        place = server.url if remote else few
        with pytest.raises(ShardError, match=f"00001.tar of {place} .*{reason}$"):
            read_all(place)
    assert not [path for path in cache.rglob("*") if path.suffix == ".incomplete"]


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


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("name", "../x.tar", "a shard cannot be named '../x.tar'"),
        ("sha256", "../../x", "has no checksum"),
        ("size", 10, "lies behind the end of 00000.tar"),
        ("size", -1, "-1 is no size"),
    ],
)
def test_an_index_never_leads_out_of_its_folder(few, key, value, reason):
    index = json.loads((few / INDEX).read_text())
    index["shards"][0][key] = value
    (few / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=reason):
        find_images(few)


@pytest.mark.parametrize("limit", ["0", "-1", "many", "inf", "nan"])
def test_a_limit_that_is_none_is_refused(few, monkeypatch, limit):
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", limit)
    with served(few) as server, pytest.raises(ValueError, match=f"SHARD_CACHE_GB must .*got '{limit}'"):
        find_images(server.url)


def test_a_limit_below_what_an_order_needs_is_refused(few, monkeypatch):
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", "0.00005")
    with (
        served(few) as server,
        pytest.raises(ValueError, match="CACHE_GB must be at least 8.2e-05 for"),
    ):
        find_images(server.url)


def test_a_full_disk_is_named_and_not_taken_for_the_servers_failure(few, cache, monkeypatch):
    with served(few) as server:
        dataset = ImageFolder(find_images(server.url), (6, 6), "fit")

        def full(remote, local):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(dataset.files[0].store.source.files, "get_file", full)
        with pytest.raises(OSError, match=f"No space left on device: '{cache}"):
            dataset.sample(0)


# --- files and folders in shards --------------------------------------------------------------------------


def test_paths_in_shards_are_as_those_of_the_folder(folder, shards):
    root = data_root(shards / "whole")
    assert [path.name for path in root.iterdir()] == sorted(path.name for path in folder.iterdir())
    there, here = root / "03" / "0312.png", folder / "03" / "0312.png"
    for attribute in ("name", "stem", "suffix"):
        assert getattr(there, attribute) == getattr(here, attribute)
    assert there.read_bytes() == here.read_bytes() and there.is_file() and not there.is_dir()
    assert there.relative_to(root) == here.relative_to(folder)
    assert there.parent == root / "03" and there.parent.is_dir() and not there.parent.is_file()
    assert not (root / "nothing").exists() and (root / "03").exists()
    assert str(there) == str(shards / "whole" / "03" / "0312.png") and there in {there.resolve()}
    with on_disk(there) as copy:
        assert copy.read_bytes() == here.read_bytes() and copy.suffix == ".png"
    assert not copy.exists()
    with on_disk(here) as same:
        assert same == here
    images = find_images(shards / "whole")
    assert [file.relative_to(root) for file in images] == [f.relative_to(folder) for f in find_images(folder)]


def test_unreadable_files_in_shards_are_skipped_and_named(tmp_path):
    write_images(tmp_path / "images", 3)
    out = tmp_path / "shards"
    write_shards(tmp_path / "images", out)
    tar = bytearray((out / "00000.tar").read_bytes())
    entry = data_root(out).store.index.files["00/0001.png"]
    tar[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    (out / "00000.tar").write_bytes(tar)
    dataset = ImageFolder(find_images(out), (6, 6), "fit")
    with pytest.warns(UserWarning, match="skipped unusable image 1: .*shards/00/0001.png"):
        read = {dataset.sample_and_file(k)[1].name for k in range(6)}
    assert read == {"0000.png", "0002.png"}


def test_other_file_systems_of_fsspec_serve_as_well(few):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in few.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    expected = ImageFolder(find_images(few), (6, 6), seed=3)
    actual = ImageFolder(find_images("memory://bucket/"), (6, 6), seed=3)
    assert all(np.array_equal(actual.sample(k), expected.sample(k)) for k in range(0, 60, 7))
    assert find_images(f"file://{few}")[0].store.source.folder == few, "read where it is"
    memory.rm("/bucket", recursive=True)
