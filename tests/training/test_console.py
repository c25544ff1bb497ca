"""Lost output and signals: the run continues, or saves and ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.console import lasting_console
from fastgan.training.loop import Interrupted, train
from tests.processes import ROOT

from .toy import Toy, ToyConfig


@pytest.fixture
def config(tmp_path):
    return ToyConfig(
        runs_path=str(tmp_path), num_steps=40, log_interval=1, sample_interval=40, eval_interval=40,
        checkpoint_interval=40, accelerator="cpu",
    )  # fmt: skip


def closed_pipe():
    """A command whose output goes to a `head` that has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", buffering=1)


def full_disk():
    return open("/dev/full", "w", buffering=1)


@pytest.mark.parametrize("make", [closed_pipe, full_disk])
def test_a_run_goes_on_without_a_console(config, monkeypatch, make):
    streams = make(), make()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    folder = train(Toy, config)
    assert (sys.stdout, sys.stderr) == streams
    assert len((folder / "metrics.csv").read_text().split()) == 41
    assert load_checkpoint(folder).step == 40
    for stream in streams:
        stream.close()  # nothing unwritten is left in the buffer


def test_a_run_goes_on_where_there_never_was_a_console(config, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert load_checkpoint(train(Toy, config)).step == 40


def test_names_that_a_console_cannot_encode_are_escaped(config, monkeypatch, tmp_path):
    streams = [open(tmp_path / name, "w", encoding="ascii") for name in ("out", "err")]  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    folder = train(Toy, dataclasses.replace(config, exp_name="\N{LATIN SMALL LETTER E WITH ACUTE}"))
    with lasting_console():
        print(f"results in {folder}")
        sys.stderr.writelines(["100 \N{EURO SIGN}"])
    for stream in streams:
        stream.close()
    assert (tmp_path / "out").read_text().endswith(f"results in {tmp_path}/\\xe9\n")
    assert (tmp_path / "err").read_text().endswith("100 \\u20ac")


def test_a_command_prints_whatever_the_consoles_encoding_is(tmp_path):
    folder = tmp_path / "\N{LATIN SMALL LETTER E WITH ACUTE}"
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,a\n1,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", "report", str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/\\xe9/report.html\n".encode()


def test_what_is_printed_arrives_while_somebody_reads(capsys):
    with lasting_console(), lasting_console():
        print("one")
        print("two", file=sys.stderr)
        assert not sys.stdout.isatty()
    assert capsys.readouterr() == ("one\n", "two\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_let_a_run_save_and_leave(config, monkeypatch, number):
    step_of = Toy.train_step

    def hangs_up(self, batch, step, generator):
        if step == 7:
            os.kill(os.getpid(), number)
        return step_of(self, batch, step, generator)

    monkeypatch.setattr(Toy, "train_step", hangs_up)
    before = signal.signal(number, signal.SIG_DFL)  # nohup, under which the tests may run, ignores SIGHUP
    try:
        with pytest.raises(Interrupted) as stopped:
            train(Toy, config)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert stopped.value.exit_code == 128 + number
    assert load_checkpoint(config.folder).step == 8


def test_a_terminal_that_hangs_up_does_not_stop_what_nohup_started(config, monkeypatch):
    step_of = Toy.train_step

    def hangs_up(self, batch, step, generator):
        os.kill(os.getpid(), signal.SIGHUP)
        return step_of(self, batch, step, generator)

    monkeypatch.setattr(Toy, "train_step", hangs_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert load_checkpoint(train(Toy, config)).step == 40
    finally:
        signal.signal(signal.SIGHUP, before)


DCGAN = [
    "train", "dcgan", "--preset", "demo", "--num_epochs", "0", "--num_steps", "3", "--batch_size", "4",
    "--g_width", "4", "--d_width", "4", "--log_interval", "1", "--checkpoint_interval", "3",
    "--frechet", "off", "--collapse_images", "4", "--accelerator", "cpu", "--exp_name", "x",
]  # fmt: skip


def start(tmp_path, *options, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "fastgan", *DCGAN, "--runs_path", str(tmp_path), *options], cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **{"stderr": subprocess.PIPE, **streams},
    )  # fmt: skip


def test_sigterm_during_the_start_leaves_cleanly_and_the_command_into_head_trains(tmp_path):
    started = start(tmp_path)
    with contextlib.suppress(FileNotFoundError):
        while not (tmp_path / "x" / ".lock").exists():
            assert started.poll() is None
            time.sleep(0.01)
    started.send_signal(signal.SIGTERM)
    output = started.communicate()[1].decode()
    assert started.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in output and "ended by SIGTERM" in output

    head = subprocess.Popen(["head", "-n1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    trains = start(tmp_path, stdout=head.stdin)
    head.stdin.close()
    output = trains.communicate()[1].decode()
    assert trains.returncode == 0, output
    assert "Broken" not in output
    assert head.stdout.read().count(b"\n") == 1
    head.wait()
    assert (tmp_path / "x" / "report.html").exists()
