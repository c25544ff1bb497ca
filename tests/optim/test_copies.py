"""Copies of networks, averages and optimizers refer to each other, as the originals do."""

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

all_copies = pytest.mark.parametrize("copy_of", COPIES.values(), ids=COPIES)
all_optimizers = pytest.mark.parametrize("kind", [RMSprop, Adam, AdamW])


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


def tensors_of(*objects):
    """All tensors, none of which copies may share with their originals."""
    for part in objects:
        if isinstance(part, nn.Module):
            yield from part.state_dict().values()
        elif isinstance(part, EMA):
            yield part.updates
            yield from tensors_of(part.model, part.average)
        else:
            for parameter in itertools.chain.from_iterable(group["params"] for group in part.param_groups):
                yield parameter
                yield from part.state[parameter].values()


def same_objects(ours, theirs):
    return [id(each) for each in ours] == [id(each) for each in theirs]


def assert_apart(originals, copies):
    shared = {t.data_ptr() for t in tensors_of(*originals)} & {t.data_ptr() for t in tensors_of(*copies)}
    assert not shared


@all_copies
@all_optimizers
def test_network_average_and_optimizer_copied_together(kind, copy_of):
    """Copied after training, when plans and pairs by id exist; then both train alike and independently."""
    model = network()
    ema = EMA(model, 0.9)
    optimizer = kind(model.parameters(), 0.01, ema=ema, grad_clip_norm=1.0, statistics=True)
    for seed in range(3):
        step(model, optimizer, seed)
    model_copy, ema_copy, optimizer_copy = copy_of((model, ema, optimizer))
    assert optimizer_copy.ema is ema_copy and ema_copy.model is model_copy
    assert_apart((model, ema, optimizer), (model_copy, ema_copy, optimizer_copy))
    before, average_before = weights(model), weights(ema.average)
    for seed in range(3, 6):
        step(model_copy, optimizer_copy, seed)
    assert_same(weights(model), before, 0)
    assert_same(weights(ema.average), average_before, 0)
    assert (ema.num_updates, ema_copy.num_updates) == (3, 6)
    for seed in range(3, 6):
        step(model, optimizer, seed)
    assert_same(weights(model_copy), weights(model), 0)
    assert_same(weights(ema_copy.average), weights(ema.average), 0)
    assert optimizer_copy.statistics.weight_norm == optimizer.statistics.weight_norm


@all_copies
def test_network_and_average(copy_of):
    model = network()
    ema = EMA(model, 0.5, warmup=False)
    ema.update()
    model_copy, ema_copy = copy_of((model, ema))
    assert ema_copy.model is model_copy
    assert_apart((model, ema), (model_copy, ema_copy))
    start, average_before = weights(ema_copy.average), weights(ema.average)
    with torch.no_grad():
        for parameter in model_copy.parameters():
            parameter.add_(1)
    model_copy[1].running_mean.fill_(7.0)
    ema_copy.update()
    torch.testing.assert_close(ema_copy.average[0].weight, start[0] + 0.5)
    assert ema_copy.average[1].running_mean.tolist() == [7.0] * 4
    assert_same(weights(ema.average), average_before, 0)


@all_copies
@all_optimizers
def test_network_and_optimizer(kind, copy_of):
    model = network()
    optimizer = kind(model.parameters(), 0.01)
    step(model, optimizer, 0)
    model_copy, optimizer_copy = copy_of((model, optimizer))
    assert same_objects(optimizer_copy.param_groups[0]["params"], model_copy.parameters())
    before = weights(model)
    step(model_copy, optimizer_copy, 1)
    assert_same(weights(model), before, 0)
    step(model, optimizer, 1)
    assert_same(weights(model_copy), weights(model), 0)


@all_copies
def test_the_copy_of_an_average_has_a_copy_of_the_model(copy_of):
    model = network()
    ema = EMA(model, 0.0, warmup=False)
    ema.update()
    other = copy_of(ema)
    assert_apart((ema,), (other,))
    with torch.no_grad():
        other.model[0].weight.fill_(3.0)
    other.update()
    assert (other.average[0].weight == 3).all() and not (ema.average[0].weight == 3).any()
    with torch.no_grad():
        model[0].weight.fill_(5.0)
    other.update()
    assert (other.average[0].weight == 3).all()


@all_copies
@all_optimizers
def test_the_copy_of_an_optimizer_has_copies_of_parameters_and_average(kind, copy_of):
    model = network()
    optimizer = kind(model.parameters(), 0.01, ema=EMA(model, 0.9))
    step(model, optimizer, 0)
    other = copy_of(optimizer)
    model_copy = other.ema.model
    assert_apart((optimizer, optimizer.ema), (other, other.ema))
    assert same_objects(other.param_groups[0]["params"], model_copy.parameters())
    before = weights(model)
    step(model_copy, other, 1)
    assert_same(weights(model), before, 0)
    step(model, optimizer, 1)
    assert_same(weights(model_copy), weights(model), 0)
    assert_same(weights(other.ema.average), weights(optimizer.ema.average), 0)


class Trainer(nn.Module):
    """A module that has its own average and optimizer as attributes, as those of some trainers."""

    def __init__(self):
        super().__init__()
        self.net = network()
        self.ema = EMA(self, 0.5, warmup=False)
        self.optimizer = Adam(self.parameters(), 0.01, ema=self.ema)

    def forward(self, x):
        return self.net(x)


@all_copies
def test_a_module_that_has_its_own_average_and_optimizer(copy_of):
    model = Trainer()
    step(model, model.optimizer, 0)
    other = copy_of(model)
    assert other.ema.model is other and other.optimizer.ema is other.ema
    before = weights(model)
    step(other, other.optimizer, 1)
    assert_same(weights(model), before, 0)
    step(model, model.optimizer, 1)
    assert_same(weights(other), weights(model), 0)
    assert_same(weights(other.ema.average), weights(model.ema.average), 0)


@all_copies
def test_networks_of_several_kinds_in_one_average(copy_of):
    networks = nn.ModuleDict({"a": network(), "b": nn.DataParallel(network())})
    ema = EMA(networks, 0.5, warmup=False)
    ema.update()
    networks_copy, ema_copy = copy_of((networks, ema))
    with torch.no_grad():
        networks_copy["b"].module[0].weight.fill_(2.0)
    start = ema_copy.average["b"][0].weight.clone()
    ema_copy.update()
    torch.testing.assert_close(ema_copy.average["b"][0].weight, start.lerp(torch.full_like(start, 2.0), 0.5))


def test_a_shallow_copy_of_an_average_follows_the_same_model():
    model = network()
    other = copy.copy(EMA(model, 0.0, warmup=False))
    with torch.no_grad():
        model[0].weight.fill_(4.0)
    other.update()
    assert other.model is model and (other.average[0].weight == 4).all()


@all_copies
def test_copies_of_networks_are_averaged_by_update_ema(copy_of):
    model, average = copy_of((network(), network().requires_grad_(False)))
    update_ema(model, average, 0.0)
    assert_same(weights(average), weights(model), 0)


@all_optimizers
def test_states_are_restored_from_files_that_hold_only_tensors(kind):
    """With weights_only=True, the default of torch.load."""
    model = network()
    ema = EMA(model, 0.9)
    optimizer = kind(model.parameters(), 0.01, ema=ema)
    step(model, optimizer, 0)
    file = io.BytesIO()
    torch.save([model.state_dict(), ema.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    other = network()
    ema_copy = EMA(other, 0.9)
    optimizer_copy = kind(other.parameters(), 0.5, ema=ema_copy)
    for part, state in zip((other, ema_copy, optimizer_copy), states, strict=True):
        part.load_state_dict(state)
    for trained_model, trained_optimizer in ((model, optimizer), (other, optimizer_copy)):
        step(trained_model, trained_optimizer, 1)
    assert_same(weights(other), weights(model), 0)
    assert_same(weights(ema_copy.average), weights(ema.average), 0)
