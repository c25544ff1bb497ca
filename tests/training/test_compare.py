"""`fastgan compare`: one page for several runs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from fastgan.cli import main
from fastgan.training.compare import _short_names, compared, write_comparison
from fastgan.training.diagnose import diagnose
from tests.training.test_report import Markup


def run(folder, rows, options):
    folder.mkdir(parents=True)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in options.items()))
    return folder


SCRIPTS = 4  # three of the page, and its data


@pytest.fixture
def runs(tmp_path):
    first = [{"step": n, "D_loss": 1.0 + n, "l1_loss": 0.5} for n in range(1, 21)]
    second = [{"step": 2 * n, "D_loss": 0.5, "bit_acc": 0.5} for n in range(1, 11)]
    return [
        run(tmp_path / "a" / "first", first, {"exp_name": "first", "lr": 0.1, "seed": 1}),
        run(tmp_path / "a" / "second", second, {"exp_name": "second", "lr": 0.2, "seed": 1, "beta": 0.5}),
    ]


def test_runs_are_put_side_by_side(runs):
    found = compared([diagnose(path) for path in runs])
    assert found.names == ["first", "second"]
    assert found.options == {"lr": [0.1, 0.2], "beta": [None, 0.5]}
    assert found.figures == {"D_loss": [20.5, 0.5], "l1_loss": [0.5, None], "bit_acc": [None, 0.5]}
    assert found.curves["D_loss"]["second"] == ([2 * n for n in range(1, 11)], [0.5] * 10)
    assert found.questions["Who is winning?"] == ["D_loss"]
    assert found.questions["Does it learn the task?"] == ["l1_loss", "bit_acc"]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    rows = [{"step": n, "D_loss": 1} for n in range(5)]
    paths = [run(tmp_path / place / "run", rows, {}) for place in ("a", "b")]
    assert compared([diagnose(path) for path in paths]).names == ["a/run", "b/run"]


@pytest.mark.parametrize(
    "paths, names",
    [(("/a", "/b/a"), ["/a", "b/a"]), (("/a", "/b"), ["a", "b"]), (("/a/c", "/b/a/c"), ["/a/c", "b/a/c"])],
)
def test_a_name_from_the_root_on_has_one_slash_there(paths, names):
    assert _short_names([Path(path) for path in paths]) == names


def test_the_page_has_verdicts_options_figures_and_a_plot_of_each_column(runs, tmp_path):
    page = write_comparison(compared([diagnose(path) for path in runs]), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    found = Markup(text)
    assert text.count("<img") == 3, "for browsers without scripts"
    assert text.count("</script>") == SCRIPTS
    for part in ("2 runs compared", "Options that differ", "Final figures", "lr", "20.5", "Who is winning?"):
        assert part in found.text
    assert "nothing is wrong" in found.text


def test_text_of_runs_is_escaped(tmp_path):
    rows = [{"step": n, "<script>$x$": n} for n in range(5)]
    paths = [run(tmp_path / name, rows, {"note": f"'<b>{name}'"}) for name in ("a", "b<i>")]
    page = write_comparison(compared([diagnose(path) for path in paths]), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert not {"b", "i"} & Markup(text).tags
    assert text.count("</script>") == SCRIPTS


def test_options_of_files_leave_runs_alone(runs, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("n,a\n" + "".join(f"{n},2\n" for n in range(1, 6)))
    arguments = [
        "--columns",
        "step=n,D_loss=a",
        "--adversarial",
        "hinge",
        "--output",
        str(tmp_path / "c.html"),
    ]
    assert main(["compare", str(runs[0]), str(path), *arguments]) == 0
    assert main(["diagnose", str(runs[0]), *arguments[:2]]) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "1e300", "-1e39"])
def test_values_that_cannot_be_drawn_are_gaps(value, tmp_path):
    rows = [{"step": n, "D_loss": 1 if n < 4 else value} for n in range(8)]
    paths = [run(tmp_path / name, rows, {}) for name in ("a", "b")]
    found = compared([diagnose(path) for path in paths])
    assert math.isfinite(found.figures["D_loss"][0])
    write_comparison(found, tmp_path / "page.html")


def test_the_command_writes_one_page_and_takes_logs_of_other_trainers(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("iter;errD\n" + "".join(f"{n};0,5\n" for n in range(9)))
    assert main(["compare", *map(str, runs), "log.csv"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert "log.csv" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert main(["compare", *map(str, runs)]) == 1
    assert "comparison.html is there already: replace with --overwrite" in capsys.readouterr().err
    assert main(["compare", *map(str, runs), "--overwrite"]) == 0


def test_options_are_compared_among_the_runs_that_have_some(runs, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,D_loss\n" + "".join(f"{n},1\n" for n in range(9)))
    found = compared([diagnose(path) for path in (runs[0], log, runs[1])])
    assert found.options == {"lr": [0.1, None, 0.2], "beta": [None, None, 0.5]}
    assert not [note for each in found.runs for note in each.notes if "config.yaml" in note]
    assert compared([diagnose(path) for path in (runs[0], log)]).options == {}


def test_options_that_cannot_be_read_are_told_and_the_rest_compared(runs, tmp_path):
    (runs[0] / "config.yaml").write_text("{")
    third = run(tmp_path / "third", [{"step": n, "D_loss": 1} for n in range(9)], {"lr": 0.3})
    found = compared([diagnose(path) for path in (*runs, third)])
    assert found.options["lr"] == [None, 0.2, 0.3]
    assert "cannot be read as YAML" in found.runs[0].notes[0]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a/first"], "compare takes at least two runs, got 1"),
        (["a/first", "a/first/"], "compare takes each run once, got a/first twice"),
        (["a/first", "a/none"], "a/none does not exist"),
        (
            ["a/first", "a/second", "--output", "page.txt"],
            "--output must name a page, such as comparison.html",
        ),
        (["a/first", "a/second", "--output", "none/page.html"], "none/page.html"),
    ],
)
def test_mistakes_are_one_line(arguments, said, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("fastgan: error: ") and error.count("\n") == 1


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory):
    """Two runs of 60 columns, one of which stops half-way, with a spike each, and a gap."""
    names, folder = [f"fig{n}" for n in range(60)], tmp_path_factory.mktemp("long")
    paths = []
    for name, count, spike in (("a", 3000, 1234), ("b", 1500, 77)):
        rows = [{"step": 10 * n} | dict.fromkeys(names, math.sin(n)) for n in range(1, count + 1)]
        rows[spike] = rows[spike] | {"fig0": 500.0, "fig1": -500.0}
        for row in rows[200:900]:
            row["fig2"] = ""
        paths.append(run(folder / name, rows, {}))
    return paths


def test_long_curves_are_thinned_without_losing_a_spike_and_that_is_said(long_runs, tmp_path):
    page = write_comparison(compared([diagnose(path) for path in long_runs]), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert len(text) < 1e6
    assert "are drawn by 150 bins of steps: of each, a run's lowest and highest values" in Markup(text).text
    plots = json.loads(re.search(r'<script[^>]*id="curves"[^>]*>(.*?)</script>', text, re.DOTALL)[1])["plots"]
    by_title = {plot["title"]: plot for plot in plots}
    for title, spike in (("fig0", 500), ("fig1", -500)):
        plot = by_title[title]
        assert plot["steps"] == sorted(set(plot["steps"])) and len(plot["steps"]) == 2 * 150
        for curve, place in zip(plot["curves"], (12350, 780), strict=True):
            (row,) = [row for row, value in enumerate(curve["values"]) if value == spike]
            assert abs(plot["steps"][row] - place) <= 30000 / 150
    first, second = by_title["fig0"]["curves"]
    assert first["values"][-1] not in ("", None) and second["values"][-1] in ("", None), "it stopped half-way"
    mean = [value for value in first["means"] if value != ""]
    assert len(mean) == 150 and max(mean) == pytest.approx(500 / 20, abs=3)
    assert None in by_title["fig2"]["curves"][0]["values"], "where nothing was measured"


def test_the_first_curves_alone_are_drawn_for_browsers_without_scripts(long_runs, tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.training.compare.MOST_PICTURES", 2)
    page = write_comparison(compared([diagnose(path) for path in long_runs]), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 2 and "The curves but for the first 2 need JavaScript." in text
