"""Two processes with half of the batch each take the step of one with the whole batch."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from tests.processes import run_script

SCRIPT = """
import dataclasses, sys
import torch
from tests.training.toy import Toy, ToyConfig
from fastgan.training.loop import train

# Dropout and z are drawn per process; without them the joined batch is the same computation.
def fixed_noise(self, batch, step, generator):
    count, rank = len(batch), self.runtime.rank
    joined = torch.randn(4, 4, generator=torch.Generator().manual_seed(1000 + step))
    z = joined[rank * count : (rank + 1) * count]
    generator_of = lambda *a, **k: z
    original, torch.randn = torch.randn, generator_of
    try:
        return step_of(self, batch, step, generator)
    finally:
        torch.randn = original

step_of, Toy.train_step = Toy.train_step, fixed_noise
build = Toy.__init__
def without_dropout(self, config, runtime):
    build(self, config, runtime)
    self.generator[1].p = 0.0
Toy.__init__ = without_dropout
train(Toy, ToyConfig(runs_path=sys.argv[1], exp_name=sys.argv[2], num_steps=5, batch_size=int(sys.argv[3]),
                     devices=int(sys.argv[4]), accelerator="cpu", log_interval=5, ema_decay=0.9))
"""


def test_two_gloo_processes_equal_one_with_the_joined_batch(tmp_path):
    run_script(SCRIPT, tmp_path, tmp_path, "one", "4", "1")
    run_script(SCRIPT, tmp_path, tmp_path, "two", "2", "2", processes=2)
    one, two = (
        load_file(tmp_path / name / "checkpoints" / "step-00000005.safetensors") for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=1e-7)
