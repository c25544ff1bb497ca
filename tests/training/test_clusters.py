"""Processes started by SLURM, LSF or MPI form one run, as those of torchrun do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastgan.training.processes.clusters import cluster_world
from fastgan.training.processes.world import World, free_port, is_main_process
from tests.processes import ROOT

from .test_processes import COMMON, steps

SLURM = {
    "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "SLURM_NNODES": "1",
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1",
    "SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
}  # fmt: skip

FAILS_IN_RANK_1 = """
rank = int(os.environ["SLURM_PROCID"])
at_step(3, lambda: rank == 1 and fails(ValueError("no such image")))
"""
TRAINS = """
from fastgan.training.processes.world import is_main_process
try:
    folder = train(Toy, config)
except ProcessFailed as error:
    sys.exit(f"fastgan: error: {error}")
if is_main_process():
    print("results in", folder)
"""


def srun(source, folder):
    """Exit code, output and errors of both processes."""
    (folder / "script.py").write_text(COMMON + source)
    shared = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_"))}
    shared |= {**SLURM, "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    tasks = [
        subprocess.Popen(
            [sys.executable, str(folder / "script.py"), str(folder)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    printed = [task.communicate(timeout=200) for task in tasks]
    return [(task.returncode, *texts) for task, texts in zip(tasks, printed, strict=True)]


def test_sruns_processes_are_one_run(tmp_path):
    (code, out, errors), (other_code, other_out, other_errors) = srun(TRAINS, tmp_path)
    assert (code, other_code) == (0, 0), errors + other_errors
    assert steps(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert out.count("held out:") == 1
    assert out.count("results in") == 1
    assert other_out == ""


def test_the_reason_of_one_of_sruns_processes_ends_all(tmp_path):
    ends = srun(FAILS_IN_RANK_1 + TRAINS, tmp_path)
    for code, _, errors in ends:
        assert code == 1
        assert errors.splitlines()[-1] == "fastgan: error: rank 1: no such image"
        assert "Traceback" not in errors
    assert steps(tmp_path / "run") == [1, 2, 3]


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, after removing those of clusters."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "JSM_", "LSB_", "MASTER_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    for name in ("MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "")  # so that monkeypatch also undoes later changes
        monkeypatch.delenv(name)

    def set_all(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("tasks, node, here", [("2", "0", 2), ("3(x2),1", "1", 3), ("3(x2),1", "2", 1)])
def test_the_tasks_of_a_node_are_slurms(environment, tasks, node, here):
    environment({
        **SLURM, "SLURM_NTASKS": "7", "SLURM_TASKS_PER_NODE": tasks, "SLURM_NODEID": node,
        "SLURM_PROCID": "6", "SLURM_NODELIST": "gpu[07-09],big1",
    })  # fmt: skip
    assert cluster_world(None) == World(6, 7, 0, here, "SLURM")
    assert os.environ["MASTER_ADDR"] == "gpu07"
    assert os.environ["MASTER_PORT"] == "19711"


def test_slurm_without_the_tasks_of_a_node_has_as_many_as_devices(environment):
    environment({name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"})
    assert cluster_world(2) == World(0, 2, 0, 2, "SLURM")


@pytest.mark.parametrize("changed", [{"SLURM_JOB_NAME": "bash"}, {"SLURM_NTASKS": "1"}])
def test_an_interactive_job_or_a_single_task_starts_its_own_processes(environment, changed):
    environment({**SLURM, **changed})
    assert cluster_world(None) is None


@pytest.mark.parametrize("name, value, message", [
    ("SLURM_PROCID", "x", "SLURM started this process, but not all that it says is clear: .*'x'"),
    ("SLURM_PROCID", "2", "contradicts itself: rank=2, size=2"),
])  # fmt: skip
def test_a_cluster_that_cannot_be_is_named(environment, name, value, message):
    environment({**SLURM, name: value})
    with pytest.raises(ValueError, match=message):
        cluster_world(None)


def test_jsruns_world_is_the_environments(environment, tmp_path):
    import socket

    hosts = tmp_path / "hosts"
    hosts.write_text(f"launch\n{socket.gethostname()}\n{socket.gethostname()}\n")
    environment({
        "LSB_JOBID": "1234", "LSB_DJOB_RANKFILE": str(hosts), "JSM_NAMESPACE_SIZE": "2",
        "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_LOCAL_SIZE": "2",
    })  # fmt: skip
    assert cluster_world(None) == World(1, 2, 1, 2, "LSF")
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == (socket.gethostname(), "10234")


def test_who_prints_is_known_before_the_world_is(environment, monkeypatch):
    monkeypatch.setattr("fastgan.training.processes.world._world", [])
    assert is_main_process()
    environment({**SLURM, "SLURM_PROCID": "1"})
    assert not is_main_process()
    environment({"RANK": "0", "WORLD_SIZE": "2"})
    assert is_main_process()
