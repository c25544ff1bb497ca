"""Gradients sent as bfloat16: the same bits in all processes, and what rounding takes comes later."""

from collections import deque

import pytest
import torch

from fastgan.training.processes.half_sum import HalfSum
from tests.processes import run_script

SCRIPT = """
import sys, torch
from datetime import timedelta
from tests.training.test_half_sum import STEPS, deep_network, gradients, network
from fastgan.training.processes.exchange import Exchange

torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
gradient_group = torch.distributed.new_group(timeout=timedelta(seconds=60))
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
out = {}
for half in (True, False):
    model = network()
    # Buckets of a layer each.
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

class SumOfGradients(torch.autograd.Function):
    # A collective within backward, as batch normalization has it.

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient

# Rank 0 sends its first bucket when backward is over: a parameter of it has no gradient there.
model, extra = deep_network(), torch.nn.Parameter(torch.ones(8))
exchange = Exchange([[*model.parameters(), extra]], size, bucket_bytes=64, half=True, group=gradient_group)
with exchange.last_backward():
    hidden = model[1:](SumOfGradients.apply(model[0](torch.ones(1, 8))))
    (hidden if rank == 0 else hidden * extra).sum().backward()
out["sum in backward"] = extra.grad
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


def deep_network():
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(5)))


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


def test_a_process_that_lacks_a_gradient_holds_up_no_sum_within_backward(sums):
    model = deep_network()
    expected = model(torch.ones(1, 8))[0] * 2 / 3
    torch.testing.assert_close(sums["sum in backward"], expected, rtol=1e-2, atol=1e-2)


# --- without processes --------------------------------------------------------------------------------------


class Processes:
    """Stand-ins for the two collectives: the sums of all ranks run here, one after the other."""

    def __init__(self, monkeypatch, size):
        self.size, self.sent, self.pieces = size, {}, {}
        self.calls: list[tuple[str, int]] = []
        monkeypatch.setattr(torch.distributed, "all_to_all_single", self.all_to_all)
        monkeypatch.setattr(torch.distributed, "all_gather_into_tensor", self.all_gather)

    def sums(self, counts):
        return [HalfSum(counts, self.size, rank, rank, deque()) for rank in range(self.size)]

    def all_to_all(self, received, sent, group, async_op):
        self.calls.append(("all to all", group))
        self.sent[group] = sent

        def arrive():
            pieces = [self.sent[rank].chunk(self.size)[group] for rank in range(self.size)]
            received.copy_(torch.cat(pieces))

        return Work(arrive)

    def all_gather(self, sums, piece, group, async_op):
        self.calls.append(("all gather", group))
        self.pieces[group] = piece
        return Work(lambda: sums.copy_(torch.cat([self.pieces[rank] for rank in range(self.size)])))

    def add(self, sums, values):
        """The sum of the buckets, as each rank has it."""
        buckets = [torch.tensor(bucket) for bucket in values]
        for half, bucket in zip(sums, buckets, strict=True):
            half(bucket)
        for half in sums:
            half.unsent.popleft().send_sum()
        for half in sums:
            half.wait()
        for bucket in buckets[1:]:
            torch.testing.assert_close(bucket, buckets[0], rtol=0, atol=0, equal_nan=True)
        return buckets[0].tolist()


class Work:
    def __init__(self, wait):
        self.wait = wait


@pytest.fixture
def processes(monkeypatch):
    return lambda size: Processes(monkeypatch, size)


def test_values_that_are_not_finite_arrive_and_are_gone_in_the_next_update(processes):
    three = processes(3)
    sums = three.sums(counts=0)
    largest = torch.finfo(torch.float32).max  # rounded up, it is infinite
    bad = [[float("nan"), float("inf"), 1, largest], [0.0, 1, -float("inf"), 0], [0.0] * 4]
    nan, *infinite = three.add(sums, bad)
    assert nan != nan and infinite == [float("inf"), -float("inf"), float("inf")]
    assert three.add(sums, [[1.0, 2, 3, 4]] * 3) == [3, 6, 9, 12]


@pytest.mark.parametrize("numel", [1, 2, 4, 5, 7])
def test_buckets_of_any_size_are_summed(processes, numel):
    """Also ones of fewer elements than there are processes."""
    four = processes(4)
    values = [[float(rank + place) for place in range(numel)] for rank in range(4)]
    assert four.add(four.sums(counts=0), values) == [6.0 + 4 * place for place in range(numel)]


@pytest.mark.parametrize("gradients", [0, 1, 3])
def test_counts_that_are_rounded_leave_nothing_for_the_next_update(processes, gradients):
    """Wherever the pieces end; 257 is the first count that bfloat16 rounds."""
    two = processes(2)
    sums = two.sums(counts=5)
    third = [1 / 3] * gradients
    counted = two.add(sums, [[*third, 257.0, *[256] * 4], [*third, 0.0, *[1] * 4]])
    assert counted[gradients:] == [256] * 5
    assert two.add(sums, [[*third, *[0.0] * 5]] * 2)[gradients:] == [0] * 5


def test_what_rounding_takes_is_added_in_the_next_update(processes):
    two = processes(2)
    sums = two.sums(counts=0)
    # The processes round 257 to 256, and can send 258 the second time.
    assert two.add(sums, [[257.0]] * 2) == [512]
    assert two.add(sums, [[257.0]] * 2) == [516]
    # So with the sum, where they can send their parts of it.
    assert two.add(sums, [[256.0], [1.0]]) == [256]
    assert two.add(sums, [[256.0], [1.0]]) == [258]


def test_sums_are_sent_after_all_buckets_are_sent(processes):
    one = processes(1)
    unsent = deque()
    sums = [HalfSum(0, 1, 0, 0, unsent) for _ in range(5)]
    for half in sums:
        half(torch.ones(3))
    assert one.calls == [("all to all", 0)] * 5
    sums[0].wait()
    assert one.calls[5:] == [("all gather", 0)] * 5


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
