"""Several processes: the world is torchrun's, gradients never mix, and an error in one ends all."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from fastgan.training.config import TrainingConfig
from fastgan.training.processes import peers
from fastgan.training.processes.rendezvous import tell_of_failed_start
from fastgan.training.processes.runtime import Runtime, is_timeout
from fastgan.training.processes.world import (
    World,
    check_alone,
    check_devices,
    launched_world,
    restarts,
    torchrun_job,
)
from tests.processes import ROOT, in_forks

COMMON = """
import dataclasses, json, os, signal, sys, threading, time
from pathlib import Path
import torch
from fastgan.training import loop
from fastgan.training.loop import train
from fastgan.training.processes.runtime import ProcessFailed, Runtime
from tests.training.toy import Toy, ToyConfig

folder = Path(sys.argv[1])
rank = int(os.environ.get("RANK", "0"))
config = ToyConfig(runs_path=str(folder), num_steps=6, batch_size=2, accelerator="cpu", log_interval=1,
                   checkpoint_interval=2)
step_of = Toy.train_step

def at_step(number, act):
    def train_step(self, batch, step, generator):
        if step == number:
            act()
        return step_of(self, batch, step, generator)
    Toy.train_step = train_step

def fails(error):
    raise error

def threads():
    # Threads that may hold torch objects, and must have ended before Python does.
    others = "tqdm", "tensorboard"
    own = [t.name for t in threading.enumerate() if not type(t).__module__.startswith(others)]
    own.remove("MainThread")
    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.exists() else []
    return own + [name for name in names if "gloo" in name]
"""


def start(source, folder, *launcher):
    script = folder / "script.py"
    script.write_text(COMMON + source)
    process = subprocess.Popen(
        [sys.executable, *launcher, str(script), str(folder)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    out, errors = process.communicate(timeout=200)
    return process.returncode, out, errors


def torchrun(source, folder, *options):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *options)
    return start(source, folder, *launcher)


def steps(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


UNDER_TORCHRUN = """
def gradients():
    # Rank 1 has no gradient of the first parameter, rank 0 none of the second, neither has one of the third;
    # the fourth is frozen.
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (6,), (4,), (5,))]
    for index, weight in enumerate(weights[:2]):
        if index != rank:
            weight.grad = torch.full(weight.shape, 1.0 + index)
    weights[3].requires_grad_(False)
    runtime = Runtime(config)
    with runtime.together():
        report["at_the_start"] = [name for name in threads() if name.startswith("fastgan-start")]
        with runtime.last_backward(torch.optim.SGD(weights, lr=1.0)):
            pass
    report["at_the_end"] = threads()
    return [None if weight.grad is None else weight.grad.tolist() for weight in weights]

report = {}
report["gradients"] = gradients()
try:
    train(Toy, dataclasses.replace(config, devices=3))
except ValueError as error:
    report["devices"] = str(error)
train(Toy, config)
at_step(3, lambda: rank == 1 and fails(ValueError("no such image")))
began = time.monotonic()
try:
    train(Toy, dataclasses.replace(config, exp_name="fails"))
except ProcessFailed as error:
    report["error"], report["seconds"] = str(error), time.monotonic() - began
(folder / f"rank-{rank}.json").write_text(json.dumps(report))
"""


def test_a_store_that_waits_in_vain_has_timed_out():
    store = torch.distributed.TCPStore("localhost", 0, is_master=True)
    with pytest.raises(RuntimeError) as error:
        store.wait(["nobody writes this"], timedelta(milliseconds=10))
    assert is_timeout(error.value)
    assert not is_timeout(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_collective_of_gloo_that_waits_in_vain_has_timed_out():
    store = torch.distributed.HashStore()

    def join(rank):
        return torch.distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=60))

    with ThreadPoolExecutor(2) as threads:
        groups = list(threads.map(join, (0, 1)))
    options = torch.distributed.AllreduceOptions()
    options.timeout = timedelta(milliseconds=10)
    try:
        with pytest.raises(RuntimeError) as error:
            groups[0].allreduce([torch.ones(1)], options).wait()  # in which rank 1 takes no part
        assert is_timeout(error.value)
    finally:
        groups.clear()  # before Python ends, which would abort over gloo's threads


def test_under_torchrun(tmp_path):
    code, out, errors = torchrun(UNDER_TORCHRUN, tmp_path)
    assert code == 0, errors
    for rank in (0, 1):
        report = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert report["at_the_start"] == report["at_the_end"] == []
        # Missing gradients count as zeros; a gradient that no process has stays missing.
        assert report["gradients"] == [[[0.5] * 3] * 2, [1.0] * 6, None, None]
        assert "devices is 3, but torchrun started 2 processes" in report["devices"]
        assert report["error"] == "rank 1: no such image"
        assert report["seconds"] < 60
    # One run even without --devices, whose result only one process prints.
    assert steps(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert out.count("held out:") == 1


def test_the_others_end_when_a_process_is_killed(tmp_path):
    source = """
at_step(3, lambda: os.environ.get("RANK") == "1" and os.kill(os.getpid(), signal.SIGKILL))
began = time.monotonic()
try:
    train(Toy, dataclasses.replace(config, devices=2))
except ProcessFailed as error:
    print(error, time.monotonic() - began, "threads", threads(), file=sys.stderr)
    sys.exit(3)
"""
    began = time.monotonic()
    code, _, errors = start(source, tmp_path)
    assert code == 3, errors
    assert "rank 1: its process died" in errors
    assert "threads []" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - began < 100
    assert steps(tmp_path / "run") == [1, 2, 3]


def test_torchruns_restart_goes_on_where_the_run_was(tmp_path):
    source = """
first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
at_step(3, lambda: first and rank == 1 and os.kill(os.getpid(), signal.SIGKILL))
train(Toy, config)
"""
    code, out, errors = torchrun(source, tmp_path, "--max-restarts", "1")
    assert code == 0, errors
    assert steps(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert out.count("held out:") == 1


STARTED = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}


def test_the_world_is_the_environments():
    assert launched_world({"LOCAL_RANK": "1"}) is None
    assert launched_world(STARTED) == World(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize("name, value, message", [
    ("LOCAL_RANK", None, "has RANK and WORLD_SIZE but no LOCAL_RANK"),
    ("WORLD_SIZE", "four", "WORLD_SIZE must be a number, got 'four'"),
    ("RANK", "4", "contradicts itself: RANK=4, WORLD_SIZE=4"),
    ("LOCAL_WORLD_SIZE", "5", "LOCAL_WORLD_SIZE=5"),
])  # fmt: skip
def test_a_world_that_cannot_be_is_named(name, value, message):
    environment = {**STARTED, name: value}
    if value is None:
        del environment[name]
    with pytest.raises(ValueError, match=message):
        launched_world(environment)


@pytest.mark.parametrize("environment", [
    {}, {"WORLD_SIZE": "1"}, {"RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "1"},
], ids=str)  # fmt: skip
def test_a_process_may_be_alone(environment):
    check_alone(environment)


@pytest.mark.parametrize("environment, message", [
    ({"WORLD_SIZE": "2"}, "has WORLD_SIZE='2' but no RANK"),
    ({"RANK": "1"}, "has RANK='1' but no WORLD_SIZE"),
], ids=str)  # fmt: skip
def test_half_of_a_world_does_not_train_alone(monkeypatch, environment, message):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Runtime(TrainingConfig(accelerator="cpu"))


@pytest.mark.parametrize("name, value, message", [
    ("MASTER_ADDR", "", "MASTER_ADDR is missing"), ("MASTER_PORT", "", "MASTER_PORT is missing"),
    ("MASTER_PORT", "http", r"MASTER_PORT must be a number in \[1, 65535\], got 'http'"),
    ("MASTER_PORT", "99999", "got '99999'"), ("MASTER_PORT", "0", "got '0'"),
])  # fmt: skip
def test_an_address_of_rank_0_that_cannot_be_is_named(monkeypatch, name, value, message):
    for key, one in {**STARTED, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", name: value}.items():
        monkeypatch.setenv(key, one)
    with pytest.raises(ValueError, match=message):
        Runtime(TrainingConfig(accelerator="cpu")).launch()
    assert tell_of_failed_start("the first error"), "and that does not hide the first error"


def test_a_second_run_on_a_runs_port_ends(monkeypatch):
    """Both its rank 0, which cannot listen there, and the others, which find the other run's rank 0."""
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(peers, "REFUSED_SECONDS", 0.1)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        started = {**STARTED, "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in started.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(OSError, match=f"MASTER_PORT={port}, is the port that of another run"):
            Runtime(TrainingConfig(accelerator="cpu")).launch()
    store = torch.distributed.HashStore()
    store.set(peers.ADDRESS, f"127.0.0.1 {port} token")  # where nothing listens any more
    with pytest.raises(OSError, match=f"does not answer rank 1 at 127.0.0.1, port {port}: is MASTER_PORT"):
        peers.Peers.connect(1, 2, None, store)


def test_rank_0_says_once_for_whom_it_waits(monkeypatch, capsys):
    monkeypatch.setattr(peers, "TELL_SECONDS", 0.1)
    monkeypatch.setattr(peers, "CONNECT_SECONDS", 1.0)
    with pytest.raises(TimeoutError, match="rank 1 did not connect within 1 s"):
        peers.Peers.connect(0, 3, None, torch.distributed.HashStore())
    told = capsys.readouterr().err
    assert told.count("fastgan: waiting for 2 of 3 processes, such as rank 1") == 1
    assert "by srun" in told


def test_devices_are_those_of_a_machine():
    world = launched_world(STARTED)
    check_devices(None, world)
    check_devices(2, world)
    with pytest.raises(ValueError, match=r"devices is 4, but torchrun started 2 .*\(4 on all machines\)"):
        check_devices(4, world)


def test_a_job_without_an_id_is_its_agents(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert torchrun_job() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert str(os.getppid()) in torchrun_job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    assert torchrun_job() == "mine"


@pytest.mark.parametrize("count", ["", "one", "-1"])
def test_a_count_of_restarts_that_is_none_is_named(monkeypatch, count):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    with pytest.raises(ValueError, match=f"TORCHELASTIC_RESTART_COUNT must be a number, got '{count}'"):
        restarts()


def test_an_accelerator_that_is_not_there_is_named():
    import torch

    from fastgan.training.config import TrainingConfig
    from fastgan.training.processes.runtime import Runtime

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="accelerator 'cuda' cannot be used"):
        Runtime(TrainingConfig(accelerator="cuda"))


def test_a_run_starts_without_heavy_imports(tmp_path):
    program = """
import sys
from fastgan.training.config import TrainingConfig
from fastgan.training.processes.runtime import Runtime, is_timeout

Runtime(TrainingConfig(accelerator="cpu"))
assert not {"lightning_fabric", "torchmetrics", "scipy.signal", "matplotlib"} & sys.modules.keys()
"""
    assert in_forks([program], tmp_path) == [(0, "")]
