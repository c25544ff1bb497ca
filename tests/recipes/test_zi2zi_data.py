"""Rendering of glyphs from fonts, and finding, splitting and reading of pairs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan.cli import main
from fastgan.recipes.zi2zi.data import Pair, PairImages, find_pairs, split_characters
from fastgan.recipes.zi2zi.fonts import Font, Geometry, common_geometry
from fastgan.recipes.zi2zi.glyphs import read_charset, write_demo_glyphs, write_glyphs
from fastgan.training.data import first_batch
from tests.recipes.fonts import font_file, make_collection, make_font, make_variable_font

SANS, SERIF, MATH = "DejaVuSans", "DejaVuSerif-Bold", "cmmi10"


def pixels(path):
    return np.array(Image.open(path))


def test_charsets(tmp_path):
    latin, common = read_charset("latin"), read_charset("gb2312-common")
    assert {*"Az09~é¿"} <= set(latin) and not {" ", "\x7f", "\xa0", "\xad"} & set(latin) and len(latin) == 188
    assert len(common) == len(set(common)) == 3755 and (common[0], common[-1]) == ("啊", "座")
    file = tmp_path / "mine.txt"
    file.write_text("\ufeffba b\n\n漢a\t😀", encoding="utf-8")
    assert read_charset(str(file)) == ["b", "a", "漢", "😀"]


@pytest.mark.parametrize(
    "data, message",
    [
        ("abc漢字".encode("gb18030"), "byte 0x9D at offset 3.*iconv -f GB18030 -t UTF-8"),
        ("漢字".encode("utf-16"), "byte 0xFF at offset 0.*iconv -f UTF-16"),
        ("ab".encode("utf-16-le"), "byte 0x00 at offset 1.*iconv -f UTF-16"),
        (b" \n", "holds no character"),
    ],
)
def test_charset_files_in_another_encoding_are_refused(tmp_path, data, message):
    file = tmp_path / "mine.txt"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_charset(str(file))


SETS = {"jp": ["永", "あ"], "kr": ["가", "永"]}


@pytest.mark.parametrize(
    "content, choice, expected",
    [
        (SETS, "#jp", "永あ"), (SETS, "#kr", "가永"), ({"one": ["b", "a", "b"]}, "", "ba"),
        (["b", "漢", "a"], "", "b漢a"), ("ba", "", "ba"), ({"x": "ba"}, "#x", "ba"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".json", ".txt"])
def test_charsets_in_json(content, choice, expected, ending, tmp_path):
    file = tmp_path / f"charset{ending}"
    file.write_text(json.dumps(content), encoding="utf-8")
    if ending == ".txt" and isinstance(content, str):
        expected = '"ba'  # a text like any other
    assert read_charset(f"{file}{choice}") == [*expected]


@pytest.mark.parametrize(
    "text, choice, message",
    [
        (json.dumps(SETS), "", r"several lists: choose one as .*charset\.json#NAME, of: jp, kr"),
        (json.dumps(SETS), "#cn", "has no list 'cn'; it has: jp, kr"),
        ('{"jp": ["永"', "", "cannot be read as JSON"),
        ('{"jp": [1, 2]}', "", "must hold a list of characters"),
        ("[" * 100_000, "", "cannot be read as JSON"),
        ("{}", "", "several lists"),
        ("[]", "", "holds no character"),
        ("3", "", "must hold a list of characters"),
    ],
)
def test_charsets_in_json_that_are_none(text, choice, message, tmp_path):
    file = tmp_path / "charset.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_charset(f"{file}{choice}")


def test_a_text_that_begins_as_json_is_a_text(tmp_path):
    (tmp_path / "a#b.txt").write_text("{}[]ab")
    assert read_charset(str(tmp_path / "a#b.txt")) == [*"{}[]ab"]
    with pytest.raises(ValueError, match="is not in JSON and has no list 'x' to choose"):
        read_charset(f"{tmp_path / 'a#b.txt'}#x")


def test_faces_of_a_collection(tmp_path):
    fonts = make_font(tmp_path / "One.ttf", drawn="A"), make_font(tmp_path / "Two.ttf", drawn="B")
    path = make_collection(tmp_path / "both.ttc", *fonts)
    first, second, named = Font(path), Font(f"{path}#1"), Font(f"{path}#Two")
    assert first.has("A") and not first.has("B") and first.name == "both"
    assert second.has("B") and not second.has("A") and (second.name, named.name) == ("both#1", "both#Two")
    assert named.has("B") and Font(second.location).has("B")
    assert first.choice == "face 0, One, of: 0 One, 1 Two"
    for wrong in ("2", "Three"):
        with pytest.raises(ValueError, match=f"has no face '{wrong}'; it has: 0 One, 1 Two"):
            Font(f"{path}#{wrong}")
    with pytest.raises(ValueError, match="neither a collection nor variable"):
        Font(f"{fonts[0]}#1")
    with pytest.raises(FileNotFoundError, match="no such font: .*none.ttc#1"):
        Font(tmp_path / "none.ttc#1")


def test_instances_of_a_variable_font(tmp_path):
    path = make_variable_font(tmp_path / "Wide.ttf")
    narrow, wide = Font(path), Font(f"{path}#Wide")
    assert [font.bounds("A")[0] for font in (narrow, wide)] == pytest.approx([0.2, 0.6], abs=0.02)
    assert narrow.choice == "the default instance, of: Narrow, Wide"
    assert wide.choice == "instance Wide, of: Narrow, Wide"
    with pytest.raises(ValueError, match="has no instance 'Bold'; it has: Narrow, Wide"):
        Font(f"{path}#Bold")


def test_the_choice_is_said_and_found_again(tmp_path, capsys):
    wide, fonts = make_variable_font(tmp_path / "Wide.ttf"), tmp_path / "both.ttc"
    make_collection(
        fonts, make_font(tmp_path / "One.ttf", drawn="A"), make_font(tmp_path / "Two.ttf", drawn="A")
    )
    (tmp_path / "set.json").write_text('{"all": ["A"], "none": ["B"]}')
    arguments = [
        "--source-font", f"{wide}#Wide", "--target-fonts", f"{fonts}#0", f"{fonts}#1", "--size", "32",
        "--charset", f"{tmp_path / 'set.json'}#all", "--output", str(tmp_path / "glyphs"),
    ]  # fmt: skip
    assert main(["data", "glyphs", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "source Wide#Wide: 1 glyphs, 0 missing; instance Wide, of: Narrow, Wide" in printed
    assert "category 1, both#1: 1 glyphs, 0 missing; face 1, Two, of: 0 One, 1 Two" in printed
    about = json.loads((tmp_path / "glyphs" / "glyphs.json").read_text())
    assert Font(about["source"]["path"]).bounds("A")[0] == pytest.approx(0.6, abs=0.02)


def test_fonts_know_what_they_have():
    sans, math = Font(font_file(SANS)), Font(font_file(MATH))
    assert sans.has("A") and sans.has("漢") is False and not sans.has(" ") and not sans.has("\uffff")
    assert math.has("a") and not math.has("é")
    with pytest.raises(ValueError, match=r"has no glyph for '漢' \(U\+6F22\)"):
        sans.draw("漢", Geometry(32, 20, 24))


def test_a_box_for_missing_glyphs_is_no_glyph(tmp_path):
    font = Font(make_font(tmp_path / "boxes.ttf", box="AB", empty="C", drawn="D"))
    assert font.characters.keys() == {*"ABCD"}
    assert [font.has(c) for c in "ABCD"] == [False, False, False, True]


def test_glyphs_share_scale_and_line_and_fit():
    fonts = [Font(font_file(name)) for name in (SANS, SERIF)]
    characters = list("AgjÅ|,'@")
    geometry = common_geometry(fonts, characters, 48)
    for font in fonts:
        for character in characters:
            ink = np.array(font.draw(character, geometry)) < 128
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            assert min(rows[0], columns[0]) >= 1 and max(rows[-1], columns[-1]) <= 46, character
            assert abs(columns[0] - (47 - columns[-1])) <= 2, "centred"
            if character == "A":
                assert abs(rows[-1] + 1 - geometry.baseline) <= 1
    tops = {c: np.flatnonzero((np.array(fonts[0].draw(c, geometry)) < 128).any(1))[0] for c in ",'"}
    assert tops[","] > tops["'"] + 10, "a comma is no apostrophe"
    large = np.array(fonts[0].draw("W", Geometry(32, 100, 30)))
    assert large.min() == 0 and large[:, 0].max() == 255, "what would not fit is drawn smaller"


def test_rendered_pairs_are_source_and_target(tmp_path, capsys):
    charset = tmp_path / "charset.txt"
    charset.write_text("Aaé漢 ", encoding="utf-8")
    out = tmp_path / "out"
    command = ["data", "glyphs", "--source-font", str(font_file(SANS)), "--target-fonts",
               str(font_file(SERIF)), str(font_file(MATH)), "--charset", str(charset), "--size", "40",
               "--output", str(out)]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "4 characters; source DejaVuSans: 3 glyphs, 1 missing (漢)" in printed
    assert "category 1, cmmi10: 2 glyphs, 1 missing (é)" in printed
    with (out / "glyphs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["character"]) for row in rows] == [
        ("0_00000.png", "A"), ("0_00001.png", "a"), ("0_00002.png", "é"),
        ("1_00000.png", "A"), ("1_00001.png", "a"),
    ]  # fmt: skip
    about = json.loads((out / "glyphs.json").read_text(encoding="utf-8"))
    assert [font["missing"] for font in (about["source"], *about["categories"])] == ["漢", "", "é"]
    assert Path(about["source"]["path"]) == font_file(SANS).resolve()
    geometry = Geometry(about["size"], about["pixels"], about["baseline"])
    expected = [np.array(Font(font_file(name)).draw("a", geometry)) for name in (SANS, MATH)]
    assert np.array_equal(pixels(out / "1_00001.png"), np.concatenate(expected, axis=1))
    pairs, names = find_pairs(out)
    assert names == [SERIF, MATH] and [pair.category for pair in pairs] == [0, 0, 0, 1, 1]
    (out / "1_00000.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 files of .*1_00000.png"):
        find_pairs(out)


def test_bad_input_to_the_command(tmp_path, capsys):
    wrong = tmp_path / "gb.txt"
    wrong.write_bytes("漢字".encode("gb18030"))
    chinese = tmp_path / "chinese.txt"
    chinese.write_text("漢字", encoding="utf-8")
    no_font = tmp_path / "no.ttf"
    no_font.write_bytes(b"not a font")
    sans, serif = font_file(SANS), font_file(SERIF)
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "file").write_text("")
    for source, targets, more, message in (
        (sans, [serif], ["--charset", wrong], "is not in UTF-8: byte 0x"),
        (
            sans,
            [serif],
            ["--charset", chinese],
            "DejaVuSans.ttf has none of the 2 characters, such as '漢字'",
        ),
        (sans, [make_font(tmp_path / "d.ttf", drawn="ф")], [], "d.ttf has none of the 188 characters"),
        (sans, [serif], ["--charset", "klingon"], "no such charset: klingon"),
        (tmp_path / "none.ttf", [serif], [], "no such font"),
        (no_font, [serif], [], "no.ttf cannot be read as a font"),
        (sans, [serif, serif], [], "target fonts are told apart by their names"),
        (sans, [serif], ["--size", "8"], "size must be at least 16, got 8"),
        (sans, [serif], ["--output", filled], "filled is not empty"),
    ):
        arguments = ["--source-font", source, "--target-fonts", *targets, "--output", tmp_path / "out", *more]
        assert main(["data", "glyphs", *map(str, arguments)]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_held_out_characters_are_seen_in_no_font_nor_by_another_name(tmp_path):
    # Latin, Greek and Cyrillic letters that look alike.
    characters = "AΑАBΒВEΕЕHΗНKΚКMΜМgjmpqrs"
    write_glyphs(tmp_path / "out", font_file(SANS), [font_file(SERIF), font_file(MATH)], characters, 32)
    pairs, _ = find_pairs(tmp_path / "out")
    for seed in range(10):
        train, held_out = split_characters(pairs, 0.3, seed)
        assert len(train) + len(held_out) == len(pairs) and len({p.character for p in held_out}) == 4
        samples = {pixels(pair.path)[:, :32].tobytes() for pair in train}
        assert not samples & {pixels(pair.path)[:, :32].tobytes() for pair in held_out}
    assert split_characters(pairs, 0.3, 1) == split_characters(pairs, 0.3, 1)
    assert split_characters(pairs, 0.3, 1) != split_characters(pairs, 0.3, 2)
    with pytest.raises(ValueError, match="at least two characters"):
        split_characters(pairs[:1], 0.3)


def save_pair(path, left=0, right=255, size=8):
    path.parent.mkdir(exist_ok=True, parents=True)
    image = np.full((size, 2 * size), left, np.uint8)
    image[:, size:] = right
    Image.fromarray(image).save(path)
    return path


def test_ready_made_pairs(tmp_path):
    for name in ("0_00001", "0_00002", "3_00001"):
        save_pair(tmp_path / "numbers" / f"{name}.png")
    pairs, names = find_pairs(tmp_path / "numbers")
    assert [(p.category, p.character) for p in pairs] == [(0, "1"), (0, "2"), (3, "1")]
    assert names == ["0", "1", "2", "3"]
    for name in ("kai/x001", "song/001", "song/b"):
        save_pair(tmp_path / "folders" / f"{name}.png")
    pairs, names = find_pairs(tmp_path / "folders")
    assert [(p.category, p.character) for p in pairs] == [(0, "1"), (1, "1"), (1, "b")]
    assert names == ["kai", "song"]
    save_pair(tmp_path / "folders" / "alone.png")
    with pytest.raises(ValueError, match="alone.png lies in none"):
        find_pairs(tmp_path / "folders")
    save_pair(tmp_path / "numbers" / "some.png")
    with pytest.raises(ValueError, match="some.png tells no category: name pairs as 3_00042.png"):
        find_pairs(tmp_path / "numbers")
    with pytest.raises(ValueError, match="train_path must name a folder"):
        find_pairs("")


def test_pairs_are_cut_alike_and_turned_to_source_and_target(tmp_path):
    glyph = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    path = tmp_path / "2_00001.png"
    Image.fromarray(np.concatenate([glyph, 255 - glyph], axis=1)).save(path)
    pairs = [Pair(path, 2, "1")]
    image, category = PairImages(pairs, 16).sample(0)
    assert category == 2 and category.dtype == np.int64
    assert np.array_equal(image[:, :16, 0], glyph) and np.array_equal(image[:, 16:, 1], 255 - glyph)
    image, _ = PairImages(pairs, 16, source_side="right").sample(0)
    assert np.array_equal(image[:, 16:, 0], glyph)
    cuts = PairImages(pairs, 16, augment=0.5)
    samples = [cuts.sample(k)[0].astype(int) for k in range(3)]
    assert not np.array_equal(samples[0], samples[1])
    for image in samples:
        assert abs(image[:, :16] + image[:, 16:] - 255).max() <= 1, "both parts show the same place"


def test_images_that_are_no_pairs_are_skipped(tmp_path):
    good = save_pair(tmp_path / "0_1.png")
    bad = tmp_path / "0_2.png"
    Image.new("L", (8, 8)).save(bad)
    images = PairImages([Pair(good, 0, "1"), Pair(bad, 0, "2")], 8)
    with pytest.warns(UserWarning, match="8x8 is no pair"):
        image, _ = first_batch(images, 2)
    assert image.shape == (2, 3, 8, 16)


def test_the_demo_s_glyphs(tmp_path):
    write_demo_glyphs(tmp_path)
    pairs, names = find_pairs(tmp_path)
    assert names == ["DejaVuSerif-Bold", "DejaVuSans-BoldOblique"] and len(pairs) > 1000
    assert len({pair.character for pair in pairs}) > 500
    assert pixels(pairs[0].path).shape == (64, 128)
