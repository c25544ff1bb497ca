"""The lock of a run's folder: one holder, who is named; what the dead left behind does not count."""

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

from fastgan.training import run_lock as locks
from fastgan.training.loop import train
from fastgan.training.run_lock import NAME, RunInUse, run_lock

from .toy import Toy, ToyConfig


def says(folder):
    return json.loads((folder / NAME).read_text())


def left_by(folder, **changes):
    """The lock of another process, which did not let it go."""
    with run_lock(folder):
        text = says(folder)
    (folder / NAME).write_text(json.dumps({**text, "held": True, **changes}))


@pytest.fixture
def no_kernel_locks(monkeypatch):
    def refuses(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuses)


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
            with pytest.raises(RunInUse) as refused:
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
    with pytest.raises(RunInUse, match=f"process {holder.pid} "), run_lock(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert says(tmp_path)["held"]
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()


def test_without_kernel_locks_a_live_process_of_this_machine_holds(tmp_path, no_kernel_locks):
    with run_lock(tmp_path), pytest.raises(RunInUse, match=f"process {os.getpid()} "), run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("what", ["process is gone", "number is another process's"])
def test_without_kernel_locks_a_dead_process_of_this_machine_does_not_hold(tmp_path, no_kernel_locks, what):
    gone = {"pid": ended_process()} if what == "process is gone" else {"ticks": 1}
    left_by(tmp_path, **gone)
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()


def test_another_machines_lock_holds_while_it_is_touched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    monkeypatch.setattr(locks, "PATIENCE", 0.5)
    left_by(tmp_path, host="elsewhere", pid=123)
    over = threading.Event()

    def touch():
        while not over.wait(0.02):
            os.utime(tmp_path / NAME)

    thread = threading.Thread(target=touch)
    thread.start()
    with pytest.raises(RunInUse, match=r"process 123 on host elsewhere.*delete .*\.lock"), run_lock(tmp_path):
        pass
    over.set()
    thread.join()
    with run_lock(tmp_path):
        assert says(tmp_path)["pid"] == os.getpid()
    assert "was held by process 123 on host elsewhere" in capsys.readouterr().err


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
