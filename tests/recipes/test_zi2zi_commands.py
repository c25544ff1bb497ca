"""Text from trained runs of zi2zi."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import pytest
from PIL import Image

from fastgan.cli import main
from fastgan.recipes.zi2zi.model import Zi2ZiModel
from fastgan.recipes.zi2zi.recipe import Zi2Zi
from fastgan.training.loop import train
from tests.recipes.fonts import CHARACTERS, SOURCE, TARGETS, font_file, small_config, small_glyphs
from tests.recipes.runs import PROBES


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    return small_glyphs(tmp_path_factory.mktemp("glyphs") / "pairs")


@pytest.fixture
def small(glyphs, tmp_path):
    return small_config(glyphs, tmp_path / "runs")


def sampled(run, tmp_path, *more, text="Bad 1"):
    output = tmp_path / "out" / "text.png"
    arguments = ["--checkpoint", str(run), "--text", text, "--output", str(output), "--overwrite", *more]
    code = main(["sample", "zi2zi", *arguments])
    return Image.open(output).copy() if code == 0 else None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_text_in_a_style_and_between_two(small, tmp_path, precision, capsys):
    config = dataclasses.replace(small, precision=precision, num_steps=12, eval_interval=12, lr=0.02)
    run = train(Zi2Zi, config)
    with (run / "evaluation.csv").open(newline="") as file:
        figures = next(csv.DictReader(file))
    assert {*figures} == {
        "step",
        "l1",
        "l1_of_source",
        "l1_ratio",
        "l1_ratio_worst",
        "ssim",
        "ssim_of_source",
        *PROBES,
    }
    first, last = (sampled(run, tmp_path, "--category", name) for name in ("0", "cmr10"))
    assert first.size == last.size == (5 * 32, 32) and first.tobytes() != last.tobytes()
    assert first.crop((3 * 32, 0, 4 * 32, 32)).getextrema() == ((255, 255),) * 3, "a space stays empty"
    checkpoint = run / "checkpoints" / "step-00000012.safetensors"
    assert sampled(checkpoint, tmp_path, "--category", TARGETS[0]).tobytes() == first.tobytes()
    steps = sampled(run, tmp_path, "--interpolate", "0", "1", "--steps", "3")
    assert steps.size == (5 * 32, 3 * 32)
    assert steps.crop((0, 0, 160, 32)).tobytes() == first.tobytes()
    assert steps.crop((0, 64, 160, 96)).tobytes() == last.tobytes()
    assert sampled(run, tmp_path, "--category", "0", text="a" * 20).size == (16 * 32, 2 * 32)
    source = Zi2ZiModel.load(run).render("B")
    assert json.loads((run / "glyphs.json").read_text())["source"]["name"] == SOURCE
    expected = Image.open(f"{small.train_path}/0_{CHARACTERS.index('B'):05d}.png").crop((0, 0, 32, 32))
    assert (source[0, 0] * 255).round().byte().flatten().tolist() == [*expected.tobytes()]


def test_bad_input_to_sampling(small, tmp_path, capsys):
    run = train(Zi2Zi, dataclasses.replace(small, num_steps=1))
    for more, text, message in (
        (["--category", "2"], "A", "no category '2': they are 0 to 1, 0 DejaVuSerif-Bold, 1 cmr10"),
        (["--category", "0"], "A漢", "DejaVuSans.ttf has no glyphs for '漢'"),
        (["--category", "0"], " ", "the text has no character to draw"),
        (["--category", "0", "--source-font", "none.ttf"], "A", "no such font: none.ttf"),
        (["--category", "0", "--interpolate", "0", "1"], "A", "give either --category or --interpolate"),
        ([], "A", "give either --category or --interpolate"),
        (["--interpolate", "0", "1", "--steps", "1"], "A", "--steps must be at least 2, got 1"),
    ):
        assert sampled(run, tmp_path, *more, text=text) is None
        assert message in capsys.readouterr().err
    about = json.loads((run / "glyphs.json").read_text())
    about["source"]["path"] = "/nowhere/font.ttf"
    (run / "glyphs.json").write_text(json.dumps(about))
    assert sampled(run, tmp_path, "--category", "1") is None
    assert "not at /nowhere/font.ttf any more: give font (--source-font)" in capsys.readouterr().err
    grid = sampled(run, tmp_path, "--category", "1", "--source-font", str(font_file("cmss10")))
    assert grid is not None


def test_ready_made_pairs_in_the_original_s_layout(small, tmp_path, capsys):
    folder = tmp_path / "pairs"
    shutil.copytree(small.train_path, folder, ignore=shutil.ignore_patterns("glyphs.*"))
    for path in folder.iterdir():
        pair = Image.open(path).copy()
        turned = Image.new("L", pair.size)
        turned.paste(pair.crop((0, 0, 32, 32)), (32, 0))
        turned.paste(pair.crop((32, 0, 64, 32)), (0, 0))
        turned.save(path)
    config = dataclasses.replace(
        small, train_path=str(folder), source_side="right", num_steps=1, channels=3, category_num=5
    )
    run = train(Zi2Zi, config)
    assert sampled(run, tmp_path, "--category", "4") is None
    assert "does not tell its source font" in capsys.readouterr().err
    picture = sampled(run, tmp_path, "--category", "4", "--source-font", str(font_file(SOURCE)))
    assert picture.size == (5 * 32, 32)
