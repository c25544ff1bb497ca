"""Data that other packages ship, written once."""

from __future__ import annotations

import pytest

from fastgan.training import built_in
from fastgan.training.built_in import data_folder
from fastgan.training.data import find_images, split_held_out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name, train, held_out", [("digits", 1437, 360), ("photographs", 12, 3)])
def test_parts_hold_other_images(name, train, held_out):
    files = split_held_out(f"builtin:{name}/train", f"builtin:{name}/val")
    assert [len(part) for part in files] == [train, held_out]


def test_it_is_made_once_and_whole(cache, monkeypatch):
    def fails(folder):
        (folder / "half.png").write_bytes(b"")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(built_in, "write_digits", fails)
        with pytest.raises(OSError, match="disk full"):
            data_folder("builtin:digits")
    assert not list(cache.rglob("*.png"))
    folder = data_folder("builtin:digits")
    monkeypatch.setattr(built_in, "write_digits", fails)
    assert data_folder("builtin:digits") == folder and len(find_images(folder)) == 1797


def test_other_names_are_refused_and_folders_left_alone(tmp_path):
    with pytest.raises(ValueError, match="one of digits, .*photographs, got .faces.$"):
        data_folder("builtin:faces/train")
    assert data_folder(str(tmp_path)) == tmp_path
