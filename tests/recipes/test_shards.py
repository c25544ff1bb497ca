"""Recipes train from shards, at a URL too, as from the folder that these were made from."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from fastgan.cli import main
from fastgan.recipes.dcgan.recipe import DCGAN
from fastgan.recipes.starganv2.data import LatentFolder, find_domains, find_latents, split_domains
from fastgan.recipes.starganv2.recipe import StarGANv2
from fastgan.recipes.zi2zi.config import Zi2ZiConfig
from fastgan.recipes.zi2zi.data import PairImages, find_pairs, read_about
from fastgan.recipes.zi2zi.recipe import Zi2Zi
from fastgan.training.data import find_images
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from fastgan.training.shards.store import ShardError
from fastgan.training.shards.writer import write_shards
from tests.recipes.fonts import small_glyphs
from tests.recipes.runs import newest, table
from tests.recipes.starganv2_folders import image_config, write_images, write_latents
from tests.recipes.test_dcgan import small_config
from tests.training.shard_server import served

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_SHARD_CACHE", str(tmp_path / "cache"))


def test_a_run_on_a_url_and_its_resume_in_an_epoch_are_those_of_the_folder_to_the_bit(photo_folder, tmp_path):
    config = small_config(photo_folder, tmp_path / "runs")
    config = dataclasses.replace(config, checkpoint_interval=2, eval_interval=4)
    expected = train(DCGAN, dataclasses.replace(config, exp_name="folder"))
    write_shards(photo_folder, tmp_path / "shards", shard_size=50_000)
    with served(tmp_path / "shards") as server:
        remote = dataclasses.replace(config, exp_name="url", train_path=server.url)
        train(DCGAN, dataclasses.replace(remote, num_steps=2))
        actual = train(DCGAN, dataclasses.replace(remote, resume=True))
    weights = newest(actual)
    for key, value in newest(expected).items():
        assert torch.equal(weights[key], value), key
    assert table(actual / "metrics.csv") == table(expected / "metrics.csv")
    assert table(actual / "evaluation.csv")[-1] == table(expected / "evaluation.csv")[-1]


def test_a_run_ends_with_an_error_that_names_url_and_shard(photo_folder, tmp_path):
    write_shards(photo_folder, tmp_path / "shards", shard_size=50_000)
    (tmp_path / "shards" / "00001.tar").unlink()
    with served(tmp_path / "shards") as server:
        config = dataclasses.replace(small_config(photo_folder, tmp_path / "runs"), train_path=server.url)
        with pytest.raises(ShardError, match=f"00001.tar of {server.url} is not there"):
            train(DCGAN, config)


def test_domains_in_shards_are_those_of_the_folder(tmp_path):
    folder = write_images(tmp_path / "images")
    write_shards(folder, tmp_path / "shards", shard_size=8000)
    batches = []
    for place in (folder, tmp_path / "shards"):
        config = image_config(place, tmp_path / "runs")
        recipe = StarGANv2(config, Runtime(config))
        with contextlib.closing(recipe.batches(3)) as stream:
            batches.append(next(stream))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    with pytest.raises(FileNotFoundError, match="shards has no folder 'dusk'; it has: day, night"):
        find_domains(tmp_path / "shards", ["dusk", "day"])


def test_latents_in_shards_are_those_of_the_folder(tmp_path):
    folder = write_latents(tmp_path / "latents")
    write_shards(folder, tmp_path / "shards", shard_size=20_000)
    datasets = []
    for place in (folder, tmp_path / "shards"):
        files, _ = split_domains(find_domains(place), "", find_latents)
        datasets.append([LatentFolder(part, (4, 16, 16), 0.2, seed=1) for part in files])
    for here, there in zip(*datasets, strict=True):
        assert all(np.array_equal(there.sample(k), here.sample(k)) for k in range(len(here)))


def test_glyphs_in_shards_are_those_of_the_folder(tmp_path):
    folder = small_glyphs(tmp_path / "glyphs")
    write_shards(folder, tmp_path / "shards", shard_size=20_000)
    assert read_about(tmp_path / "shards") == read_about(folder)
    (here, fonts), (there, names) = find_pairs(folder), find_pairs(tmp_path / "shards")
    assert fonts == names and [pair[1:] for pair in there] == [pair[1:] for pair in here]
    first, second = (PairImages(pairs, 16, augment=0.1, seed=1) for pairs in (here, there))
    for k in range(8):
        assert all(np.array_equal(a, b) for a, b in zip(first.sample(k), second.sample(k), strict=True))


@pytest.mark.filterwarnings("ignore:skipped unusable image")
def test_glyphs_with_an_unusable_image_are_read_from_shards_as_from_the_folder(tmp_path):
    folder = small_glyphs(tmp_path / "glyphs")
    table = (folder / "glyphs.csv").read_text().splitlines()
    (folder / table[1].split(",")[0]).write_bytes(b"no image")
    (folder / "glyphs.csv").write_text("\n".join([table[0], *(f"./{row}" for row in table[1:])]) + "\n")
    write_shards(folder, tmp_path / "shards")
    here, there = (PairImages(find_pairs(place)[0], 16, seed=1) for place in (folder, tmp_path / "shards"))
    for k in range(len(here)):
        assert all(np.array_equal(a, b) for a, b in zip(here.sample(k), there.sample(k), strict=True))


def test_a_checkpoint_is_written_without_reading_the_data_again(tmp_path, monkeypatch):
    folder = small_glyphs(tmp_path / "glyphs")
    config = Zi2ZiConfig(train_path=str(folder), accelerator="cpu", width=4, d_width=2, perceptual_weight=0)
    recipe = Zi2Zi(config, Runtime(config))
    expected = read_about(folder)
    shutil.rmtree(folder)
    assert recipe.about_for_use() == expected


def test_commands_that_write_beside_what_they_read_take_folders_alone(tmp_path, capsys):
    write_shards(write_images(tmp_path / "images"), tmp_path / "shards")
    assert len(find_images(tmp_path / "shards")) == 24
    arguments = ["--checkpoint", str(tmp_path / "none"), "--images_dir", str(tmp_path / "shards")]
    assert main(["stegastamp", "encode", *arguments, "--secret", "x", "--save_dir", str(tmp_path / "o")]) == 1
    assert "holds no image" in capsys.readouterr().err
