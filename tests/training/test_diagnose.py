"""`fastgan diagnose`: the verdicts of a run from its folder, and of other trainers from their logs."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shutil

import pytest

from fastgan.cli import main
from fastgan.monitor import Facts, Monitor
from fastgan.monitor.facts import FACTS
from fastgan.training.diagnose import diagnose, diagnose_run
from fastgan.training.loop import train
from fastgan.training.statistics import report_all
from tests.training.toy import Toy, toy_config

PUBLIC = {
    # A question about EnhanceNet: D(x) goes to 0.9999, D(G(z)) stays at 0.02 to 0.08.
    "enhancenet": [
        {
            "iter": 50 * n,
            "D(x)": 0.9999 - 0.4 * math.exp(-n / 12),
            "D(G(z))": 0.02 + 0.06 * random.Random(n).random(),
        }
        for n in range(100)
    ],
    # One about least squares: D's loss is printed as 0.000000 within 600 steps.
    "least squares": [
        {"step": n, "D loss": f"{math.exp(-n / 40) / 2:.6f}", "G loss": f"{1 - math.exp(-n / 40) / 2:.6f}"}
        for n in range(600)
    ],
}  # fmt: skip


def write(path, rows, mark=","):
    header = list(rows[0])
    lines = [header, *([str(row[name]) for name in header] for row in rows)]
    path.write_text("".join(mark.join(line) + "\n" for line in lines))
    return path


def names(verdicts):
    return [verdict.name for verdict in verdicts]


def alike(diagnosis):
    """What must be the same wherever a run is read."""
    return [(v.name, v.subject, v.step, v.says, v.evidence) for v in diagnosis.verdicts()], diagnosis.past


class Scripted(Toy):
    """A toy whose D first wins and then loses, by the figures that it reports."""

    name = "scripted"

    def train_step(self, batch, step, generator):
        super().train_step(batch, step, generator)
        real = 0.99 if step < 120 else 0.2
        report_all({"D_probability_real": real, "D_probability_fake": 1 - real, "D_auc": real})


def test_the_folder_of_a_run_has_the_verdicts_that_the_run_printed_and_those_of_one_that_was_resumed(
    tmp_path, capsys
):
    config = dataclasses.replace(toy_config(tmp_path, 300, 10), exp_name="whole")
    whole = diagnose_run(train(Scripted, config))
    printed = capsys.readouterr().out
    assert names(whole.verdicts()) and names(whole.past)
    for verdict in (*whole.verdicts(), *whole.past):
        assert f"{verdict.severity} {verdict.name}, from step {verdict.step}: " in printed
    passed = [
        f"passed: {verdict.title}, from step {verdict.step} to {verdict.ended}" for verdict in whole.past
    ]
    assert [line[9:] for line in printed.splitlines() if " passed: " in line] == passed
    parts = dataclasses.replace(config, exp_name="parts")
    train(Scripted, dataclasses.replace(parts, num_steps=140))
    folder = train(Scripted, dataclasses.replace(parts, resume=True))
    assert alike(diagnose_run(folder)) == alike(whole)


FIGURES = {
    kind: dict(
        zip(("D_loss", "D_real", "D_fake", "D_probability_real", "D_probability_fake"), values, strict=True)
    )
    for kind, values in {
        "wins": (0.01, 5.0, -5.0, 0.99, 0.01),
        "dead": (1.386, 0.0, 0.0, 0.5, 0.5),
        "nan": (math.nan, 5.0, -5.0, 0.8, 0.2),
    }.items()
}


@pytest.mark.parametrize("kind", FIGURES)
def test_a_monitor_its_folder_its_continuation_and_a_copy_of_its_table_agree(kind, tmp_path):
    facts = Facts(adversarial="bce")
    monitor = Monitor(tmp_path / "run", facts)
    for _ in range(12):
        for _ in range(10):
            monitor.report(**FIGURES[kind])
        verdicts = monitor.verdicts()
    assert verdicts
    assert diagnose_run(tmp_path / "run").verdicts() == verdicts
    monitor.close()
    again = Monitor(tmp_path / "run", facts)
    assert again.diagnosis.verdicts() == verdicts
    shutil.copy(tmp_path / "run" / "metrics.csv", tmp_path / "copy.csv")
    assert diagnose(tmp_path / "copy.csv", given={"adversarial": "bce"}).diagnosis.verdicts() == verdicts
    text = (tmp_path / "copy.csv").read_text()
    renamed = (
        text.replace("D_probability_", "prob_")
        .replace("D_loss", "train/errD")
        .replace("D_real", "real_score")
    )
    (tmp_path / "foreign.csv").write_text(renamed.replace("D_fake", "fake_score").replace(",", "\t"))
    found = diagnose(tmp_path / "foreign.csv", given={"adversarial": "bce"})
    assert found.diagnosis.verdicts() == verdicts


@pytest.mark.parametrize("which", PUBLIC)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_d_wins_in_the_logs_of_public_questions(which, mark, tmp_path):
    path = write(tmp_path / "log.csv", PUBLIC[which], mark)
    assert names(diagnose(path).diagnosis.verdicts()) == ["discriminator_wins"]


def test_a_winning_discriminator_of_spade_is_not_called_dead(tmp_path):
    rows = [{"GAN": 2, "GAN_Feat": 1, "VGG": 1, "D_Fake": 0.01, "D_real": 0.01} for _ in range(60)]
    found = diagnose(write(tmp_path / "log.csv", rows), given={"adversarial": "hinge"})
    assert "critic_dead" not in names(found.diagnosis.verdicts())
    assert found.diagnosis.history.last("D_loss") == pytest.approx(0.02)


def test_columns_are_named_as_on_the_command_line(tmp_path, capsys):
    rows = [{"n": row["iter"], "a": row["D(x)"], "f(a,b)": row["D(G(z))"]} for row in PUBLIC["enhancenet"]]
    path = write(tmp_path / "log.tsv", rows, "\t")
    assert main(["diagnose", str(path), "--columns", "d_real=a,d_fake=f(a,b),step=n"]) == 0
    assert "warning discriminator_wins, from step " in capsys.readouterr().out


def test_event_files_are_diagnosed(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for row in PUBLIC["enhancenet"]:
            writer.add_scalar("train/D(x)", row["D(x)"], row["iter"])
            writer.add_scalar("train/D(G(z))", row["D(G(z))"], row["iter"])
    for path in (tmp_path, next(tmp_path.glob("*tfevents*"))):
        assert names(diagnose(path).diagnosis.verdicts()) == ["discriminator_wins"]


def test_nan_is_said_with_the_figure_that_had_it_first(tmp_path, capsys):
    rows = [
        {"step": n, "loss_D": 0.5 if n < 30 else "nan", "loss_G": 1 if n < 32 else "inf"} for n in range(60)
    ]
    path = write(tmp_path / "log.csv", rows)
    assert main(["diagnose", str(path), "--fail-on", "fault"]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "fault diverging, from step 30: D_loss became NaN or infinite at step 30: " in output
    assert "It has been NaN or infinite since step 30." in output


def test_infinite_norms_of_gradients_that_loss_scaling_causes_are_no_fault(tmp_path):
    rows = [{"step": n, "D_gradient_norm": "inf" if n in (0, 59) else 1.0} for n in range(60)]
    assert not diagnose(write(tmp_path / "log.csv", rows)).diagnosis.verdicts()


@pytest.mark.parametrize(
    "fail_on, kind, code",
    [
        ("fault", "dead", 1), ("warning", "dead", 1), ("note", "dead", 1),
        ("fault", "wins", 0), ("warning", "wins", 1), ("note", "wins", 1),
    ],
)  # fmt: skip
def test_the_exit_code_tells_of_verdicts_as_grave_as_asked(fail_on, kind, code, tmp_path):
    path = write(tmp_path / "log.csv", [{"step": n, **FIGURES[kind]} for n in range(20)])
    arguments = ["diagnose", str(path), "--adversarial", "bce"]
    assert main(arguments) == 0
    assert main([*arguments, "--fail-on", fail_on]) == code


def test_json_holds_all_that_is_printed(tmp_path, capsys):
    path = write(tmp_path / "log.csv", [{"step": n, "D_loss": "nan", "other": n} for n in range(20)])
    assert main(["diagnose", str(path), "--json", "--adversarial", "hinge"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found["facts"]["adversarial"] == "hinge" and found["step"] == 19
    assert found["verdicts"][0]["name"] == "diverging" and found["verdicts"][0]["evidence"][0]["value"] == 20
    assert found["curves"]["D_loss"]["value"] is None and found["curves"]["other"]["value"] == 19
    assert found["curves"]["D_loss"]["question"] == "Who is winning?"
    assert any("steps are those of the column step" in note for note in found["notes"])


def test_outputs_between_0_and_1_are_told_to_count_as_raw_ones(tmp_path):
    path = write(
        tmp_path / "log.csv", [{"step": n, "real_score": 0.95, "fake_score": 0.05} for n in range(20)]
    )
    found = diagnose(path, given={"adversarial": "bce"})
    assert not found.diagnosis.verdicts() and "although all lie in [0, 1]" in found.notes[-1]
    columns = "D_probability_real=real_score,D_probability_fake=fake_score"
    found = diagnose(path, columns, {"adversarial": "bce"})
    assert names(found.diagnosis.verdicts()) == ["discriminator_wins"]
    assert names(diagnose(path).diagnosis.verdicts()) == ["discriminator_wins"]


@pytest.mark.parametrize(
    "adversarial, d_loss, value",
    [("bce", "sum", 1.0), ("bce", "mean", 0.5), ("bce", "", 1.0), ("lsgan", "sum", 2.0), ("lsgan", "", 1.0)],
)
def test_d_s_loss_is_brought_to_the_scale_of_its_value_by_chance(adversarial, d_loss, value, tmp_path):
    path = write(tmp_path / "log.csv", [{"step": n, "D_loss": value} for n in range(5)])
    found = diagnose(path, given={"adversarial": adversarial}, d_loss=d_loss)
    assert found.diagnosis.history.last("D_loss") == 1.0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none.csv"], "none.csv does not exist"),
        (["empty.csv"], "empty.csv is empty"),
        (
            ["log.csv", "--columns", "d_real=D(y)"],
            "--columns D_real=D(y): log.csv has no column 'D(y)'; did you",
        ),
        (["log.csv", "--columns", "d_rael=D(x)"], "--columns: rules know no 'd_rael'; did you mean D_real?"),
        (["log.csv", "--critic_sign", "0"], "critic_sign must be +1 or -1, got 0"),
        (["log.csv", "--num_steps", "-3"], "num_steps must be "),
        (
            ["run", "--columns", "D_loss=x"],
            "--columns is for tables and event files, got D_loss=x for the run's",
        ),
        (["run", "--d_loss", "sum"], "--d_loss is for tables and event files"),
        (["broken"], "facts.json does not hold facts of a run"),
        (["folder"], "folder is a folder with neither metrics.csv nor TensorBoard's event files"),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "log.csv", PUBLIC["enhancenet"])
    (tmp_path / "empty.csv").write_text("")
    for folder in ("run", "broken", "folder"):
        (tmp_path / folder).mkdir()
    Monitor("run", Facts())
    write(tmp_path / "run" / "metrics.csv", [{"step": n, "D_loss": 1} for n in range(5)])
    shutil.copytree("run", "broken", dirs_exist_ok=True)
    (tmp_path / "broken" / FACTS).write_text("[]")
    assert main(["diagnose", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("fastgan: error: ") and error.count("\n") == 1


def test_facts_that_are_given_count_for_a_run_as_well(tmp_path):
    write(tmp_path / "metrics.csv", [{"step": 10 * n, **FIGURES["wins"]} for n in range(20)])
    (tmp_path / FACTS).write_text('{"adversarial": "wgan"}')
    assert not names(diagnose(tmp_path).diagnosis.verdicts())
    given = diagnose(tmp_path, given={"adversarial": "bce", "real_label": None})
    assert names(given.diagnosis.verdicts()) == ["discriminator_wins"]


def test_names_in_files_are_safe_to_print(tmp_path, capsys):
    rows = [{"step": n, "\x1b[31mred": n, "D_loss": 1} for n in range(5)]
    assert main(["diagnose", str(write(tmp_path / "log.csv", rows))]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("fail_on", [[], ["--fail-on", "fault"]])
def test_where_no_rule_reads_anything_that_is_said_and_the_exit_code_is_2(fail_on, tmp_path, capsys):
    path = write(tmp_path / "log.csv", [{"step": n, "perplexity": 1.0} for n in range(20)])
    assert main(["diagnose", str(path), *fail_on]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "step 19, 1 figure, " not in said and "step 19, 1 figure " in said.replace("note:", " note:")
    assert "nothing could be judged: no rule reads any of these figures" in said and "is wrong" not in said
    assert "rules read " in said and " D_loss, " in said and "name yours by --columns, as D_loss=NAME" in said
    assert main(["diagnose", str(path), "--columns", "D_loss=perplexity"]) == 0


def test_figures_that_no_rule_can_judge_yet_are_named(tmp_path, capsys):
    path = write(tmp_path / "log.csv", [{"step": n, "D_clipped": 0.7} for n in range(20)])
    assert main(["diagnose", str(path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["judged"] is False
    with Monitor(tmp_path / "run") as monitor:
        assert main(["diagnose", str(path)]) == 2
        assert "of what rules read there is D_clipped alone, which needs more rows" in " ".join(
            capsys.readouterr().out.split()
        )
        monitor.report(perplexity=1.0)
        monitor.verdicts(step=1)
    assert main(["diagnose", str(tmp_path / "run")]) == 2
    assert "report figures by these names" in " ".join(capsys.readouterr().out.split())
