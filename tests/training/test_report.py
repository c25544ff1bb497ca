"""Reports of runs that were killed while writing, or that come from untrusted sources."""

from __future__ import annotations

import json
import random
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastgan._tables import read_table
from fastgan.cli import main
from fastgan.training.loop import train
from fastgan.training.report import Section, write_report
from fastgan.training.yaml_files import LARGEST, read_options
from tests.training.toy import Toy, ToyConfig

METRICS = "step,loss_d,lr\n5,0.5,0.1\n10,0.25,0.1\n15,0.125,0.1\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "evaluation.csv").write_text("step,psnr,psnr_bicubic\n10,20.5,18\n15,21.5,18\n")
    (folder / "warnings.csv").write_text("step,warning\n10,mind\n")
    (folder / "config.yaml").write_text("batch_size: 4\nlr: 0.1\n")
    return folder


class Markup(HTMLParser):
    """Collects the tags, attribute names and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags |= {tag, *(f"{tag}.{name}" for name, _ in attributes)}

    def handle_data(self, data):
        self.text += data


def report(folder):
    """Writes the report; returns the page and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        page = write_report(folder, "toy").read_text(encoding="utf-8")
    texts = [str(warning.message) for warning in caught]
    assert all(warning.filename == __file__ for warning in caught), texts
    return Markup(page), texts


@pytest.mark.parametrize(
    "end", ["20,0.0", "20,0.0625,1", "20\n", "x,y,z\n", "20,nan\n", ",,\n", "20,0.0625,1,7\n", "nan,1,1\n",
            "20,\0\0,1\n", "-1,1,1\n", '20,"0.5,1\n', "\0\0\0\0", "20,0.1,0.1\r", "\N{SNOWMAN},1,1\n"],
)  # fmt: skip
def test_torn_rows_are_left_out_and_counted(run, end):
    (run / "metrics.csv").write_text(METRICS + end)
    page, warnings = report(run)
    assert warnings == [f"1 of 4 rows of {run / 'metrics.csv'} are torn and are left out"]
    assert "15 steps of batch size 4" in page.text and warnings[0] in page.text


def test_bytes_that_are_no_text_are_a_torn_row(run):
    (run / "metrics.csv").write_bytes(METRICS.encode() + b"20,\xff\xfe,1\n")
    assert report(run)[1] == [f"1 of 4 rows of {run / 'metrics.csv'} are torn and are left out"]


@pytest.mark.parametrize(
    "text", ["", "\n", "step,lo", "step,loss_d,lr\n", "step,loss_d,lr\n5,0.", "\0" * 100]
)
def test_a_table_without_a_whole_row_is_one_error(run, text, capsys):
    (run / "metrics.csv").write_text(text)
    assert main(["report", str(run)]) == 1
    assert re.search(
        rf"fastgan: error: {run}/metrics.csv (holds no rows yet|cannot be read)", capsys.readouterr().err
    )
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["evaluation.csv", "warnings.csv"])
@pytest.mark.parametrize(
    "text", ["", "step", "step,psnr\n", "\0\n\0", "step,step\n1,2\n", '"', "psnr\n1\n", "a,b,c\n1"]
)
def test_torn_side_tables_cost_nothing_else(run, name, text):
    (run / name).write_text(text)
    page, _ = report(run)
    assert "15 steps of batch size 4" in page.text and "loss_d" in page.tags | {"loss_d"}


@pytest.mark.parametrize(
    "name", ["evaluation.csv", "warnings.csv", "config.yaml", "samples/rows.txt", "samples/step-00000015.png"]
)
def test_folders_in_place_of_side_files_are_left_out_and_named(run, name):
    (run / "samples" / "step-00000010.png").write_bytes(b"a picture")
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    page, warnings = report(run)
    (problem,) = warnings
    assert str(run / name) in problem and "Is a directory" in problem and problem in page.text
    assert "15 steps of batch size" in page.text and "step-00000010; from the top" in page.text


def test_pictures_of_a_section_that_cannot_be_read_are_left_out_and_named(run):
    (run / "x.png").mkdir()
    section = Section("More", pictures=[(run / name, "the caption") for name in ("x.png", "missing.png")])
    with pytest.warns(RuntimeWarning) as caught:
        page = Markup(write_report(run, "toy", [section]).read_text(encoding="utf-8"))
    assert [Path(str(w.message).split("'")[1]).name for w in caught] == ["x.png", "missing.png"]
    assert "More" in page.text and "the caption" not in page.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold options, one NAME: VALUE a line, got nothing"),
        ("- 1\n- 2\n", "must hold options, one NAME: VALUE a line, got a list"),
        ("just text", "got a str"),
        ("1: 2\n", "got a dict"),
        ("!!python/object/apply:os.system ['echo run > /tmp/x']", "could not determine a constructor"),
        ("lr: !!python/name:os.system", "could not determine a constructor"),
        ("lr: [1", "cannot be read as YAML"),
        ("\0", "cannot be read as YAML"),
        ("a: \x1b[2J", "cannot be read as YAML"),
        ("a: " + "[" * 20000, "is nested too deeply"),
        ("a: 2024-99-99", "cannot be read as YAML"),
        (BOMB, "aliases (*NAME) are not supported"),
        ("a: " + "x" * LARGEST, "too large for options"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_configuration_that_is_none_is_named_and_the_rest_reported(run, text, message):
    (run / "config.yaml").write_text(text)
    page, warnings = report(run)
    (problem,) = warnings
    assert str(run / "config.yaml") in problem and message in problem
    assert "15 steps of batch size unknown" in page.text and message in page.text


def test_a_missing_configuration_is_named(run):
    (run / "config.yaml").unlink()
    page, warnings = report(run)
    assert "No such file" in warnings[0] and "15 steps of batch size unknown" in page.text


def test_nothing_from_a_file_is_markup(run):
    plain, warned = report(run)
    assert not warned
    evil = "<script>alert(1)</script><img src=x onerror='alert(2)'>\" style='x"
    (run / "config.yaml").write_text(
        f"batch_size: {json.dumps(evil)}\n? {json.dumps(evil)}\n: [{json.dumps(evil)}]\n"
    )
    (run / "metrics.csv").write_text(f'step,"{evil}",lr\n1,2,3\n'.replace("\"'", "'").replace('" s', "' s"))
    (run / "evaluation.csv").write_text("step,<b>x</b>_acc,(\n1,2,3\n2,3,4\n")
    (run / "warnings.csv").write_text("step,warning\n<i>1</i>,<script>2</script>\n")
    (run / "samples" / "rows.txt").write_text("<script>\n'onload='x\n")
    (run / "samples" / "step-<u>.png").write_bytes(b"<svg onload=alert(1)>")
    page, warned = report(run)
    assert not warned
    allowed = {"figure", "figcaption", "div.class", "img", "img.alt", "img.src"}  # of the samples
    assert page.tags - plain.tags <= allowed, page.tags - plain.tags
    assert "steps of batch size <script>alert(1)</script>" in page.text


def test_characters_that_mislead_are_shown_as_escapes(run):
    (run / "config.yaml").write_text('lr: "\\u202egnp.exe"\n', encoding="utf-8")
    (run / "warnings.csv").write_text("step,warning\n1,\x1b[2Jgone\n")
    page, _ = report(run)
    assert "\\u202egnp.exe" in page.text and "step 1: \\x1b[2Jgone" in page.text
    assert "\u202e" not in page.text and "\x1b" not in page.text


def test_numbers_and_names_that_no_plot_expects(run):
    (run / "metrics.csv").write_text(
        "step,nan_loss,inf_loss,$\\frac{,_hidden,huge,(,zero\n"
        + "".join(
            f"{n},nan,{'-' * (n % 2)}inf,1,2,{'1e308' if n % 2 else '-1e308'},1,0\n" for n in range(1, 5)
        )
    )
    (run / "evaluation.csv").write_text("step,(,[_x,psnr\n1,1,nan,inf\n2,inf,nan,1\n")
    page, warnings = report(run)
    assert "4 steps of batch size 4" in page.text and not warnings


def test_whatever_is_cut_off_or_flipped_there_is_a_report_or_one_error(run):
    intact = {path: path.read_bytes() for path in run.glob("*.*")}
    random_ = random.Random(9)
    for _ in range(25):
        for path, content in intact.items():
            data = bytearray(content[: random_.randrange(len(content) // 2, len(content) + 1)])
            for _ in range(random_.randint(0, 3)):
                data[random_.randrange(len(data))] = random_.randrange(256)
            path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                write_report(run, "toy")
            except ValueError as error:
                assert str(run) in str(error)
    assert not list(run.glob("*.incomplete"))


def test_a_report_that_fails_does_not_make_a_finished_training_fail(tmp_path, monkeypatch, capsys):
    from fastgan import recipes
    from fastgan.training import report as reports

    def fails(folder, title):
        raise RuntimeError("no font was found in \x1b]0;x")

    monkeypatch.setitem(recipes.RECIPES, "toy", recipes.Registration("tests.training.toy:Toy", "a toy"))
    monkeypatch.setattr(reports, "write_report", fails)
    arguments = ["--runs_path", str(tmp_path), "--num_steps", "2", "--accelerator", "cpu"]
    assert main(["train", "toy", *arguments]) == 0
    output = capsys.readouterr()
    assert f"results in {tmp_path / 'run'}\n" in output.out
    assert "fastgan: warning: there is no report: no font was found in \\x1b]0;x" in output.err


def test_a_runs_own_files_are_read_back(tmp_path):
    folder = train(Toy, ToyConfig(runs_path=str(tmp_path), num_steps=4, log_interval=2, accelerator="cpu"))
    assert read_options(folder / "config.yaml")["num_steps"] == 4
    assert read_table(folder / "metrics.csv")["step"] == [2, 4]
    assert report(folder)[1] == []


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\\x1b/metrics.csv does not exist: is this a run's"):
        read_table(Path("nowhere\x1b/metrics.csv"))
