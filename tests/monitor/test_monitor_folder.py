"""Whose folder it is: one monitor at a time, and none in a folder of another program."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from fastgan._folder_lock import NAME, FolderInUse
from fastgan._tables import rows_of
from fastgan.monitor import Facts, Monitor


def written(folder, *steps):
    with Monitor(folder) as monitor:
        for step in steps:
            monitor.report(D_loss=1.0)
            monitor.verdicts(step=step)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_monitor_is_refused_until_the_first_is_closed(tmp_path):
    first = Monitor(tmp_path, Facts(adversarial="hinge"))
    first.report(D_loss=1.0)
    before = content(tmp_path)
    with pytest.raises(FolderInUse, match=f"{tmp_path} is in use by process {os.getpid()} .*close"):
        Monitor(tmp_path, Facts(adversarial="bce"))
    assert content(tmp_path) == before
    first.verdicts(step=1)
    first.close()
    first.close()
    with Monitor(tmp_path) as second:
        assert second.diagnosis.history.step == 1
        with pytest.raises(ValueError, match=f"the monitor of {tmp_path} is closed"):
            first.verdicts()
    Monitor(tmp_path)


@pytest.mark.parametrize("is_in_a_cycle", [False, True])
def test_a_monitor_that_is_garbage_lets_its_folder_go(tmp_path, is_in_a_cycle):
    monitor = Monitor(tmp_path)
    if is_in_a_cycle:
        monitor.trainer = [monitor]
    gc.disable()
    try:
        del monitor
        Monitor(tmp_path)
    finally:
        gc.enable()


def test_a_killed_process_lets_its_folder_go_and_reading_needs_no_lock(tmp_path):
    source = (
        "import sys, time; from fastgan.monitor import Monitor\n"
        "monitor = Monitor(sys.argv[1]); monitor.report(D_loss=1.0); monitor.verdicts(step=1)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match=f"{tmp_path} is in use by process {other.pid} "):
        Monitor(tmp_path)
    assert rows_of(tmp_path / "metrics.csv") == [(1, {"D_loss": 1.0})]
    other.kill()
    other.communicate()
    written(tmp_path, 2)
    assert [step for step, _ in rows_of(tmp_path / "metrics.csv")] == [1, 2]


def test_a_run_and_a_monitor_do_not_share_a_folder(tmp_path):
    pytest.importorskip("yaml")
    from fastgan.training.run_lock import run_lock

    with run_lock(tmp_path), pytest.raises(FolderInUse, match="is in use by process"):
        Monitor(tmp_path)
    with Monitor(tmp_path), pytest.raises(FolderInUse, match="is in use by process"), run_lock(tmp_path):
        pass


def test_a_monitor_that_fails_to_start_lets_its_folder_go(tmp_path):
    (tmp_path / "facts.json").write_text("[]")
    for facts in (None, Facts()):
        with pytest.raises(ValueError, match="facts.json does not hold facts"):
            Monitor(tmp_path, facts)
    assert (tmp_path / "facts.json").read_text() == "[]"
    (tmp_path / "facts.json").unlink()
    Monitor(tmp_path)


def test_a_monitor_whose_lock_was_taken_writes_no_more(tmp_path):
    monitor = Monitor(tmp_path)
    (tmp_path / NAME).write_text(
        (tmp_path / NAME).read_text().replace(monitor._kept._lock.holder.token, "another's")
    )
    monitor._kept._lock.keep()
    monitor.report(D_loss=1.0)
    with pytest.raises(FolderInUse, match=f"{tmp_path} was taken over by process"):
        monitor.verdicts(step=1)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_child_process_does_not_let_its_parents_folder_go(tmp_path):
    monitor = Monitor(tmp_path)
    child = os.fork()
    if child == 0:
        monitor.close()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(FolderInUse):
        Monitor(tmp_path)


def test_a_closed_folder_is_free_while_a_forked_child_lives(tmp_path):
    monitor = Monitor(tmp_path)
    child = os.fork()
    if child == 0:  # as a worker of a DataLoader that is kept
        signal.pause()
        os._exit(0)
    try:
        monitor.close()
        written(tmp_path, 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_forked_child_does_not_write_to_its_parents_table(tmp_path):
    monitor = Monitor(tmp_path / "run")
    child = os.fork()
    if child == 0:
        try:
            monitor.report(D_loss=2.0)
            monitor.verdicts(step=1)
        except FolderInUse as error:
            (tmp_path / "said").write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    monitor.report(D_loss=1.0)
    monitor.verdicts(step=1)
    assert rows_of(tmp_path / "run" / "metrics.csv") == [(1, {"D_loss": 1.0})]
    said = (tmp_path / "said").read_text()
    assert f"run is in use by process {os.getpid()} " in said
    assert f"process {child}, which was forked from it, may not write there" in said


@pytest.mark.parametrize("is_there_again", [False, True])
def test_a_folder_that_is_removed_meanwhile_is_told_and_anothers_stays(is_there_again, tmp_path):
    folder = tmp_path / "run"
    monitor = Monitor(folder)
    monitor.report(D_loss=1.0)
    monitor.verdicts(step=1)
    shutil.rmtree(folder)
    if is_there_again:
        written(folder, 7)
    before = content(folder) if is_there_again else None
    for step in (2, 1):  # a row more, and rows to drop
        monitor.report(D_loss=2.0)
        with pytest.raises(FolderInUse, match=f"{folder} was removed while process {os.getpid()} "):
            monitor.verdicts(step=step)
    monitor.close()
    assert (content(folder) if folder.exists() else None) == before


def test_a_relative_folder_is_the_one_of_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Monitor("run") as monitor:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        monitor.report(D_loss=1.0)
        monitor.verdicts(step=1)
    assert rows_of(tmp_path / "run" / "metrics.csv") == [(1, {"D_loss": 1.0})]


@pytest.mark.parametrize("below", [".", "deep/er"])
def test_a_file_in_a_folders_place_is_one_sentence(below, tmp_path):
    path = tmp_path / "a_file"
    path.write_text("text")
    with pytest.raises(NotADirectoryError, match=f"^{path / below} cannot be a folder, since {path} is none"):
        Monitor(path / below)
    assert path.read_text() == "text"


LIGHTNING = "epoch,step,train_loss,val_loss\n0,49,1.5,\n0,49,,1.25\n1,99,0.5,\n"
FOREIGN = {
    "Lightning": {"metrics.csv": LIGHTNING, "hparams.yaml": "{}\n"},
    "its facts are ours, its table is not": {"metrics.csv": LIGHTNING, "facts.json": "{}"},
    "step first": {"metrics.csv": "step,loss\n1,2\n2,3\n"},
    "no whole line": {"metrics.csv": "epoch,lo"},
    "no text": {"metrics.csv": "\x89PNG\0\n"},
}


@pytest.mark.parametrize("which", FOREIGN)
@pytest.mark.parametrize("facts", [None, Facts(adversarial="hinge")])
def test_a_table_of_another_program_is_refused_by_name_and_stays(which, facts, tmp_path):
    for name, text in FOREIGN[which].items():
        (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=r"metrics\.csv .*: give the monitor another folder") as error:
        Monitor(tmp_path, facts)
    assert str(tmp_path) in str(error.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize("beside", ["facts.json", "config.yaml", "checkpoints"])
def test_folders_of_runs_are_gone_on_with(beside, tmp_path):
    written(tmp_path / "whole", 1, 2)
    (tmp_path / "metrics.csv").write_bytes((tmp_path / "whole" / "metrics.csv").read_bytes())
    if beside == "checkpoints":
        (tmp_path / beside).mkdir()
    else:
        (tmp_path / beside).write_text("{}")
    written(tmp_path, 3)
    assert rows_of(tmp_path / "metrics.csv") == [(step, {"D_loss": 1.0}) for step in (1, 2, 3)]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_monitor_is_not_copied_but_what_it_watches_is(how):
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    monitor = Monitor()
    monitor.watch(generator=network, optimizers=optimizer)
    with pytest.raises(TypeError, match="a Monitor cannot be copied or pickled"):
        how(monitor)
    how(network), how(optimizer)
