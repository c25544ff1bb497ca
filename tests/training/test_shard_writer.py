"""`fastgan data shard`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fastgan.cli import main
from fastgan.training.data import ImageFolder, split_held_out
from fastgan.training.shards import writer
from fastgan.training.shards.index import INDEX
from fastgan.training.shards.paths import data_root
from fastgan.training.shards.writer import write_shards
from tests.training.shard_server import write_images


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 40)
    (tmp_path / "images" / "notes.txt").write_text("of the data")
    (tmp_path / "images" / ".hidden").write_text("")
    long_name = "n" * 120 + "-\N{SNOWMAN}.png"  # needs a header of its own in a tar file
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / long_name)
    return tmp_path / "images"


def shard(folder, out, *options):
    return main(["data", "shard", str(folder), str(out), *options])


def test_shards_hold_the_files_as_they_are_and_tar_reads_them(folder, tmp_path, capsys):
    assert shard(folder, tmp_path / "out", "--shard_size", "0.02") == 0
    text = capsys.readouterr().out
    assert "41 .png, 1 .txt in" in text and "passed over: 1 hidden" in text
    assert "files: 42, shards: 3" in text
    expected = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }
    in_tar = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        assert path.stat().st_size <= 20_000 + tarfile.RECORDSIZE
        with tarfile.open(path) as tar:
            in_tar |= {member.name: tar.extractfile(member).read() for member in tar}
    assert in_tar == expected
    root = data_root(tmp_path / "out")
    assert {file.inner: file.read_bytes() for file in root.files()} == expected
    assert list(root.store.index.files) == [
        path.relative_to(folder).as_posix() for path in sorted(folder / name for name in expected)
    ]


def test_equal_folders_give_equal_shards(folder, tmp_path):
    for name in ("a", "b"):
        assert shard(folder, tmp_path / name, "--shard_size", "0.02") == 0
        (folder / "notes.txt").touch()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_unusable_images_are_named_and_kept_and_too_many_are_an_error(folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes(b"no image")
    assert shard(folder, tmp_path / "out") == 0
    assert f"will skip: {folder / 'broken.png'}: cannot identify" in capsys.readouterr().out
    assert (data_root(tmp_path / "out") / "broken.png").read_bytes() == b"no image"
    (folder / "empty.png").write_bytes(b"")
    assert shard(folder, tmp_path / "none", "--max_unusable", "0.03") == 1
    assert "2 of 43 images cannot be used, and --max_unusable 0.03 allows" in capsys.readouterr().err
    assert not (tmp_path / "none" / INDEX).exists()


@pytest.mark.filterwarnings("ignore:skipped unusable image")
def test_shards_of_a_folder_with_an_unusable_image_train_as_the_folder_to_the_bit(folder, tmp_path):
    (folder / "00" / "0005.png").write_bytes(b"no image")
    write_shards(folder, tmp_path / "out")
    here, there = (split_held_out(place) for place in (folder, tmp_path / "out"))
    for files, sharded in zip(here, there, strict=True):
        assert [file.name for file in sharded] == [file.name for file in files]
        streams = [ImageFolder(part, (6, 6), "random", seed=3) for part in (files, sharded)]
        for k in range(2 * len(files)):
            assert np.array_equal(streams[0].sample(k), streams[1].sample(k))


def test_an_interrupted_command_leaves_no_index(folder, tmp_path, monkeypatch, capsys):
    written = writer._write_shard

    def interrupted(path, number, *arguments):
        if number == 1:
            raise KeyboardInterrupt
        return written(path, number, *arguments)

    monkeypatch.setattr(writer, "_write_shard", interrupted)
    assert shard(folder, tmp_path / "out", "--shard_size", "0.02") == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00000.tar"]
    assert main(["train", "dcgan", "--train_path", str(tmp_path / "out")]) == 1
    assert "holds no image" in capsys.readouterr().err
    assert shard(folder, tmp_path / "out") == 1
    assert "without fastgan-shards.json: what an interruption left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--shard_size", "0"], "--shard_size must be above 0 megabytes, got 0"),
        (["--window", "nan"], "--window must be above 0 megabytes, got nan"),
        (["--max_unusable", "2"], "--max_unusable must lie in [0, 1], got 2"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(folder, tmp_path, capsys, options, reason):
    assert shard(folder, tmp_path / "out", *options) == 1
    assert reason in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_bad_folders_are_named(folder, tmp_path, capsys):
    for source, out, reason in (
        (tmp_path / "none", tmp_path / "out", "no such folder"),
        (folder, folder / "out", "OUT must not lie in FOLDER"),
        (folder, folder / "notes.txt", "OUT must not lie in FOLDER"),
        (tmp_path, folder.parent.parent / folder.parent.name, "OUT must not lie in FOLDER"),
        (folder / "00", folder, "OUT must be a new or empty folder"),
        (folder / "00", folder / "notes.txt", "must be a new or empty folder, got the file"),
    ):
        assert shard(source, out) == 1
        assert reason in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert shard(tmp_path / "empty", tmp_path / "out") == 1
    assert "holds no files" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_index_names_the_window(folder, tmp_path):
    assert shard(folder, tmp_path / "out", "--window", "0.5") == 0
    assert json.loads((tmp_path / "out" / INDEX).read_text())["window"] == 500_000
