"""Parameter groups on two GPUs, as fake tensors: each launch gets only tensors on its GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan.optim import EMA, Adam, RMSprop, _step, ema

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
DEVICES = ("cuda:0", "cuda:1")


@pytest.fixture
def launches(monkeypatch):
    """Records launches, as (device, whether it counts an update), instead of running them on a GPU."""
    recorded = []

    def launch(algorithm, params, *lists, with_statistics=False, backend=None, **scalars):
        *arrays, options = lists
        device = params[0].device
        for tensor in [*params, *(t for array in arrays for t in array), *scalars.values()]:
            assert tensor is None or tensor.device == device or not tensor.numel()
        recorded.append((str(device), options.counts_update))
        return params[0].new_zeros(3 if with_statistics else 0, dtype=torch.float64)

    for module in (_step, ema):
        monkeypatch.setattr(module, "optimizer_step", launch)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(_step.FusedStep, "_plan", with_steps_on_device(_step.FusedStep._plan))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield recorded


def with_steps_on_device(plan):
    """Creates step counters on their devices: moving a fake scalar of known value needs the real device."""

    def plan_with_steps(self, number, group, params):
        self._init_states(group)
        for parameter in params:
            self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
        return plan(self, number, group, params)

    return plan_with_steps


def two_layers(devices=DEVICES):
    model = nn.ModuleList(nn.Linear(3, 2, device=device) for device in devices)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


@pytest.mark.parametrize("kind", [Adam, RMSprop])
@pytest.mark.parametrize("devices", [DEVICES, DEVICES[::-1]])
def test_each_group_gets_scalars_on_its_own_device(launches, kind, devices):
    model = two_layers(devices)
    average = EMA(model)
    groups = [{"params": list(layer.parameters())} for layer in model]
    optimizer = kind(groups, lr=0.1, grad_clip_norm=1.0, ema=average, statistics=True)
    # With the shapes that torch.amp.GradScaler uses.
    optimizer.grad_scale, optimizer.found_inf = (torch.ones(1, device=DEVICES[0]) for _ in range(2))
    optimizer.step()
    # The update count is on one GPU; the launch on the other reads a copy.
    assert launches == [(device, False) for device in devices]
    assert {str(tensor.device) for tensor in optimizer.statistics} == {devices[0]}


def test_a_step_of_the_average_alone_on_each_device(launches):
    average = EMA(two_layers())
    average.update()
    assert launches == [(device, False) for device in DEVICES]


def test_on_one_device_the_launch_counts_the_update(launches):
    model = two_layers(DEVICES[1:] * 2)
    EMA(model).update()
    optimizer = Adam([{"params": list(layer.parameters())} for layer in model], ema=EMA(model))
    optimizer.step()
    assert launches == [("cuda:1", True), ("cuda:1", False), ("cuda:1", True)]


@pytest.mark.parametrize("found_inf, expected", [(None, 2), (0.0, 2), (1.0, 1)])
def test_an_update_is_counted_unless_a_gradient_was_infinite(found_inf, expected):
    updates = torch.tensor(1)
    ema.count_update(updates, None if found_inf is None else torch.tensor([found_inf]))
    assert updates.item() == expected
