"""`make tables`: numbers of README and docs come from benchmarks/results, and none is written by hand."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import pytest

from tests.processes import ROOT

spec = importlib.util.spec_from_file_location("tables", ROOT / "tools" / "tables.py")
assert spec and spec.loader
tables = sys.modules["tables"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

FASTGAN = {"op": "blur", "provider": "fastgan", "size": "4x3, wide", "mode": "full", "memory": "returned"}
STEP = {"recipe": "dcgan", "provider": "fastgan", "mean_s": 0.1, "median_s": 0.09}
MARKED = "It takes <!--n:ops/blur/fastgan/4x3, wide/full ms-->9 ms<!--/-->, then\n"
BLUR = "ops/blur/{}/4x3, wide/full"


@pytest.fixture
def results(tmp_path):
    machine = {"device": "CPU", "torch": "2.15.0", "date": "2026-01-02"}
    measured = {"median_s": 0.0024, "saved_bytes": 800} | machine
    rows = [
        FASTGAN | measured,
        FASTGAN | measured | {"provider": "kornia", "median_s": 0.0048, "saved_bytes": 7.9e6},
        FASTGAN | measured | {"memory": "kept", "median_s": 0.002},
    ]
    (tmp_path / f"{tables.MACHINE}.json").write_text(json.dumps(rows))
    steps = [STEP, STEP | {"provider": "reference", "mean_s": 0.103}]
    (tmp_path / f"recipes-{tables.MACHINE}.json").write_text(json.dumps(steps))
    (tmp_path / "stegastamp-demo.json").write_text(json.dumps({"minutes": 5.04, "figures": {"psnr": 30.56}}))
    return tables.Results(tmp_path)


def test_texts_are_what_the_results_say():
    faults = [fault for path in tables.texts() for fault in tables.faults_of(path, tables.Results())]
    assert not faults, "\n".join(faults)


def test_the_readme_is_short_and_its_table_too():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    table = tables.TABLE.search(text)["text"]
    assert len(re.findall(r"^\|", table, re.MULTILINE)) - 2 <= 7


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (BLUR.format("fastgan") + " ms", "2.4 ms"),
        (BLUR.format("fastgan") + "/kept ms", "2.0 ms"),
        (BLUR.format("kornia") + " times", "2.0x"),
        (BLUR.format("kornia") + " saved", "7.9 MB"),
        ("recipes/dcgan/fastgan ms", "100 ms"),
        ("recipes/dcgan/reference times", "1.03x"),
        ("stegastamp-demo minutes:.1f", "5.0"),
        ("stegastamp-demo figures.psnr:.1f", "30.6"),
    ],
)
def test_a_figure_is_named_by_row_and_field(results, name, text):
    assert results.figure(name) == text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ops/blur/scipy/4x3, wide/full ms", "0 rows"),
        ("ops/blur/fastgan ms", "no kind of rows"),
        ("nowhere/blur ms", "no kind of rows"),
        ("stegastamp-demo ssim:.2f", "has no ssim"),
        ("stegastamp-demo figures.ssim:.2f", "has no figures.ssim"),
    ],
)
def test_what_is_not_in_the_results_is_refused(results, name, said):
    with pytest.raises(tables.UnknownResult, match=said):
        results.figure(name)
    with pytest.raises(tables.UnknownResult, match="no table 'rows'"):
        tables.write("<!-- table: rows -->\n<!-- /table -->", results)


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.4e-5, "0.044 ms"), (8.6e-4, "0.86 ms"), (9.96e-4, "1.0 ms"), (0.0158, "15.8 ms"), (0.22851, "229 ms"),
     (0.9996, "1.00 s"), (1.179, "1.18 s"), (5.05, "5.0 s")],
)  # fmt: skip
def test_times_have_two_or_three_digits(value, text):
    assert tables.seconds(value) == text


def test_numbers_and_tables_are_written_again_and_again(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKED + "\n<!-- table: op blur -->\nold\n<!-- /table -->\n")
    faults = tables.faults_of(page, results, tmp_path)
    assert [fault.split(" differs")[0] for fault in faults] == [
        "page.md:3: op blur", "page.md:1: ops/blur/fastgan/4x3, wide/full ms",
    ]  # fmt: skip
    page.write_text(tables.write(page.read_text(), results))
    text = page.read_text()
    assert "-->2.4 ms<!--/-->" in text and "old" not in text
    line = "4x3, wide | forward + backward | returned | 2.4 ms | 4.8 ms (2.0x) | 800 bytes (kornia: 7.9 MB)"
    assert f"| {line} |" in text
    assert tables.write(text, results) == text and not tables.faults_of(page, results, tmp_path)


def test_no_measurement_is_written_by_hand():
    text = """
It takes 0.86 ms, 18x less, 18 times, saves 7.7 MB at 30.6 dB, in 5.0 minutes, 42% of it.
Of 4x3x400x400, 16 x 64, x4, 64x64, 100 bits, torch 2.15, 2 cores, a 7x7 kernel: nothing was measured.
More than <!--fixed: kSmallest of outputs.cpp-->4 MB<!--/--> and <!--n:ops ms-->3 ms<!--/-->.
"""
    actual = tables.written_by_hand(text)
    expected = ["0.86 ms", "18x", "18 times", "7.7 MB", "30.6 dB", "5.0 minutes", "42%"]
    assert [number for _, number in actual] == expected
    assert {line for line, _ in actual} == {2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MARKED.removeprefix("It takes "), "must not begin with a marker"),
        ("* " + MARKED.removeprefix("It takes "), "must not begin with a marker"),
        ("It takes <!--n:ops/blur/fastgan/4x3, wide/full ms-->2.4 ms, then.", "without its end"),
        (MARKED.replace("blur", "blurr"), None),
    ],
)
def test_a_broken_marker_is_found(results, tmp_path, text, said):
    page = tmp_path / "page.md"
    page.write_text(text)
    if said:
        assert any(said in fault for fault in tables.faults_of(page, results, tmp_path))
    else:
        with pytest.raises(tables.UnknownResult):
            tables.faults_of(page, results, tmp_path)


def test_a_question_has_means_deviations_and_verdicts_in_the_order_of_its_variants(tmp_path):
    machine = {"device": "CPU", "torch": "2.15.0", "date": "2026-01-02", "question": "collapse"}
    said = [{"name": "mode_collapse", "subject": ""}, {"name": "steps_too_small", "subject": "D"}]
    rows = [
        machine
        | {"variant": variant, "number": number, "seed": seed, "recipe": "dcgan"}
        | {"figures": {"ratio": number + 0.1 * seed, "at step": None if seed else 5.0}}
        | {"verdicts": said[: 2 - seed] if number else []}
        for number, variant in ((1, "a change"), (0, "the base"))
        for seed in (0, 1)
    ]
    (tmp_path / "questions-cpu.json").write_text(json.dumps(rows))
    results = tables.Results(tmp_path)
    text = tables.TABLES["question"](results, "collapse")
    assert text.splitlines()[:4] == [
        "| | `ratio` | at step | the monitor says |",
        "|---|---|---|---|",
        "| the base | 0.05 ± 0.071 | 5 (1 of 2) |  |",
        "| a change | 1.05 ± 0.071 | 5 (1 of 2) | `mode_collapse`, `steps_too_small D` (1 of 2) |",
    ]
    assert results.figure("questions/collapse/a change ratio:.2f") == "1.05"
    with pytest.raises(tables.UnknownResult, match="no row of a question 'phase'"):
        tables.TABLES["question"](results, "phase")
    with pytest.raises(tables.UnknownResult, match="has the variant 'other'"):
        results.figure("questions/collapse/other ratio:.2f")
