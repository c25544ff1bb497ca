"""Trainers in which only the line `torch.optim.Adam = fastgan.optim.Adam`, or the like, was added."""

from __future__ import annotations

import copy
import inspect
import sys
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

import fastgan.optim
from tests.copies import COPIES
from tests.optim.steps import PAIRS, assert_same, parameters, train

TORCHS = {name: pair[1] for name, pair in PAIRS.items()}


@pytest.fixture
def patched(monkeypatch):
    """torch.optim with this package's classes, also where torch defines its own."""
    for name, kind in TORCHS.items():
        for place in ("torch.optim", kind.__module__):
            monkeypatch.setattr(sys.modules[place], name, getattr(fastgan.optim, name))


def patched_optimizer(name, params, **options):
    """The optimizer that a patched name makes, and torch's own class."""
    return getattr(torch.optim, name)(params, **options), TORCHS[name]


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_a_patched_name_makes_optimizers_that_step_like_torchs(patched, name):
    ours, theirs = parameters(), parameters()
    optimizer, kind = patched_optimizer(name, ours, lr=0.01)
    assert type(optimizer) is getattr(fastgan.optim, name) and isinstance(optimizer, kind)
    train(ours, optimizer, 5)
    train(theirs, kind(theirs, lr=0.01), 5)
    assert_same(ours, theirs, 1e-6)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_each_is_an_instance_of_torchs_class(name):
    ours, theirs = PAIRS[name]
    optimizer = ours(parameters())
    assert issubclass(ours, theirs) and isinstance(optimizer, theirs)
    assert isinstance(fastgan.optim.AdamW(parameters()), torch.optim.Adam)
    assert not isinstance(fastgan.optim.Adam(parameters()), torch.optim.AdamW)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_signatures_begin_with_torchs(name):
    """Positional arguments are in torch's order, and all of torch's keywords exist."""
    ours, theirs = (inspect.signature(kind).parameters for kind in PAIRS[name])
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    in_order = [[p.name for p in side.values() if p.kind is positional] for side in (ours, theirs)]
    assert in_order[0] == in_order[1]
    assert set(theirs) <= set(ours)
    for parameter in theirs.values():
        if parameter.default is not inspect.Parameter.empty:
            assert ours[parameter.name].default == parameter.default, parameter.name


def test_adamw_has_decoupled_decay_after_loading_a_state_of_adam():
    """Like torch's, although the state says decoupled_weight_decay=False."""
    source, target, expected = parameters(), parameters(), parameters()
    adam = torch.optim.Adam(source, weight_decay=0.5)
    train(source, adam, 2)
    optimizer, torch_optimizer = fastgan.optim.AdamW(target), TORCHS["AdamW"](expected)
    for params, each in ((target, optimizer), (expected, torch_optimizer)):
        each.load_state_dict(copy.deepcopy(adam.state_dict()))
        assert all(group["decoupled_weight_decay"] for group in each.param_groups)
        train(params, each, 3, first=2)
    assert_same(target, expected, 1e-6)
    with pytest.raises(TypeError, match="decoupled_weight_decay"):
        fastgan.optim.AdamW(parameters(), decoupled_weight_decay=False)


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, total_iters=4),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 0.1, 2, cycle_momentum=True),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


def test_all_of_torchs_schedulers_are_tested():
    bases = {"LRScheduler", "SWALR"}
    assert set(lr_scheduler.__all__) - bases == set(SCHEDULERS)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_schedulers_change_a_patched_optimizer_like_torchs(patched, name, scheduler):
    sides = []
    for kind in (getattr(torch.optim, name), TORCHS[name]):
        params = parameters(torch.float64)
        optimizer = kind(params, lr=0.01, **({"momentum": 0.9} if name == "RMSprop" else {}))
        schedule = SCHEDULERS[scheduler](optimizer)
        rates = []
        for step in range(6):
            train(params, optimizer, 1, first=step)
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
            rates.append(optimizer.param_groups[0]["lr"])
        sides.append((params, rates))
    assert sides[0][1] == sides[1][1]
    assert_same(sides[0][0], sides[1][0], 1e-12)


@pytest.mark.parametrize("method", sorted(COPIES))
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_copies_of_a_patched_trainer_train_alike_and_independently(patched, name, method):
    """Network, optimizer and scheduler are copied together: the copy trains the copied network."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer, _ = patched_optimizer(name, network.parameters(), lr=0.01)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(list(network.parameters()), optimizer, 2)
    schedule.step()
    network_copy, optimizer_copy, schedule_copy = COPIES[method]((network, optimizer, schedule))
    assert schedule_copy.optimizer is optimizer_copy and type(optimizer_copy) is type(optimizer)
    before = [p.detach().clone() for p in network.parameters()]
    train(list(network_copy.parameters()), optimizer_copy, 3, first=2)
    with warnings.catch_warnings():
        # Copies of torch's optimizers warn, too: the mark of a scheduler's wrapper is on the original's step.
        warnings.filterwarnings("ignore", message="Seems like `optimizer.step\\(\\)` has been overridden")
        schedule_copy.step()
    assert optimizer_copy.param_groups[0]["lr"] == pytest.approx(0.0025)
    assert_same(list(network.parameters()), before, 0)
    train(list(network.parameters()), optimizer, 3, first=2)
    assert_same(list(network_copy.parameters()), list(network.parameters()), 0)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_a_patched_optimizer_scales_gradients_as_torchs(patched, name):
    sides = []
    for kind in (getattr(torch.optim, name), TORCHS[name]):
        params = parameters(torch.float64)
        optimizer, scaler = kind(params, lr=0.01), torch.amp.GradScaler("cpu", init_scale=4.0)
        for step, factor in enumerate((1.0, float("inf"), 3.0)):
            optimizer.zero_grad()
            scaler.scale(sum((p**2).sum() for p in params) * factor).backward()
            if step == 2:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            scaler.step(optimizer)
            scaler.update()
        sides.append(params)
    assert_same(*sides, 1e-12)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_hooks_groups_and_compiled_steps_of_a_patched_optimizer(patched, name):
    sides = []
    for kind in (getattr(torch.optim, name), TORCHS[name]):
        params = parameters(torch.float64)
        optimizer, calls = kind(params[:2], lr=0.01), []
        optimizer.add_param_group({"params": params[2:], "lr": 0.1})
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        optimizer.register_state_dict_post_hook(lambda _, state: {**state, "mark": 1})
        train(params, optimizer, 3)
        assert calls == ["before", "after"] * 3 and optimizer.state_dict()["mark"] == 1
        sides.append(params)
    assert_same(*sides, 1e-12)
    params = parameters(torch.float64)
    optimizer, kind = patched_optimizer(name, params, lr=0.01)
    step = torch.compile(optimizer.step, backend="eager")
    train(params, type("Compiled", (), {"step": staticmethod(step)}), 3)
    theirs = parameters(torch.float64)
    train(theirs, kind(theirs, lr=0.01), 3)
    assert_same(params, theirs, 1e-12)
