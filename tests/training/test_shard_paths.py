"""Files and folders in shards, used as those of a disk are."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from fastgan.training.data import ImageFolder, files_digest, find_images, split_held_out
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.paths import data_root, on_disk
from fastgan.training.shards.writer import write_shards
from tests.training.shard_server import served, write_images

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

pytestmark = pytest.mark.usefixtures("cache")


def test_paths_in_shards_are_as_those_of_the_folder(few, tmp_path):
    folder = tmp_path / "few-images"
    root = data_root(few)
    assert [path.name for path in root.iterdir()] == sorted(path.name for path in folder.iterdir())
    there, here = root / "00" / "0031.png", folder / "00" / "0031.png"
    for attribute in ("name", "stem", "suffix"):
        assert getattr(there, attribute) == getattr(here, attribute)
    assert there.read_bytes() == here.read_bytes() and there.is_file() and not there.is_dir()
    assert there.relative_to(root) == here.relative_to(folder)
    assert there.parent == root / "00" and there.parent.is_dir() and not there.parent.is_file()
    assert not (root / "nothing").exists() and (root / "00").exists()
    assert str(there) == str(few / "00" / "0031.png") and there in {there.resolve()}
    with on_disk(there) as copy:
        assert copy.read_bytes() == here.read_bytes() and copy.suffix == ".png"
    assert not copy.exists()
    with on_disk(here) as same:
        assert same == here
    for name in ("./00/0031.png", "00//0031.png", "00/./0031.png", "00/0031.png/"):
        assert (root / name).is_file() and str(root / name) == str(there)
    images = find_images(few)
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


def test_shards_are_not_held_out_from_themselves_however_they_are_spelled(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(few)
    for other in (few, "link", few / ".." / "few", f"file://{few}"):
        with pytest.raises(
            ValueError, match="val_path must not lie in train_path: both hold 60 images, like .*00/0000.png"
        ):
            split_held_out("few", other)
    shutil.copytree(few, tmp_path / "copy")
    assert len(split_held_out("few", "copy")[1]) == 60, "as copies of a folder"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork beside threads
def test_shards_of_a_url_are_read_after_fork_and_pickling(few):
    with served(few) as server:
        file = find_images(server.url)[0]
        expected = file.read_bytes()
        file.prefetch()
        file.store.source.cache.path(file.store.index.shards[0]).unlink()
        read, write = os.pipe()
        child = multiprocessing.get_context("fork").Process(target=lambda: os.write(write, file.read_bytes()))
        child.start()
        child.join()
        assert child.exitcode == 0 and os.read(read, 1 << 16) == expected
        os.close(read), os.close(write)
        copy = pickle.loads(pickle.dumps(file))
        assert copy == file and copy.read_bytes() == expected
        assert copy.store.source is not file.store.source
        assert server.requests[INDEX] == 1, "a run sees the data as it was when it began"


def test_the_digest_tells_other_names_and_another_index(few, tmp_path):
    folder, plain = tmp_path / "few-images", find_images(tmp_path / "few-images")
    shutil.copytree(folder, tmp_path / "copy")
    assert files_digest(folder, plain) == files_digest(tmp_path / "copy", find_images(tmp_path / "copy"))
    write_shards(folder, tmp_path / "again", shard_size=25_000)
    write_shards(folder, tmp_path / "other", shard_size=50_000)
    digests = [
        files_digest(place, find_images(place)) for place in (few, tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "copy" / "00" / "0007.png").rename(tmp_path / "copy" / "00" / "7.png")
    assert files_digest(folder, plain) != files_digest(tmp_path / "copy", find_images(tmp_path / "copy"))
