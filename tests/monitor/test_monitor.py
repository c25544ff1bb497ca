"""The monitor of a training loop that is not fastgan's."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan.monitor import VERDICTS, Diagnosis, Facts, Monitor
from fastgan.monitor.monitor import read_facts, rows_of


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
    with pytest.raises(ValueError, match="step must be at least 64, got 3"):
        monitor.verdicts(step=3)


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
    with pytest.raises(TypeError, match=r"optimizers must be at least one .*, got list \[\]"):
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
