"""Gradients are averaged while backward runs: exactly, in a fixed order, whatever the passes of an update."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastgan.training.processes.exchange import Exchange, OrderOfUse
from tests.processes import run_script


class Recorded:
    """A sum over the processes that records when it was started, and over which values."""

    def __init__(self):
        self.events = []

    def __call__(self, bucket):
        self.events.append(("start", bucket.numel()))
        return self

    def wait(self):
        self.events.append("wait")


def three_layers():
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))


def exchange_of(network, recorded, bucket_bytes=1, world_size=1):
    """One bucket per parameter, unless told otherwise."""
    return Exchange([network.parameters()], world_size, recorded, bucket_bytes=bucket_bytes)


def test_exchanges_start_while_backward_runs():
    network, recorded = three_layers(), Recorded()
    exchange = exchange_of(network, recorded)
    hidden = network[0](torch.randn(3, 4))
    hidden.register_hook(lambda grad: recorded.events.append("first layer"))
    with exchange.last_backward():
        network[1:](hidden).sum().backward()
        recorded.events.append("end")
    assert [event if isinstance(event, str) else event[0] for event in recorded.events] == [
        *["start"] * 4, "first layer", *["start"] * 2, "end", *["wait"] * 6
    ]  # fmt: skip


def test_the_order_is_that_of_the_parameters_not_of_arrival():
    """The network's use of its layers is not in the order of its parameters."""
    network, recorded = three_layers(), Recorded()
    exchange = exchange_of(network, recorded)
    x = torch.randn(3, 4)
    sizes = [p.numel() for p in reversed(list(network.parameters()))]
    with exchange.last_backward():
        (network[1](network[0](x)).sum() + network[2](torch.randn(3, 8)).sum()).backward()
    started = [event[1] for event in recorded.events if event != "wait"]
    assert [-(-size // 16) * 16 + 1 for size in sizes] == started
    # A parameter without a gradient holds up those after it until the end of backward, and only until then.
    network.zero_grad()
    recorded.events.clear()
    with exchange.last_backward():
        network[1](network[0](x)).sum().backward()
        assert recorded.events == []
    assert [event[1] for event in recorded.events if event != "wait"] == started


class UNet(nn.Module):
    """Uses what it has registered in another order, and one layer never."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 8)])
        self.unused, self.embedding = nn.Linear(3, 3), nn.Embedding(5, 4)

    def forward(self, number):
        return self.decoder[0](self.decoder[1](F.pad(self.embedding(number), (0, 4))))


def test_the_order_is_that_of_use_and_unused_parameters_hold_up_nothing():
    network, other = UNet(), nn.Linear(5, 5)
    order, recorded = OrderOfUse([network, other]), Recorded()
    other(torch.randn(2, 5))
    network(torch.tensor([1]))
    groups = [list(other.parameters()), list(network.parameters())]
    exchange = Exchange(groups, 1, recorded, bucket_bytes=1, order=order.of(groups))
    assert all(len(module._forward_pre_hooks) == (module is network.unused) for module in network.modules())
    order.end()
    assert not network.unused._forward_pre_hooks
    with exchange.last_backward():
        (network(torch.tensor([1])).sum() + other(torch.randn(2, 5)).sum()).backward()
        started = [size for _, size in recorded.events]
    first, second = network.decoder[1], network.decoder[0]
    expected = [second.bias, second.weight, first.bias, first.weight, network.embedding.weight]
    assert started == [-(-p.numel() // 16) * 16 + 1 for p in expected], "the unused ones wait"
    assert len(recorded.events) - len(recorded.events[: len(started)]) == 2 + 2 + 9


def test_gradients_are_views_of_few_buckets_with_the_layout_of_the_parameters():
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 3)).to(memory_format=torch.channels_last)
    exchange = exchange_of(network, Recorded(), bucket_bytes=None)
    for _ in range(2):
        network.zero_grad()
        with exchange.last_backward():
            network(torch.randn(1, 3, 8, 8)).sum().backward()
    storages = {p.grad.untyped_storage().data_ptr() for p in network.parameters()}
    assert len(storages) == 1
    assert all(p.grad.stride() == p.stride() and p.grad.data_ptr() % 64 == 0 for p in network.parameters())


def test_gradients_are_divided_by_the_number_of_processes():
    network, recorded = three_layers(), Recorded()
    exchange = exchange_of(network, recorded, world_size=4)
    loss = network(torch.ones(1, 4)).sum()
    expected = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    with exchange.last_backward():
        loss.backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 4)


@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph")
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
def test_earlier_backward_passes_count(set_to_none, create_graph):
    """A penalty in its own pass, even if its gradients have a graph; a pass that reaches one layer only."""
    network = three_layers()
    exchange = exchange_of(network, Recorded(), bucket_bytes=None, world_size=2)
    for _ in range(3):
        x = torch.randn(3, 4, requires_grad=True)
        gradient = torch.autograd.grad(network(x).pow(3).sum(), x, create_graph=True)[0]
        penalty, half, loss = gradient.square().sum(), network[0](x).sum(), F.relu(network(x)).sum()
        expected = torch.autograd.grad(penalty + half + loss, list(network.parameters()), retain_graph=True)
        network.zero_grad(set_to_none)
        penalty.backward(create_graph=create_graph, retain_graph=True)
        half.backward(retain_graph=True)
        with exchange.last_backward():
            loss.backward()
        for parameter, value in zip(network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, value / 2, rtol=1e-5, atol=1e-6)
            assert not parameter.grad.requires_grad


def test_an_update_of_another_network_leaves_the_exchange_alone():
    """G's loss goes through D, which is frozen in one step and not in the next."""
    generator, discriminator = nn.Linear(2, 4), nn.Linear(4, 1)
    of_g, of_d = Recorded(), Recorded()
    g, d = exchange_of(generator, of_g), exchange_of(discriminator, of_d)
    for trained in (False, True):
        discriminator.requires_grad_(trained)
        with g.last_backward():
            discriminator(generator(torch.randn(3, 2))).sum().backward()
    assert len(of_g.events) == 8 and of_d.events == []
    discriminator.zero_grad()
    with d.last_backward():
        discriminator(generator(torch.randn(3, 2)).detach()).sum().backward()
    assert len(of_d.events) == 4


def test_frozen_groups_are_not_exchanged():
    first, second, recorded = nn.Linear(2, 4), nn.Linear(4, 1).requires_grad_(False), Recorded()
    exchange = Exchange([first.parameters(), second.parameters()], 1, recorded)
    for trained, count in ((False, 1), (True, 2), (False, 1)):
        second.requires_grad_(trained)
        recorded.events.clear()
        with exchange.last_backward():
            second(first(torch.randn(3, 2))).sum().backward()
        assert recorded.events.count("wait") == count
        assert (second.weight.grad is not None) == trained
        first.zero_grad(), second.zero_grad()
    second.weight.grad = torch.ones_like(second.weight)
    message = r"frozen parameter of shape \(1, 4\) has a gradient"
    with pytest.raises(RuntimeError, match=message), exchange.last_backward():
        second(first(torch.randn(3, 2))).sum().backward()


def test_two_passes_in_the_last_are_refused_and_the_next_update_is_right():
    network = three_layers()
    exchange = exchange_of(network, Recorded(), bucket_bytes=None)
    with pytest.raises(RuntimeError, match="twice within last_backward"), exchange.last_backward():
        for _ in range(2):
            network(torch.ones(1, 4)).sum().backward()
    network.zero_grad()
    with exchange.last_backward():
        network(torch.ones(1, 4)).sum().backward()
    torch.testing.assert_close(network[2].bias.grad, torch.ones(2))


def test_half_precision_is_summed_in_float32():
    network = three_layers().bfloat16()
    kinds = []

    class Kinds(Recorded):
        def __call__(self, bucket):
            kinds.append(bucket.dtype)
            return super().__call__(bucket)

    exchange = exchange_of(network, Kinds(), bucket_bytes=None)
    with exchange.last_backward():
        network(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
    assert set(kinds) == {torch.float32}
    assert network[2].bias.grad.tolist() == [1, 1] and network[2].bias.grad.dtype == torch.bfloat16


def test_parameters_that_are_replaced_get_an_exchange_of_their_own():
    network = three_layers()
    exchange = exchange_of(network, Recorded())
    assert exchange.serves([network.parameters()])
    network[0] = nn.Linear(4, 8)
    assert not exchange.serves([network.parameters()])
    exchange.end()
    network(torch.ones(1, 4)).sum().backward()
    exchange = exchange_of(network, Recorded())
    del exchange
    network(torch.ones(1, 4)).sum().backward()


# --- processes ----------------------------------------------------------------------------------------------

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F
from fastgan.losses import r1_penalty
from fastgan.optim import Adam
from fastgan.training.batch_norm import BatchNorm2d
from fastgan.training.config import TrainingConfig
from fastgan.training.processes.runtime import Runtime

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), BatchNorm2d(8), nn.Conv2d(8, 1, 3)
        # Used on rank 0 only, on rank 1 only, and nowhere: in one process, on those halves of the batch.
        self.halves = nn.ModuleList(nn.Conv2d(8, 1, 3) for _ in range(3))

    def forward(self, x):
        hidden = F.leaky_relu(self.norm(self.first(x)))
        logits = self.last(hidden).mean((1, 2, 3))
        for index in range(2):
            here = slice(index * 4, index * 4 + 4) if len(x) == 8 else slice(0, 4) if index == rank else None
            if here is not None:
                more = torch.zeros_like(logits)
                more[here] = self.halves[index](hidden[here]).mean((1, 2, 3))
                logits = logits + more
        return logits

def joined(step, *shape):
    return torch.randn(8, *shape, generator=torch.Generator().manual_seed(step))

runtime = Runtime(TrainingConfig(accelerator="cpu", devices=int(os.environ.get("WORLD_SIZE", "1"))))
rank = runtime.rank
with runtime.together():
    torch.manual_seed(0)
    critic, generator = Critic(), nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1))
    d = Adam(critic.parameters(), 1e-3, (0.5, 0.9), eps=1e-3, weight_decay=0.01)
    g = Adam([{"params": generator[0].parameters()}, {"params": generator[1].parameters()}], 1e-3, eps=1e-3)
    for step in range(6):
        real, z = runtime.part(joined(step, 3, 8, 8)), runtime.part(joined(100 + step, 3, 8, 8))
        real.requires_grad_()
        d.zero_grad()
        scores = critic(real)
        penalty = r1_penalty(scores, real)
        loss = F.softplus(-scores).mean() + F.softplus(critic(generator(z).detach())).mean()
        if step % 2:
            penalty.backward(retain_graph=True)
        else:
            loss = loss + penalty
        with runtime.last_backward(d):
            loss.backward()
        d.step()
        generator[1].requires_grad_(step != 3)
        g.zero_grad()
        critic.requires_grad_(step % 3 == 0)
        fake = generator(z)
        fake.square().mean().backward(retain_graph=True)
        with runtime.last_backward(g):
            F.softplus(-critic(fake)).mean().backward()
        g.step()
        critic.requires_grad_(True)
        assert critic.halves[2].weight.grad is None
    values = {**critic.state_dict(), **{f"g{k}": v for k, v in generator.state_dict().items()}}
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in values.values())).hexdigest()
    digests = runtime.gather_objects(digest)
    assert len({*digests}) == 1, "the processes have the same parameters"
    if runtime.is_main:
        Path(sys.argv[1]).write_text(json.dumps([digest, {k: v.tolist() for k, v in values.items()}]))
"""


def test_two_processes_equal_one_and_repeat_to_the_bit(tmp_path):
    run_script(SCRIPT, tmp_path, tmp_path / "one.json")
    for name in ("two", "again"):
        run_script(SCRIPT, tmp_path, tmp_path / f"{name}.json", processes=2)
    (_, one), two, again = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two", "again"))
    assert two[0] == again[0]
    for name, value in one.items():
        torch.testing.assert_close(
            torch.tensor(two[1][name]), torch.tensor(value), rtol=1e-5, atol=1e-5,
            msg=lambda m, n=name: f"{n}: {m}",
        )  # fmt: skip
