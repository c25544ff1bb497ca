"""Gradients sent as bfloat16: the same bits in all processes, and what rounding takes comes later."""

import pytest
import torch

from tests.processes import run_script

SCRIPT = """
import sys, torch
from tests.training.test_half_sum import STEPS, gradients, network
from fastgan.training.processes.exchange import Exchange

torch.distributed.init_process_group("gloo")
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
out = {}
for half in (True, False):
    model = network()
    # Buckets of a layer each, more than are sent ahead.
    exchange = Exchange([model.parameters()], size, bucket_bytes=256, half=half)
    updates = []
    for step in range(STEPS):
        model.zero_grad()
        with exchange.last_backward():
            terms = [
                (parameter * gradient).sum()
                for parameter, gradient in zip(model.parameters(), gradients(rank)) if gradient is not None
            ]
            torch.stack(terms).sum().backward()
        updates.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    out[half] = updates
    out["buckets"] = len(exchange._buckets)
everywhere = [None] * size
torch.distributed.all_gather_object(everywhere, out[True])
if rank == 0:
    out["everywhere"] = everywhere
    torch.save(out, sys.argv[1])
torch.distributed.barrier()
"""
STEPS = 64


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(7, 7) for _ in range(4)))


def gradients(rank):
    """The gradient of each parameter in a process: None for the first of all, and in two for the second."""
    generator = torch.Generator().manual_seed(rank)
    found = [torch.randn(p.shape, generator=generator) for p in network().parameters()]
    return [None, found[1] if rank == 1 else None, *found[2:]]


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    run_script(SCRIPT, folder, folder / "out.pt", processes=3)
    return torch.load(folder / "out.pt")


def test_all_processes_have_the_same_bits(sums):
    assert sums["buckets"] > 3
    first, *others = sums["everywhere"]
    for other in others:
        for updates, theirs in zip(first, other, strict=True):
            for mine, its in zip(updates, theirs, strict=True):
                assert (mine is None and its is None) or torch.equal(mine, its)


def test_a_parameter_without_a_gradient_in_any_process_keeps_none(sums):
    for half, exact in zip(sums[True], sums[False], strict=True):
        assert [g is None for g in half] == [g is None for g in exact] == [True, *[False] * 7]


def test_one_sum_is_rounded_and_many_are_exact(sums):
    one = [g for g in sums[True][0] if g is not None]
    exact = [g for g in sums[False][0] if g is not None]
    largest = max(g.abs().max() for g in exact)
    off = max((half - g).abs().max() for half, g in zip(one, exact, strict=True))
    assert 2**-12 * largest < off < 2**-7 * largest, "bfloat16 has 8 bits"
    for number, g in enumerate(exact, start=1):
        mean = torch.stack([update[number] for update in sums[True]]).double().mean(0)
        torch.testing.assert_close(mean, g.double(), rtol=0, atol=4 * 2**-8 * largest.item() / STEPS)


TRAINS = """
import dataclasses, sys, torch
from fastgan.training.loop import train
from tests.training.toy import Toy, ToyConfig

config = ToyConfig(runs_path=sys.argv[1], num_steps=6, global_batch_size=6, accelerator="cpu", log_interval=3)
for name in ("float32", "bf16"):
    train(Toy, dataclasses.replace(config, exp_name=name, exchange=name))
"""


def test_training_takes_the_option(tmp_path):
    from tests.recipes.runs import newest

    run_script(TRAINS, tmp_path, tmp_path, processes=2)
    exact, half = newest(tmp_path / "float32"), newest(tmp_path / "bf16")
    differ = [key for key in exact if not torch.equal(exact[key], half[key])]
    assert differ, "gradients were sent as float32"
    for key in differ:
        if key.startswith("networks"):
            torch.testing.assert_close(half[key], exact[key], rtol=0.05, atol=0.02)
