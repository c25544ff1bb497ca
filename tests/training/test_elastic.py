"""A process that dies, fails or hangs ends all within seconds; restarts go on from the checkpoint."""

from __future__ import annotations

import csv

import pytest
import torch

from tests.nodes import run_nodes
from tests.processes import run_script
from tests.recipes.runs import newest

COMMON = """
import dataclasses, os, signal, sys, time
import torch
from fastgan import cli
from fastgan.training import checkpoint, loop
from fastgan.training.processes.runtime import ProcessFailed
from tests.training.toy import Toy, ToyConfig

rank = int(os.environ.get("RANK", "0"))
first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
config = ToyConfig(exp_name=sys.argv[1], num_steps=8, global_batch_size=6, accelerator="cpu", log_interval=1,
                   checkpoint_interval=2, ema_decay=0.9, resume="auto")
config = dataclasses.replace(config, **eval(sys.argv[2]) if len(sys.argv) > 2 else {})
step_of, build = Toy.train_step, Toy.__init__

# Without what is drawn per process, the joined batch is the same computation for any number of them.
def joined(self, batch, step, generator):
    act(step)
    generator.manual_seed(step)
    z = torch.randn(6, 4, generator=generator)
    original, torch.randn = torch.randn, lambda *a, **k: self.runtime.part(z)
    try:
        return step_of(self, batch, step, generator)
    finally:
        torch.randn = original

def without_dropout(self, config, runtime):
    build(self, config, runtime)
    self.generator[1].p = 0.0

Toy.train_step, Toy.__init__ = joined, without_dropout
act = lambda step: None

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
TRAIN = """
cli.load_recipe = lambda name: Toy
import fastgan.training.command_line
fastgan.training.command_line.parse_config = lambda *arguments, **more: config
sys.exit(cli._train("toy", []))
"""


def steps(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def write(folder, source):
    path = folder / "script.py"
    path.write_text(COMMON + source + TRAIN)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run by one process, and by two machines with one and two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    script = write(folder, "")
    run_script(COMMON + TRAIN, folder, "one", f"dict(runs_path={str(folder)!r})")
    main, other = run_nodes(folder, [script, "run"], (1, 2))
    assert (main.code, other.code) == (0, 0), main.errors[-3000:] + other.errors[-3000:]
    return newest(folder / "one"), newest(main.folder / "runs" / "run")


def test_the_numbers_do_not_depend_on_the_machines(undisturbed):
    one, many = undisturbed
    for key in one:
        torch.testing.assert_close(many[key], one[key], rtol=1e-5, atol=1e-7)


RANK_2_DIES = "act = lambda step: die() if first and rank == 2 and step == 5 else None"
RANK_0_DIES_WHILE_WRITING = """
replace = os.replace
def dies(source, target, *more, **others):
    if first and "step-00000006" in str(target):
        die()
    return replace(source, target, *more, **others)
os.replace = dies
"""
RANK_1_DIES_IN_THE_EXCHANGE = """
from fastgan.training.processes.exchange import Bucket
start = Bucket.start
def dies(self, reduce):
    start(self, reduce)
    if first and rank == 1 and steps_begun == 6:
        die()
Bucket.start = dies
steps_begun = 0
def act(step):
    global steps_begun
    steps_begun = step + 1
"""


@pytest.mark.parametrize(
    "source", [RANK_2_DIES, RANK_0_DIES_WHILE_WRITING, RANK_1_DIES_IN_THE_EXCHANGE],
    ids=["in_forward", "while_writing", "in_the_exchange"],
)  # fmt: skip
def test_restarts_go_on_to_the_same_bits(undisturbed, tmp_path, source):
    main, other = run_nodes(tmp_path, [write(tmp_path, source), "run"], (1, 2), "--max-restarts=2")
    assert (main.code, other.code) == (0, 0), main.errors[-3000:] + other.errors[-3000:]
    folder = main.folder / "runs" / "run"
    assert steps(folder) == [*range(1, 9)]
    assert main.out.count("parameters:") == 2, "it was begun twice"
    expected, actual = undisturbed[1], newest(folder)
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_another_number_of_processes_goes_on(undisturbed, tmp_path):
    for count, length in ((2, 3), (3, 6), (1, 8)):
        run_script(
            COMMON + TRAIN, tmp_path, "run", f"dict(runs_path={str(tmp_path)!r}, num_steps={length})",
            processes=count,
        )  # fmt: skip
    assert steps(tmp_path / "run") == [*range(1, 9)]
    actual = newest(tmp_path / "run")
    for key, expected in undisturbed[0].items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-5, atol=1e-7)


RAISES = "act = lambda step: 1 / 0 if rank == 1 and step == 3 else None"
HANGS = "act = lambda step: time.sleep(500) if rank == 2 and step == 3 else None"
DIES = "act = lambda step: die() if rank == 0 and step == 3 else None"


@pytest.mark.parametrize("source, timeout, message", [
    (RAISES, 1, "rank 1: division by zero"),
    (HANGS, 0.05, "another process did not answer for 0.05 minutes (--timeout)"),
    (DIES, 1, "rank 0: its process died"),
], ids=["raises", "hangs", "dies"])  # fmt: skip
def test_all_end_within_seconds_and_say_why_once(tmp_path, source, timeout, message):
    main, other = run_nodes(
        tmp_path, [write(tmp_path, source), "run", f"dict(timeout={timeout})"], (1, 2), backend="static"
    )
    assert main.code != 0 and other.code != 0
    assert max(main.seconds, other.seconds) < 60, "with the start of Python and torchrun's own end"
    printed = main.errors + other.errors
    errors = [line for line in printed.splitlines() if line.startswith("fastgan: error: ")]
    assert len(errors) == 1 and message in errors[0], errors
    assert (errors[0] in main.errors) != (source == DIES)
