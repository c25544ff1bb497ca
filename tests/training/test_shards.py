"""Streams from shards: their order, and what is transferred and kept of a URL."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys

import pytest
import torch

from fastgan.training.crops import CROPS
from fastgan.training.data import ImageFolder, batches, find_images, split_held_out
from fastgan.training.orders import EpochOrder, epoch_order
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.writer import write_shards
from tests.processes import ROOT
from tests.training.shard_server import served, write_images

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

pytestmark = pytest.mark.usefixtures("cache")

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


def test_a_url_takes_no_more_disk_than_the_limit_and_brings_few_shards_of_an_epoch_twice(
    shards, cache, monkeypatch
):
    limit = 2 * WINDOWS["part"]
    monkeypatch.setenv("FASTGAN_SHARD_CACHE_GB", str(limit / 1e9))
    with served(shards / "part") as server:
        dataset = ImageFolder(find_images(server.url), (6, 6), "fit", seed=5)
        largest = 0
        for k in range(COUNT - dataset._order.window // 2):  # then the next epoch's shards are fetched ahead
            dataset.sample(k)
            if k % 10 == 0:
                with contextlib.suppress(FileNotFoundError):  # deleted by the thread that fetches
                    largest = max(largest, sum(path.stat().st_size for path in cache.glob("*.tar")))
        total = len(list((shards / "part").glob("*.tar")))
        fetched = {name: count for name, count in server.requests.items() if name.endswith(".tar")}
    assert len(fetched) == total
    # Near an epoch's ends more than a window is in use, and what was fetched ahead may be deleted unused.
    assert sum(fetched.values()) <= 1.5 * total
    assert 0.5 * limit < largest <= limit + SHARD + 10_000


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
