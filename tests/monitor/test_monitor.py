"""The monitor of a training loop that is not fastgan's."""

from __future__ import annotations

import csv
import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan._tables import CsvTable, rows_of
from fastgan.monitor import VERDICTS, Diagnosis, Facts, LossBudget, Monitor
from fastgan.monitor.facts import read_facts


def report(monitor, count=10, **values):
    for _ in range(count):
        monitor.report(**values)
    return monitor.verdicts()


CERTAIN = {"D_real": 0.9999, "D_fake": 0.03, "D_loss": 0.03}


def test_figures_become_verdicts_and_pass():
    monitor = Monitor()
    for _ in range(12):
        verdicts = report(monitor, **CERTAIN)
    (verdict,) = verdicts
    assert verdict.name == "discriminator_wins" and verdict.severity == "warning"
    assert 0 < verdict.step <= 120, "since when, in steps"
    assert [str(item) for item in verdict.evidence] == ["D(x) 1 > 0.9", "D(G(z)) 0.03 < 0.1"]
    assert verdict.says and verdict.advice and verdict.source
    for _ in range(8):
        verdicts = report(monitor, D_real=0.6, D_fake=0.4, D_loss=1.2)
    assert verdicts == []
    assert monitor.diagnosis.past[0].name == "discriminator_wins"
    assert monitor.diagnosis.past[0].ended > verdict.step


def test_tensors_are_reported_without_their_graph_and_averaged():
    monitor = Monitor()
    for number in range(4):
        monitor.report(D_loss=torch.tensor([float(number)], requires_grad=True) * 2, lr=0.5)
    monitor.report(D_loss=3)
    monitor.verdicts()
    assert monitor.diagnosis.history.columns == {"D_loss": [(5, 3.0)], "lr": [(5, 0.5)]}


def test_steps_are_counted_or_given():
    monitor = Monitor()
    report(monitor, 7, D_loss=1.0)
    report(monitor, 3, D_loss=1.0)
    assert monitor.diagnosis.history.step == 10
    monitor.report(D_loss=1.0)
    monitor.verdicts(step=64)
    assert monitor.diagnosis.history.step == 64
    with pytest.raises(ValueError, match="step must be at least 0, got -3"):
        monitor.verdicts(step=-3)


def test_steps_are_those_of_g_where_d_is_trained_more_often():
    monitor = Monitor()
    for number in range(10):
        monitor.report(D_loss=1.0)
        if number % 5 == 4:
            monitor.report(G_loss=1.0)
    monitor.verdicts()
    assert monitor.diagnosis.history.step == 2


@pytest.mark.parametrize(
    "others, step",
    [
        ([], 3),
        ([(None, {})], 3),
        ([(None, {"D_loss": 4})], 4),
        ([(None, {"D_loss": 9, "G_loss": 2})], 2),
        ([(7, {})], 7),
    ],
)
def test_the_step_is_that_of_the_process_with_most_reports(others, step, monkeypatch):
    def gathered(value):
        return [value, *(({}, given, Counter(counts)) for given, counts in others)]

    monkeypatch.setattr("fastgan.monitor.monitor.from_all", gathered)
    monitor = Monitor()
    report(monitor, 3, D_loss=1.0)
    assert monitor.diagnosis.history.step == step


def trained(monitor, steps):
    for step in steps:
        monitor.report(**(CERTAIN if step <= 1000 else {"D_real": 0.6, "D_fake": 0.4}))
        verdicts = monitor.verdicts(step=step)
    return verdicts


@pytest.mark.parametrize(
    "has_folder, back", [(True, 600), (True, 550), (True, 1200), (False, 600), (False, 550)]
)
def test_a_trainer_that_resumes_before_its_last_log_line_goes_on_from_there(tmp_path, has_folder, back):
    folder = tmp_path / "run" if has_folder else None
    monitor, whole = Monitor(folder), Monitor()
    trained(monitor, range(100, 1300, 100))
    if has_folder:
        monitor.close()
        monitor = Monitor(folder)  # the trainer was restarted
    again = range(back, 2000, 100)
    before = [step for step in range(100, 1300, 100) if step < back]
    assert trained(monitor, again) == trained(whole, [*before, *again])
    assert monitor.diagnosis.history.columns == whole.diagnosis.history.columns
    assert monitor.diagnosis.past == whole.diagnosis.past
    if has_folder:
        assert [step for step, _ in rows_of(folder / "metrics.csv")] == [*before, *again]
        monitor.close()
        assert Monitor(folder).diagnosis.verdicts() == whole.diagnosis.verdicts()


def test_figures_of_one_step_may_be_given_in_two_calls(tmp_path):
    monitor = Monitor(tmp_path)
    for name in ("D_loss", "fid"):
        monitor.report(**{name: 1.0})
        monitor.verdicts(step=10)
    assert monitor.diagnosis.history.columns == {"D_loss": [(10, 1.0)], "fid": [(10, 1.0)]}
    monitor.close()
    again = Monitor(tmp_path)
    assert again.diagnosis.history.columns == monitor.diagnosis.history.columns
    again.look(images(), images(8, 1))
    again.verdicts()  # of the last step, which nothing says is repeated
    assert {"D_loss", "fid", "spread_ratio"} <= again.diagnosis.history.columns.keys()


def test_facts_in_the_folder_count_until_others_are_given(tmp_path):
    facts = Facts(adversarial="hinge", num_steps=100)
    Monitor(tmp_path, facts)
    assert Monitor(tmp_path).diagnosis.facts == facts
    assert read_facts(tmp_path) == facts
    others = Facts(adversarial="bce")
    assert Monitor(tmp_path, others).diagnosis.facts == others
    assert read_facts(tmp_path) == others


def test_facts_of_a_newer_version_are_told(tmp_path):
    (tmp_path / "facts.json").write_text('{"adversarial": "hinge", "moon": "full"}')
    with pytest.warns(RuntimeWarning, match="facts.json holds what this version .* minds: moon 'full'"):
        assert read_facts(tmp_path) == Facts(adversarial="hinge")


def test_a_torn_last_row_is_cut_off_before_others_follow(tmp_path):
    monitor = Monitor(tmp_path)
    for step in (10, 20):
        monitor.report(D_loss=1.0)
        monitor.verdicts(step=step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3")
    monitor.close()
    monitor = Monitor(tmp_path)
    monitor.report(D_loss=2.0)
    monitor.verdicts(step=30)
    expected = [(10, {"D_loss": 1.0}), (20, {"D_loss": 1.0}), (30, {"D_loss": 2.0})]
    assert rows_of(tmp_path / "metrics.csv") == expected
    monitor.close()
    assert Monitor(tmp_path).diagnosis.history.step == 30


@pytest.mark.parametrize("text", ["", "st", "step,D_lo"])
def test_a_table_without_a_whole_line_is_begun_anew(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    CsvTable(path).write(1, {"D_loss": 2.0})
    assert rows_of(path) == [(1, {"D_loss": 2.0})]
    path.write_text(text)
    report(Monitor(tmp_path), 3, D_loss=2.0)
    assert rows_of(path) == [(3, {"D_loss": 2.0})]


def test_steps_that_fall_in_a_table_are_sorted_and_later_rows_count(tmp_path):
    path = tmp_path / "metrics.csv"
    (tmp_path / "facts.json").write_text("{}")
    path.write_text("step,a,b\n10,1,\n10,,2\n330,1,\n20,1,\n10,5,\n40,1e308,nan\n")
    assert str(rows_of(path)) == str(
        [(10, {"a": 5.0}), (20, {"a": 1.0}), (40, {"a": math.inf, "b": math.nan}), (330, {"a": 1.0})]
    )
    assert Monitor(tmp_path).diagnosis.history.step == 330


def test_figures_beyond_float32_are_infinite(tmp_path):
    monitor = Monitor(tmp_path)
    monitor.report(D_loss=1e308, G_loss=-1e308)
    monitor.report(D_loss=1e308, G_loss=torch.tensor(-1e308, dtype=torch.float64))
    monitor.verdicts()
    assert monitor.diagnosis.history.row == {"D_loss": math.inf, "G_loss": -math.inf}
    monitor.close()
    assert Monitor(tmp_path).diagnosis.history.row == monitor.diagnosis.history.row


def test_two_networks_of_one_name_are_refused():
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizers = [torch.optim.SGD(network.parameters(), 0.1)]
    with pytest.raises(ValueError, match="generator and G are two networks whose measures would both begin"):
        Monitor().watch(generator=network, G=other, optimizers=optimizers)
    with pytest.raises(ValueError, match="discriminator and D are two networks"):
        Monitor().watch(discriminator=network, D=other, optimizers=optimizers)
    Monitor().watch(generator=network, D=other, optimizers=optimizers)


def images(count=8, seed=0):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


class Brightness(nn.Module):
    """A discriminator with a layer that only evaluation may pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.norm = nn.BatchNorm2d(3).eval()

    def forward(self, images):
        assert not self.training
        return self.norm(images).mean((1, 2, 3))


def test_probes_are_in_the_next_row(tmp_path):
    monitor, discriminator = Monitor(tmp_path, Facts(critic_sign=-1)), Brightness()
    given = {"train": 0.1 * images(), "fake": images(8, 1) + 1, "held_out": 0.1 * images(6, 2)}
    monitor.probe(**given, discriminator=discriminator, null=(images(), images(8, 3)))
    assert discriminator.training and not discriminator.norm.training, "modes are as before"
    monitor.report(D_loss=1.0)
    monitor.verdicts(step=1)
    row = monitor.diagnosis.history.row
    assert row["probe_auc_fake"] == row["probe_auc_held_out"] == 1
    assert {"probe_overfitting", "probe_auc_null", "probe_memorized", "probe_stable_rank", "D_loss"} <= set(
        row
    )
    monitor.probe(train=given["train"], fake=given["fake"], score=lambda x: x.mean((1, 2, 3)), sign=1)
    monitor.verdicts(step=2)
    assert monitor.diagnosis.history.row == {"probe_auc_fake": 0}
    assert rows_of(tmp_path / "metrics.csv")[0][1].keys() == row.keys()


@pytest.mark.parametrize(
    "given, error, said",
    [
        ({"fake": images()[0]}, ValueError, r"fake must have shape \(N, C, H, W\), got \(3, 4, 4\)"),
        ({"fake": images().int()}, TypeError, "fake must be a floating-point image"),
        ({"held_out": images()[:, :1]}, ValueError, r"held_out must have images of the shape of train's"),
        ({"null": (images(),)}, ValueError, r"null must be \(real, null\), got a tuple of 1"),
        ({"null": images()}, TypeError, "null must be "),
        ({"discriminator": 3}, TypeError, "discriminator must be a torch.nn.Module, got int 3"),
        ({"score": 3}, TypeError, "score must be a function of images, got int 3"),
        ({"score": torch.mean}, ValueError, "scores must be a tensor of 8 rows, got torch.float32 of shape"),
        ({"sign": 0}, ValueError, r"sign must be \+1 or -1, got 0"),
    ],
)
def test_wrong_inputs_of_probes_are_named(given, error, said):
    with pytest.raises(error, match=said):
        Monitor().probe(**{"train": images(), "fake": images(), **given})


def shares_of(weights):
    budget = LossBudget()
    x = budget.cut(torch.rand(4, 2) * torch.ones(2, requires_grad=True))
    return budget.backward(dict.fromkeys(weights, x.square().mean()), weights)


@pytest.mark.parametrize("name", ["gan", "adv", "G_loss"])
def test_shares_of_a_budget_are_judged(name):
    monitor = Monitor()
    shares = shares_of({"l1": 1.0, name: 1e-5})
    for number in range(12):
        monitor.report(D_loss=1.0)
        monitor.report_shares(shares)
        verdicts = monitor.verdicts(step=100 * (number + 1))
    row = monitor.diagnosis.history.row
    assert set(row) == {
        "D_loss", "share_l1", "share_G_loss", "cosine_l1_G_loss", "l1_weight", "G_loss_weight",
    }  # fmt: skip
    assert row["share_l1"] == pytest.approx(1, abs=1e-4) and row["cosine_l1_G_loss"] == pytest.approx(1)
    assert {verdict.name for verdict in verdicts} == {"gan_ignored", "term_dominates"}


def test_a_share_reported_as_gan_share_is_that_of_the_adversarial_term():
    monitor = Monitor()
    for number in range(12):
        monitor.report(gan_share=torch.tensor(0.001), l1_share=0.9)
        verdicts = monitor.verdicts(step=100 * (number + 1))
    assert set(monitor.diagnosis.history.row) == {"share_G_loss", "share_l1"}
    assert "gan_ignored" in {verdict.name for verdict in verdicts}


def test_a_term_that_facts_name_keeps_its_name():
    monitor = Monitor(facts=Facts(adversarial_term="gan"))
    monitor.report_shares(shares_of({"gan": 1.0, "adv": 1.0}))
    monitor.verdicts()
    assert {"share_gan", "share_adv"} <= set(monitor.diagnosis.history.row)
    with pytest.raises(TypeError, match="shares must be the Shares that a LossBudget returns, got dict"):
        monitor.report_shares({"gan": 0.5})


def test_wrong_figures_are_named():
    monitor = Monitor()
    with pytest.raises(ValueError, match=r"D_real must be one number, got torch.float32 of shape \(2,\)"):
        monitor.report(D_real=torch.zeros(2))
    with pytest.raises(TypeError, match="D_real must be a number, got str 'high'"):
        monitor.report(D_real="high")
    with pytest.raises(ValueError, match="must not be called step"):
        monitor.report(step=3)
    with pytest.raises(TypeError, match="facts must be a fastgan.monitor.Facts"):
        Monitor(facts={"adversarial": "hinge"})
    with pytest.raises(TypeError, match=r"optimizers must be a torch.optim.Optimizer or .*, got list \[\]"):
        monitor.watch(optimizers=[])
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(ValueError, match="another network must be given, got None for all"):
        monitor.watch(optimizers=[optimizer])


def test_a_folder_keeps_the_figures_and_a_restarted_monitor_goes_on(tmp_path):
    facts = Facts(
        adversarial="bce", scores_are_probabilities=True, advice={"discriminator_wins": "--lr_d 0.0001"}
    )
    whole, first = Monitor(facts=facts), Monitor(tmp_path / "run", facts)
    for number in range(12):
        verdicts = report(whole, **CERTAIN)
        if number == 6:
            first.close()
            first = Monitor(tmp_path / "run", facts)  # the trainer was restarted
        again = report(first, **CERTAIN)
        assert again == verdicts
    assert verdicts[0].advice == "--lr_d 0.0001"
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(10 * n) for n in range(1, 13)]
    assert read_facts(tmp_path / "run") == facts
    replayed = Diagnosis(facts)
    for step, row in rows_of(tmp_path / "run" / "metrics.csv"):
        replayed.add(step, row)
    assert replayed.verdicts() == verdicts


def test_damaged_facts_are_named(tmp_path):
    (tmp_path / "facts.json").write_text('{"adversarial": "none of these"}')
    with pytest.raises(
        ValueError, match="facts.json does not hold facts of a run: adversarial must be one of"
    ):
        read_facts(tmp_path)
    assert read_facts(tmp_path / "elsewhere") is None


def test_the_game_of_a_trainer_is_watched():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))
    discriminator = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    g_optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    d_optimizer = torch.optim.Adam(list(nn.Linear(2, 2).parameters()), 1e-3)  # D was forgotten
    monitor = Monitor(facts=Facts(adversarial="hinge", value_range=(-1.0, 1.0)))
    monitor.watch(generator=generator, discriminator=discriminator, optimizers=[g_optimizer, d_optimizer])
    for step in range(60):
        real = 5 + torch.rand(16, 8)
        fake = generator(torch.randn(16, 4))
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        d_loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        monitor.report(D_real=real_logits.mean(), D_fake=fake_logits.mean(), D_loss=d_loss)
        monitor.look(real, fake)
        g_loss = -fake_logits.mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        if step % 10 == 9:
            verdicts = monitor.verdicts()
    subjects = {(verdict.name, verdict.subject) for verdict in verdicts}
    assert ("not_learning", "D") in subjects
    assert ("value_range", "images") in subjects
    assert ("not_learning", "G") not in subjects
    assert [v.severity for v in verdicts] == sorted((v.severity for v in verdicts), key=SEVERITIES.index)


SEVERITIES = ["fault", "warning", "note"]


def test_names_are_fixed():
    wanted = {
        "critic_dead", "discriminator_wins", "generator_wins", "gan_ignored", "term_dominates",
        "terms_conflict", "mode_collapse", "discriminator_overfits", "shortcut", "penalty_dominates",
        "not_learning", "steps_too_large", "steps_too_small", "value_range", "diverging", "stuck", "balanced",
    }  # fmt: skip
    assert wanted <= set(VERDICTS)


def test_a_verdict_prints_as_a_paragraph():
    monitor = Monitor()
    for _ in range(12):
        verdicts = report(monitor, **CERTAIN)
    lines = str(verdicts[0]).splitlines()
    assert lines[0].startswith("warning discriminator_wins, from step ")
    assert lines[1] == "  measured: D(x) 1 > 0.9; D(G(z)) 0.03 < 0.1"
    assert lines[2].startswith("  first: ")
    assert verdicts[0].as_dict()["evidence"][0]["what"] == "D(x)"


def test_a_tensor_may_be_changed_after_it_was_reported():
    monitor, running = Monitor(), torch.zeros(())
    for value in (1.0, 2.0, 3.0):
        running.fill_(value)
        monitor.report(D_loss=running)
    monitor.verdicts()
    assert monitor.diagnosis.history.last("D_loss") == 2.0
