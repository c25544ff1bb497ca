"""`fastgan bench stream`: every reader is measured, on the same images."""

from __future__ import annotations

import json

import pytest

from fastgan.cli import main

pytest.importorskip("pytest_benchmark")
pytest.importorskip("aiohttp")


def test_every_reader_and_the_step_have_a_row(photo_folder, tmp_path, capsys):
    options = ["--images", str(photo_folder), "--files", "192", "--image_size", "16", "--steps", "0"]
    assert main(["bench", "stream", *options, "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("stream-*.json")
    rows = {row["provider"]: row for row in json.loads(path.read_text())}
    assert {
        "folder, threads", "folder, 1 thread", "folder, processes", "shards, threads",
        "shards at a URL, threads",
    } <= rows.keys()  # fmt: skip
    assert all(0 < row["p20"] <= row["images_per_second"] <= row["p80"] for row in rows.values())
    assert "of folder" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["bench", "stream", "--files", "10"])
    assert "--files must be at least 192, got 10" in capsys.readouterr().err
