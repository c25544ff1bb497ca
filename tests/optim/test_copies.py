"""Copies of networks, averages and optimizers belong to each other as the originals do, and are used."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from torch import nn

from fastgan.optim import EMA, Adam, AdamW, RMSprop, update_ema
from tests.copies import COPIES
from tests.optim.steps import assert_same

every_way = pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
every_kind = pytest.mark.parametrize("kind", [RMSprop, Adam, AdamW])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(5, 3, generator=generator, dtype=torch.float64)).square().mean().backward()
    optimizer.step()


def weights(model):
    return [tensor.detach().clone() for tensor in model.state_dict().values() if tensor.is_floating_point()]


def tensors_of(*things):
    """All that copies must not share with their originals."""
    for thing in things:
        if isinstance(thing, nn.Module):
            yield from thing.state_dict().values()
        elif isinstance(thing, EMA):
            yield thing.updates
            yield from tensors_of(thing.model, thing.average)
        else:
            for parameter in itertools.chain.from_iterable(group["params"] for group in thing.param_groups):
                yield parameter
                yield from thing.state[parameter].values()


def same_objects(ours, theirs):
    return [id(thing) for thing in ours] == [id(thing) for thing in theirs]


def assert_apart(originals, copies):
    shared = {t.data_ptr() for t in tensors_of(*originals)} & {t.data_ptr() for t in tensors_of(*copies)}
    assert not shared


@every_way
@every_kind
def test_network_average_and_optimizer_in_one(kind, way):
    """Trained before, so that plans and pairs by id exist; both sides then do the same, each to its own."""
    model = network()
    ema = EMA(model, 0.9)
    optimizer = kind(model.parameters(), 0.01, ema=ema, grad_clip_norm=1.0, statistics=True)
    for seed in range(3):
        step(model, optimizer, seed)
    its_model, its_ema, its_optimizer = way((model, ema, optimizer))
    assert its_optimizer.ema is its_ema and its_ema.model is its_model
    assert_apart((model, ema, optimizer), (its_model, its_ema, its_optimizer))
    before, average_before = weights(model), weights(ema.average)
    for seed in range(3, 6):
        step(its_model, its_optimizer, seed)
    assert_same(weights(model), before, 0)
    assert_same(weights(ema.average), average_before, 0)
    assert (ema.num_updates, its_ema.num_updates) == (3, 6)
    for seed in range(3, 6):
        step(model, optimizer, seed)
    assert_same(weights(its_model), weights(model), 0)
    assert_same(weights(its_ema.average), weights(ema.average), 0)
    assert its_optimizer.statistics.weight_norm == optimizer.statistics.weight_norm


@every_way
def test_network_and_average(way):
    model = network()
    ema = EMA(model, 0.5, warmup=False)
    ema.update()
    its_model, its_ema = way((model, ema))
    assert its_ema.model is its_model
    assert_apart((model, ema), (its_model, its_ema))
    start, average_before = weights(its_ema.average), weights(ema.average)
    with torch.no_grad():
        for parameter in its_model.parameters():
            parameter.add_(1)
    its_model[1].running_mean.fill_(7.0)
    its_ema.update()
    torch.testing.assert_close(its_ema.average[0].weight, start[0] + 0.5)
    assert its_ema.average[1].running_mean.tolist() == [7.0] * 4
    assert_same(weights(ema.average), average_before, 0)


@every_way
@every_kind
def test_network_and_optimizer(kind, way):
    model = network()
    optimizer = kind(model.parameters(), 0.01)
    step(model, optimizer, 0)
    its_model, its_optimizer = way((model, optimizer))
    assert same_objects(its_optimizer.param_groups[0]["params"], its_model.parameters())
    before = weights(model)
    step(its_model, its_optimizer, 1)
    assert_same(weights(model), before, 0)
    step(model, optimizer, 1)
    assert_same(weights(its_model), weights(model), 0)


@every_way
def test_an_average_copied_alone_takes_its_model_along(way):
    model = network()
    ema = EMA(model, 0.0, warmup=False)
    ema.update()
    other = way(ema)
    assert_apart((ema,), (other,))
    with torch.no_grad():
        other.model[0].weight.fill_(3.0)
    other.update()
    assert (other.average[0].weight == 3).all() and not (ema.average[0].weight == 3).any()
    with torch.no_grad():
        model[0].weight.fill_(5.0)
    other.update()
    assert (other.average[0].weight == 3).all()


@every_way
@every_kind
def test_an_optimizer_copied_alone_takes_parameters_and_average_along(kind, way):
    model = network()
    optimizer = kind(model.parameters(), 0.01, ema=EMA(model, 0.9))
    step(model, optimizer, 0)
    other = way(optimizer)
    its_model = other.ema.model
    assert_apart((optimizer, optimizer.ema), (other, other.ema))
    assert same_objects(other.param_groups[0]["params"], its_model.parameters())
    before = weights(model)
    step(its_model, other, 1)
    assert_same(weights(model), before, 0)
    step(model, optimizer, 1)
    assert_same(weights(its_model), weights(model), 0)
    assert_same(weights(other.ema.average), weights(optimizer.ema.average), 0)


class Holder(nn.Module):
    """As modules of trainers are: it holds its average and its optimizer."""

    def __init__(self):
        super().__init__()
        self.net = network()
        self.ema = EMA(self, 0.5, warmup=False)
        self.optimizer = Adam(self.parameters(), 0.01, ema=self.ema)

    def forward(self, x):
        return self.net(x)


@every_way
def test_a_module_that_holds_its_own_average_and_optimizer(way):
    model = Holder()
    step(model, model.optimizer, 0)
    other = way(model)
    assert other.ema.model is other and other.optimizer.ema is other.ema
    before = weights(model)
    step(other, other.optimizer, 1)
    assert_same(weights(model), before, 0)
    step(model, model.optimizer, 1)
    assert_same(weights(other), weights(model), 0)
    assert_same(weights(other.ema.average), weights(model.ema.average), 0)


@every_way
def test_networks_of_several_kinds_in_one_average(way):
    networks = nn.ModuleDict({"a": network(), "b": nn.DataParallel(network())})
    ema = EMA(networks, 0.5, warmup=False)
    ema.update()
    its_networks, its_ema = way((networks, ema))
    with torch.no_grad():
        its_networks["b"].module[0].weight.fill_(2.0)
    start = its_ema.average["b"][0].weight.clone()
    its_ema.update()
    torch.testing.assert_close(its_ema.average["b"][0].weight, start.lerp(torch.full_like(start, 2.0), 0.5))


def test_a_shallow_copy_of_an_average_follows_the_same_model():
    model = network()
    other = copy.copy(EMA(model, 0.0, warmup=False))
    with torch.no_grad():
        model[0].weight.fill_(4.0)
    other.update()
    assert other.model is model and (other.average[0].weight == 4).all()


@every_way
def test_copies_of_networks_are_averaged_by_update_ema(way):
    model, average = way((network(), network().requires_grad_(False)))
    update_ema(model, average, 0.0)
    assert_same(weights(average), weights(model), 0)


@every_kind
def test_states_of_copies_are_restored_from_files_of_tensors_alone(kind):
    """weights_only=True, as torch.load has it by default."""
    model = network()
    ema = EMA(model, 0.9)
    optimizer = kind(model.parameters(), 0.01, ema=ema)
    step(model, optimizer, 0)
    file = io.BytesIO()
    torch.save([model.state_dict(), ema.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    other = network()
    its_ema = EMA(other, 0.9)
    its_optimizer = kind(other.parameters(), 0.5, ema=its_ema)
    for thing, state in zip((other, its_ema, its_optimizer), states, strict=True):
        thing.load_state_dict(state)
    for side, stepper in ((model, optimizer), (other, its_optimizer)):
        step(side, stepper, 1)
    assert_same(weights(other), weights(model), 0)
    assert_same(weights(its_ema.average), weights(ema.average), 0)
