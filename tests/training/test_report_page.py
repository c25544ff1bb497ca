"""report.html: its parts, what may run in it, its size, and curves that are thinned out."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import itertools
import json
import math
import random
import re
import shutil
import subprocess
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from fastgan.monitor.columns import OTHER, QUESTIONS, Explanation, question_of
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.facts import Facts
from fastgan.monitor.verdict import Evidence, Verdict
from fastgan.training import report as reports
from fastgan.training.loop import train
from fastgan.training.report import Section, curves, running, write_report
from fastgan.training.report.curves import Plot, interrupted, thinned
from fastgan.training.report.page import SCRIPTS, STYLES
from fastgan.training.report.pictures import GRID_BYTES, MOST_GRIDS
from tests.training.toy import Toy, toy_config

EVIL = "</script><script>alert(1)</script>"
VERDICT = Verdict(
    "critic_dead", "fault", "", 10, "D gives all the same score", (Evidence("D_loss", 0.5, 0.1, True),),
    "lower the learning rate", "calibration",
)  # fmt: skip


class Known(Diagnosis):
    """Holds these verdicts, and had those."""

    has_judged = True

    def __init__(self, *verdicts, past=()):
        super().__init__()
        self.known, self.past = list(verdicts), list(past)

    def verdicts(self):
        return self.known


@pytest.fixture
def run(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "metrics.csv").write_text(
        "step,D_loss,share_a,share_b\n5,1,,\n10,2,0.25,0.75\n15,3,0.5,0.5\n"
    )
    (tmp_path / "evaluation.csv").write_text("step,psnr\n10,20.5\n15,21.5\n")
    (tmp_path / "config.yaml").write_text("batch_size: 4\n")
    return tmp_path


def page_of(folder, **options):
    return write_report(folder, "toy", **options).read_text(encoding="utf-8")


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="curves">(.*?)</script>', page)
    return json.loads(text)


def save_grid(folder, step, size=(40, 20), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "samples" / f"step-{step:08d}.png")


# --- verdicts -----------------------------------------------------------------------------------------------


def test_verdicts_come_first_with_evidence_advice_and_curves(run):
    page = page_of(run, diagnosis=Known(VERDICT))
    headings = re.findall(r"<h[23]>(.*?)</h[23]>", page)
    assert headings[0] == "Verdicts <small>1 fault</small>" and "critic_dead" in headings[1]
    (card,) = re.findall(r'<article class="verdict fault" .*?</article>', page)
    for text in (
        "D gives all the same score",
        "D_loss 0.5 &gt; 0.1",
        "lower the learning rate",
        "since step 10",
    ):
        assert text in card
    anchors = re.findall(r'href="#([^"]*)"', card)
    assert anchors and all(f'<figure id="{anchor}"' in page for anchor in anchors)
    (mark,) = data_of(page)["marks"]
    assert mark == {"number": 1, "step": 10, "severity": "fault", "plots": anchors}


def test_verdicts_that_were_taken_back_are_folded(run):
    page = page_of(run, diagnosis=Known(past=[dataclasses.replace(VERDICT, ended=15)]))
    (folded,) = re.findall(r"<details><summary>1 that no longer holds</summary>.*?</details>", page)
    assert "fault critic_dead, from step 10 to 15" in folded
    assert "None: no rule finds anything" in page and not data_of(page)["marks"]


def test_the_tables_rows_make_the_verdicts_in_the_order_of_steps(run, monkeypatch):
    added = []
    monkeypatch.setattr(Diagnosis, "add", lambda self, step, row: added.append((step, row)) or [])
    page_of(run)
    assert added == [
        (5, {"D_loss": 1}), (10, {"D_loss": 2, "share_a": 0.25, "share_b": 0.75}), (10, {"psnr": 20.5}),
        (15, {"D_loss": 3, "share_a": 0.5, "share_b": 0.5}), (15, {"psnr": 21.5}),
    ]  # fmt: skip


def test_rules_that_fail_cost_the_verdicts_alone(run, monkeypatch):
    def fails(self, step, row):
        raise OverflowError("too large")

    monkeypatch.setattr(Diagnosis, "add", fails)
    with pytest.warns(RuntimeWarning, match="there are no verdicts: too large"):
        assert "15 steps of batch size 4" in page_of(run)


# --- what may run -------------------------------------------------------------------------------------------


def test_only_the_reports_own_scripts_and_styles_may_run(run):
    page = page_of(run)
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:" and "unsafe" not in policy
    for tag, count in (("script", len(SCRIPTS)), ("style", len(STYLES))):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert len(texts) == count and rules[f"{tag}-src"].split() == [
            f"'sha256-{value}'" for value in hashes
        ]
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page), "the page loads something"


def test_static_files_cannot_end_their_elements():
    for name in (*SCRIPTS, *STYLES):
        text = (resources.files(reports) / "static" / name).read_text(encoding="utf-8")
        assert not re.search(r"</(script|style)|<!--", text, re.IGNORECASE), name
        assert not re.search(r"https?://(?!github\.com/leeoniya/uPlot \(v)", text), name
    assert "MIT License" in (resources.files(reports) / "static" / "uPlot-LICENSE.txt").read_text()


def test_names_in_the_embedded_data_end_nothing(run):
    (run / "metrics.csv").write_text(f'step,"{EVIL}",a\u202eb\n1,2,3\n2,3,4\n', encoding="utf-8")
    verdict = Verdict("x", "fault", EVIL, 1, EVIL, (Evidence(EVIL, 1, 2, False),), EVIL, EVIL)
    page = page_of(run, diagnosis=Known(verdict, past=[verdict]))
    assert page.count("<script") == 1 + len(SCRIPTS) and page.count("</script") == page.count("<script")
    names = [curve["name"] for plot in data_of(page)["plots"] for curve in plot["curves"]]
    assert EVIL in names and "a\\u202eb" in names


# --- curves -------------------------------------------------------------------------------------------------


def test_curves_stand_under_their_questions_with_what_they_mean(run, monkeypatch):
    says = {
        "D_loss": Explanation(QUESTIONS[3], "of <D>"), "share_a": Explanation(QUESTIONS[1], "of a term"),
        "share_b": Explanation(QUESTIONS[1], "of a term"),
    }  # fmt: skip
    monkeypatch.setattr(curves, "explain", lambda name, _: says.get(name, Explanation(OTHER, "")))
    page = page_of(run)
    order = [heading for heading in re.findall(r"<h3>([^<]*)</h3>", page) if heading in (*QUESTIONS, OTHER)]
    assert order == [QUESTIONS[1], QUESTIONS[3], OTHER]
    collapsing = page[page.index(f"<h3>{QUESTIONS[3]}") :]
    assert "<dt>D_loss</dt><dd>of &lt;D&gt;</dd>" in collapsing
    assert "<dt>share_a, share_b</dt><dd>of a term</dd>" in page[: page.index(collapsing)]


def plotted(metrics=(), evaluation=(), facts=None, values=(0.5, 0.25)):
    """Titles and columns of the plots of constant tables, by question."""
    tables = [{name: [float(each) for each in values] for name in names} for names in (metrics, evaluation)]
    for table in tables:
        table["step"] = [10.0, 20.0]
    found: dict[str, dict[str, set[str]]] = {}
    for plot in curves.plots_of(*tables, Diagnosis(facts)):
        found.setdefault(plot.question, {})[plot.title] = {*plot.curves}
    return found


PROBES = (
    "probe_stable_rank", "probe_auc_fake", "probe_overfitting", "probe_auc_held_out", "probe_auc_null",
    "probe_distance_ratio", "probe_memorized", "probe_duplicates",
)  # fmt: skip


def test_probes_stand_under_their_questions_beside_figures_of_their_scale():
    found = plotted(evaluation=PROBES)
    winning, collapsing = ([*found[QUESTIONS[place]].values()] for place in (0, 3))
    assert {"probe_auc_fake", "probe_auc_held_out", "probe_auc_null"} in winning
    assert {"probe_stable_rank"} in collapsing and {"probe_memorized", "probe_duplicates"} in collapsing
    assert sum(map(len, (*winning, *collapsing))) == len(PROBES)


@pytest.mark.parametrize("facts", [Facts(), Facts(generator_loss="l1_loss")])
def test_columns_of_one_plot_answer_the_question_that_explains_them(facts):
    known = [
        "D_loss", "D_penalty", "r1_penalty", "l1_loss", "ds_ref_loss", "D_category_loss", "adv_ref_loss",
        "G_loss", "cyc_ref_loss", "Y_loss", "l1_loss_weight", "lambda_ds", "bit_acc", "psnr", "mine", "lr",
        "D_norm", "D_weight_norm", "D_gradient_norm", "seconds_per_step", "collapse_mine", "D_clipped",
    ]  # fmt: skip
    found = plotted(known, facts=facts)
    columns = [
        (question, name) for question, plots in found.items() for each in plots.values() for name in each
    ]
    assert sorted(columns) == sorted((question_of(name, facts), name) for name in known)


def test_figures_that_are_all_0_are_left_out_unless_a_rule_reads_them():
    found = plotted(["D_update_ratio", "G_untrained", "mine", "images_per_second"], ["psnr"], values=(0, 0))
    assert [*found] == [QUESTIONS[4]]
    assert {name for names in found[QUESTIONS[4]].values() for name in names} == {
        "D_update_ratio",
        "G_untrained",
    }


def test_updates_of_all_networks_share_a_plot_with_a_logarithmic_axis(run):
    (run / "metrics.csv").write_text("step,D_update_ratio,G_update_ratio\n5,0.1,0.0001\n10,0.2,0.0002\n")
    (plot,) = (plot for plot in data_of(page_of(run))["plots"] if plot["isLog"])
    assert [curve["name"] for curve in plot["curves"]] == ["D_update_ratio", "G_update_ratio"]


def test_figures_share_a_plot_with_their_baselines():
    names = (
        "psnr_y",
        "psnr_y_bicubic",
        "psnr_rgb",
        "l1",
        "l1_of_source",
        "l1_ratio",
        "l1_ratio_worst",
        "fid",
    )
    found = plotted(evaluation=names)[QUESTIONS[2]]
    assert found == {
        "psnr (evaluation)": {"psnr_y", "psnr_y_bicubic", "psnr_rgb"},
        "l1 (evaluation)": {"l1", "l1_of_source"},
        "l1_ratio (evaluation)": {"l1_ratio", "l1_ratio_worst"},
        "fid (evaluation)": {"fid"},
    }


def test_shares_are_stacked_over_the_rows_that_have_some(run):
    (plot,) = (plot for plot in data_of(page_of(run))["plots"] if plot["stacked"])
    assert plot["steps"] == [10, 15]
    assert [curve["values"] for curve in plot["curves"]] == [[0.25, 0.5], [0.75, 0.5]]


@pytest.mark.parametrize(
    "values, expected",
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, math.nan, 2, math.nan, 3], [1, "", 2, "", 3]),
        ([1, 2, 3, math.nan, math.nan, math.nan, 4], [1, 2, 3, None, None, None, 4]),
        ([1, math.inf, 2, 1e300, 3], [1, None, 2, None, 3]),
        ([math.nan, 1, 2, math.nan], ["", 1, 2, ""]),
        ([math.nan] * 3, [""] * 3),
    ],
)
def test_lines_are_interrupted_where_values_are_missing_for_long(values, expected):
    assert interrupted([10 * row for row in range(len(values))], values) == expected


@pytest.mark.parametrize("count, most", [(10_000, 2000), (10_000, 7), (999, 100), (5, 1), (3, 3)])
def test_thinned_curves_keep_every_peak_and_the_newest_row(count, most):
    draw = random.Random(count)
    values = {name: [draw.random() for _ in range(count)] for name in "abc"}
    values["a"][count // 3], values["b"][count // 2] = 50.0, -70.0
    values["c"][count // 2] = None
    plot = thinned(Plot("p", "t", "q", list(range(count)), {k: [*v] for k, v in values.items()}), most)
    assert len(plot.steps) <= max(most, 9) and plot.steps == sorted(set(plot.steps))
    assert plot.steps[-1] == count - 1
    for name, kept in plot.curves.items():
        assert kept == [values[name][step] for step in plot.steps]
        numbers = [value for value in values[name] if value is not None]
        assert {min(numbers), max(numbers)} <= {*kept} and (None in kept) == (name == "c")
    if count > most:
        assert len(plot.bucket_ends) == len(plot.means["a"]) and plot.bucket_ends[-1] == len(plot.steps) - 1
        size = math.ceil(count / len(plot.bucket_ends))
        assert plot.means["a"][0] == pytest.approx(sum(values["a"][:size]) / size)
    else:
        assert plot.bucket_ends is None


def test_ten_thousand_rows_make_a_small_report_with_all_peaks(run):
    draw = np.random.default_rng(0)
    names = [f"{name}_loss" for name in "abcdefghij"] + [f"D_accuracy_{name}" for name in "klmnopqrst"]
    names += [f"cosine_{name}" for name in "abcdefghij"] + [f"{name}_weight" for name in "abcdefghij"]
    names += ["r1_penalty", "lr", "ssim"]
    table = draw.normal(size=(10_000, len(names)))
    table[5001, :] = 1234.5
    rows = [f"{50 * n}," + ",".join(f"{value:.7g}" for value in row) for n, row in enumerate(table, 1)]
    (run / "metrics.csv").write_text("\n".join([",".join(["step", *names]), *rows, ""]))
    for step in range(1, 9):
        save_grid(run, step, (900, 600), step)
    page = page_of(run, diagnosis=Known())
    assert len(page.encode()) < 3e6
    found = {curve["name"]: curve for plot in data_of(page)["plots"] for curve in plot["curves"]}
    assert found.keys() >= {*names}
    assert all(1234.5 in found[name]["values"] for name in names)


def test_without_pictures_of_curves_nothing_is_plotted(run, monkeypatch):
    monkeypatch.setattr("fastgan.training.report.page.picture_of", None)
    page = page_of(run, pictures_of_curves=False)
    assert "The curves need JavaScript" in page and "image/png" not in page


def test_pictures_stand_in_for_curves_without_scripts(run):
    page = page_of(run)
    plots = data_of(page)["plots"]
    assert len(re.findall(r"<noscript><img alt=", page)) == len(plots) == 3


# --- pictures -----------------------------------------------------------------------------------------------


def steps_of_grids(page):
    return [int(step) for step in re.findall(r"<figcaption>step-(\d+); from the top", page)]


def test_of_many_grids_the_first_the_newest_and_some_between_are_shown(run):
    for step in range(10, 410, 10):
        save_grid(run, step)
    steps = steps_of_grids(page_of(run))
    assert len(steps) == MOST_GRIDS and steps[0] == 10 and steps[-1] == 400 and steps == sorted(steps)
    distances = [after - before for before, after in itertools.pairwise(steps)]
    assert max(distances) <= 2.5 * min(distances)


@pytest.mark.parametrize("count", [1, 2, 3, MOST_GRIDS])
def test_few_grids_are_all_shown(run, count):
    for step in range(count):
        save_grid(run, step)
    assert steps_of_grids(page_of(run)) == list(range(count))


def test_large_grids_are_made_smaller_and_say_so(run):
    save_grid(run, 10, (1600, 900))
    page = page_of(run)
    (content,) = re.findall(r"data:image/jpeg;base64,([^\"]*)", page)
    picture = base64.b64decode(content)
    assert len(picture) <= GRID_BYTES and Image.open(io.BytesIO(picture)).size[0] >= 200
    assert "made smaller, step-00000010.png has all pixels" in page


def test_a_large_file_that_is_no_picture_is_left_out_and_named(run):
    save_grid(run, 10)
    (run / "samples" / "step-00000020.png").write_bytes(bytes(GRID_BYTES + 1))
    with pytest.warns(RuntimeWarning, match=r"step-00000020.png is left out: "):
        assert steps_of_grids(page_of(run)) == [10]


def test_a_recipes_section_has_text_pictures_and_lines(run):
    save_grid(run, 10)
    section = Section("Of <mine>", "text", [(run / "samples" / "step-00000010.png", "caption")], "a\nb")
    page = write_report(run, "toy", [section]).read_text()
    assert "<h2>Of &lt;mine&gt;</h2><p>text</p><figure>" in page and "<pre>a\nb</pre>" in page


# --- while a run goes on ------------------------------------------------------------------------------------


def test_a_run_writes_its_report_at_every_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LARGEST_SHARE", math.inf)
    written, write = [], reports.write_report

    def recording(folder, title, **options):
        path = write(folder, title, **options)
        written.append((options["diagnosis"].history.step, options["pictures_of_curves"]))
        assert f"{written[-1][0]} steps of batch size 4" in path.read_text()
        return path

    monkeypatch.setattr(reports, "write_report", recording)
    train(Toy, toy_config(tmp_path, 8, 2))
    assert written == [(4, False), (8, False)]


def test_a_report_that_fails_does_not_stop_its_run(tmp_path, monkeypatch, capsys):
    def fails(*arguments, **options):
        raise OSError("the disk is \x1b full")

    monkeypatch.setattr(reports, "write_report", fails)
    folder = train(Toy, toy_config(tmp_path, 4, 2))
    assert not (folder / "report.html").exists()
    assert "warning: report.html is not written: the disk is \\x1b full" in capsys.readouterr().out


def test_reports_take_a_small_part_of_a_runs_time(tmp_path, monkeypatch):
    now, written = [100.0], []

    def takes_a_second(*arguments, **options):
        written.append(now[0])
        now[0] += 1

    monkeypatch.setattr(reports, "write_report", takes_a_second)
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    report = running.RunningReport(tmp_path, "toy", print)
    for _ in range(100):
        now[0] += 1
        report.write(Diagnosis())
    assert len(written) <= 1 + 100 * running.LARGEST_SHARE
    report.write(Diagnosis(), is_last=True)
    assert written[-1] == now[0] - 1


# --- in a browser -------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_the_curves(run, tmp_path):
    for step in (5, 10, 15):
        save_grid(run, step)
    (run / "metrics.csv").write_text(
        "step,D_loss,share_a,share_b,D_update_ratio,G_update_ratio,D_untrained\n"
        "5,1,,,0,0.1,0\n10,2,0.25,0.75,0,0.0001,0\n15,3,0.5,0.5,0,0.002,0\n"
    )
    path = write_report(run, "toy", diagnosis=Known(VERDICT), pictures_of_curves=False)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--window-size=1200,4000", "--virtual-time-budget=20000", "--dump-dom",
         path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count("<canvas") == len(data_of(path.read_text())["plots"])
    assert re.search(r"D_loss <b>3</b>", done.stdout) and 'max="2"' in done.stdout
    assert len(re.findall(r'<figure hidden="">', done.stdout)) == 2
