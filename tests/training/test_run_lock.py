"""The lock of a run's folder: a single holder, named in errors; locks of dead processes do not count."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from fastgan import _folder_lock as locks
from fastgan._folder_lock import NAME, FolderInUse
from fastgan.training.loop import train
from fastgan.training.run_lock import run_lock

from .toy import Toy, ToyConfig


def says(folder):
    return json.loads((folder / NAME).read_text())


def left_by(folder, **changes):
    """Writes a lock that another process did not release."""
    with run_lock(folder):
        text = says(folder)
    (folder / NAME).write_text(json.dumps({**text, "held": True, **changes}))


@pytest.fixture
def no_kernel_locks(monkeypatch):
    def refuses(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuses)
    monkeypatch.setattr(locks, "SETTLING", 0.05)


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_start_is_refused_with_the_holders_name_and_changes_nothing(tmp_path):
    config = ToyConfig(runs_path=str(tmp_path), num_steps=2, log_interval=1, accelerator="cpu")
    folder = train(Toy, config)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != NAME}
    with run_lock(folder):
        for resume in (False, True, "auto"):
            with pytest.raises(FolderInUse) as refused:
                train(Toy, dataclasses.replace(config, resume=resume, num_steps=4))
            assert (
                f"{folder} is in use by process {os.getpid()} on host {socket.gethostname()} since 20"
                in str(refused.value)
            )
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != NAME}
    train(Toy, dataclasses.replace(config, resume=True, num_steps=4))


def test_a_run_lets_its_folder_go_when_it_fails(tmp_path):
    config = ToyConfig(runs_path=str(tmp_path), num_steps=2, log_interval=1, fail_at=0, accelerator="cpu")
    with pytest.raises(FloatingPointError):
        train(Toy, config)
    assert not says(config.folder)["held"]
    with run_lock(config.folder):
        assert says(config.folder)["held"]


def test_the_kernel_ends_the_lock_of_a_killed_process(tmp_path):
    source = (
        "import sys, time, pathlib; from fastgan.training.run_lock import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match=f"process {holder.pid} "), run_lock(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert says(tmp_path)["held"]
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()


def test_without_kernel_locks_a_live_process_of_this_machine_holds(tmp_path, no_kernel_locks):
    with run_lock(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()} "), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("what", ["process is gone", "number is another process's"])
def test_without_kernel_locks_a_dead_process_of_this_machine_does_not_hold(tmp_path, no_kernel_locks, what):
    stale = {"pid": ended_process()} if what == "process is gone" else {"ticks": 1}
    left_by(tmp_path, **stale)
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()


def test_another_machines_lock_holds_while_it_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    left_by(tmp_path, host="elsewhere", boot="another", pid=123)
    over = threading.Event()

    def touch():
        while not over.wait(0.02):
            os.utime(tmp_path / NAME)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    with (
        pytest.raises(FolderInUse, match=r"process 123 on host elsewhere.*delete .*\.lock"),
        run_lock(tmp_path),
    ):
        pass
    over.set()
    thread.join()
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()
    assert "was held by process 123 on host elsewhere" in capsys.readouterr().err


HOLDS_THE_KERNELS_LOCK = """
import dataclasses, fcntl, json, sys, time
from fastgan import _folder_lock  # imported before locking, because it may take long

file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(0.5)
if sys.argv[2] == "begins":
    file.truncate(file.write(json.dumps(dataclasses.asdict(_folder_lock.Holder.myself()))))
    file.flush()
    time.sleep(60)
"""


@pytest.mark.parametrize("which", ["begins", "ends"])
def test_whoever_has_the_kernels_lock_but_no_text_is_about_to_begin_or_to_end(tmp_path, monkeypatch, which):
    monkeypatch.setattr(locks, "HANDOVER", 60.0)  # on a busy machine
    left_by(tmp_path, held=False, pid=123456)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_KERNELS_LOCK, str(tmp_path / NAME), which],
        stdout=subprocess.PIPE, text=True, cwd=os.getcwd(),
    ) as other:  # fmt: skip
        try:
            assert other.stdout.readline() == "locked\n"
            if which == "begins":
                in_use = pytest.raises(FolderInUse, match=f"is in use by process {other.pid} on host ")
                with in_use, run_lock(tmp_path):
                    pass
            else:
                with run_lock(tmp_path):
                    assert says(tmp_path)["pid"] == os.getpid()
        finally:
            other.kill()


def test_a_lock_without_a_text_for_long_is_another_processs(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HANDOVER", 0.1)
    left_by(tmp_path, held=False)
    with (tmp_path / NAME).open() as file:
        locks.fcntl.flock(file, locks.fcntl.LOCK_EX)
        with pytest.raises(FolderInUse, match="is in use by another process:"), run_lock(tmp_path):
            pass


@pytest.mark.parametrize("elsewhere", [{"boot": "another"}, {"pids": "pid:[1]"}], ids=["host", "container"])
def test_a_number_of_another_machine_or_container_says_nothing(
    tmp_path, monkeypatch, no_kernel_locks, capsys, elsewhere
):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    for pid in (os.getpid(), ended_process()):  # whether it is alive or not
        left_by(tmp_path, pid=pid, **elsewhere)
        with run_lock(tmp_path):
            pass
        assert f"was held by process {pid} on host {socket.gethostname()}" in capsys.readouterr().err


def test_the_kernels_lock_counts_for_all_containers_of_a_machine(tmp_path, capsys):
    left_by(tmp_path, pids="pid:[1]", host="container")
    with run_lock(tmp_path):
        pass
    assert capsys.readouterr().err == ""


def test_of_two_that_start_at_once_without_kernel_locks_one_has_the_folder(
    tmp_path, monkeypatch, no_kernel_locks
):
    write = locks.FolderLock._write

    def both_write(self):
        write(self)
        other = {**says(tmp_path), "pid": 4321, "token": "another's"}
        (tmp_path / NAME).write_text(json.dumps(other))

    monkeypatch.setattr(locks.FolderLock, "_write", both_write)
    with pytest.raises(FolderInUse, match="is in use by process 4321"), run_lock(tmp_path):
        pass
    assert (says(tmp_path)["pid"], says(tmp_path)["held"]) == (4321, True)


def test_a_run_that_lost_its_lock_ends_after_the_step(tmp_path, monkeypatch, no_kernel_locks):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    config = ToyConfig(
        runs_path=str(tmp_path), num_steps=6, log_interval=1, checkpoint_interval=1, accelerator="cpu"
    )
    step_of = Toy.train_step

    def train_step(self, batch, step, generator):
        if step == 2:
            text = {**says(config.folder), "pid": 4321, "token": "another's"}
            (config.folder / NAME).write_text(json.dumps(text))
            time.sleep(0.5)
        return step_of(self, batch, step, generator)

    monkeypatch.setattr(Toy, "train_step", train_step)
    with pytest.raises(FolderInUse, match=f"{config.folder} was taken over by process 4321"):
        train(Toy, config)
    assert (says(config.folder)["pid"], says(config.folder)["held"]) == (4321, True)
    assert sorted(path.name for path in (config.folder / "checkpoints").iterdir())[-1:] == [
        "step-00000002.safetensors"
    ]


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGTERM)", "leave('rank 1: its process died')"])
def test_a_process_that_is_ended_at_once_lets_its_folder_go(tmp_path, end):
    source = f"""
import os, pathlib, signal, sys, time
from fastgan.training.run_lock import run_lock
from fastgan.training.signals import leaving_at_once
from fastgan.training.processes.children import leave
with leaving_at_once(), run_lock(pathlib.Path(sys.argv[1])):
    {end}
    time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", source, str(tmp_path)], cwd=os.getcwd())
    assert ended.returncode in (143, 1)
    assert says(tmp_path)["held"] is False


def test_a_run_whose_folder_was_removed_leaves_anothers_of_that_name(tmp_path):
    folder = tmp_path / "run"
    with run_lock(folder) as lock:
        lock.check()
        (folder / NAME).unlink()
        folder.rmdir()
        with pytest.raises(FolderInUse, match=f"{folder} was removed while process .*: this run ends"):
            lock.check()
        with run_lock(folder) as other:
            (folder / "theirs").touch()
            with pytest.raises(FolderInUse, match="was removed"):
                lock.check()
            other.check()
        (folder / "theirs").unlink()
    assert says(folder)["token"] == other.holder.token


def test_the_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with run_lock(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_that_says_nothing_is_taken(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="cannot be written"), run_lock(tmp_path / "run"):
        pass
    assert not (tmp_path / "outside").exists()
