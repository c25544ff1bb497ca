"""The optimizers on a GPU: against torch's, in one launch, in CUDA graphs, under a scaler."""

import copy

import pytest
import torch

from fastgan.optim import EMA, Adam, RMSprop
from tests.optim.steps import PAIRS, assert_same, parameters, train

pytestmark = pytest.mark.gpu


def on_gpu(dtype=torch.float32, shapes=((64, 64, 3, 3), (1000,), (7, 3), ())):
    return [torch.nn.Parameter(p.detach().cuda()) for p in parameters(dtype, list(shapes))]


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_two_hundred_steps_are_those_of_torch(name):
    ours, theirs = on_gpu(), on_gpu()
    for kind, params in zip(PAIRS[name], (ours, theirs), strict=True):
        train(params, kind(params, lr=1e-3, weight_decay=0.05), 200)
    assert_same(ours, theirs, 2e-6)


def test_states_are_loaded_on_other_devices_and_by_torch():
    on_cpu = parameters()
    on_cuda, of_torch = ([torch.nn.Parameter(p.detach().cuda()) for p in on_cpu] for _ in range(2))
    optimizer = Adam(on_cpu, 0.01)
    train(on_cpu, optimizer, 5)
    for params, kind in ((on_cuda, Adam), (of_torch, torch.optim.Adam)):
        for a, b in zip(params, on_cpu, strict=True):
            a.data.copy_(b.data)
        other = kind(params)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(params, other, 5, first=5)
    train(on_cpu, optimizer, 5, first=5)
    for params in (on_cuda, of_torch):
        assert_same([p.cpu() for p in params], on_cpu, 2e-6)


def kernels_of(step):
    step()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    # Labelled ranges of the host also appear as events of the device, under the same name.
    ranges = {event.name for event in profile.events() if event.device_type != cuda}
    on_device = [event.name for event in profile.events() if event.device_type == cuda]
    return [name for name in on_device if name not in ranges and not name.startswith("Mem")]


@pytest.mark.parametrize("tensors", [3, 300])
def test_a_step_is_one_launch(tensors):
    for kind, options in ((RMSprop, {"grad_clip_value": 0.25, "weight_clip": 0.01}), (Adam, {})):
        model = torch.nn.ParameterList(on_gpu(shapes=[(50,)] * tensors))
        optimizer = kind(model, ema=EMA(model), **options)
        for parameter in model:
            parameter.grad = torch.ones_like(parameter)
        kernels = kernels_of(optimizer.step)
        assert len(kernels) == 1 and "step_kernel" in kernels[0], kernels


def test_a_cuda_graph_replays_steps():
    """The learning rate changes, and the step counter and the warm-up advance."""
    ours, theirs = on_gpu(), on_gpu()
    model, other = torch.nn.ParameterList(ours), torch.nn.ParameterList(theirs)
    lr = torch.tensor(0.01, device="cuda")
    captured = Adam(model, lr, ema=EMA(model, 0.9), grad_clip_norm=1.0, statistics=True)
    plain = Adam(other, 0.01, ema=EMA(other, 0.9), grad_clip_norm=1.0, statistics=True)
    for params in (ours, theirs):
        for parameter in params:
            parameter.grad = torch.ones_like(parameter)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        captured.step()
    torch.cuda.current_stream().wait_stream(stream)
    plain.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for rate in (0.01, 0.03, 0.1):
        lr.fill_(rate)
        graph.replay()
        plain.param_groups[0]["lr"] = rate
        plain.step()
    assert_same(ours, theirs, 1e-6)
    assert_same(list(captured.ema.average), list(plain.ema.average), 1e-6)
    assert captured.ema.num_updates == plain.ema.num_updates == 4
    for actual, expected in zip(captured.statistics, plain.statistics, strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_first_step_is_not_captured():
    model = torch.nn.ParameterList(on_gpu())
    optimizer = Adam(model)
    for parameter in model:
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(RuntimeError, match="step once"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()


def test_a_scaler_skips_infinite_gradients_without_waiting():
    model = torch.nn.ParameterList(on_gpu())
    optimizer = Adam(model, ema=EMA(model))
    scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    before = [p.detach().clone() for p in model]
    for value, applies in ((float("inf"), False), (2.0, True)):
        optimizer.zero_grad()
        scaler.scale(sum((p * value).sum() for p in model)).backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            scaler.step(optimizer)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        scaler.update()
        assert all(torch.equal(p, b) != applies for p, b in zip(model, before, strict=True))
    assert optimizer.ema.num_updates == 1
    assert all(state["step"].item() == 1 for state in optimizer.state.values())


def test_same_bits_each_time():
    results = []
    for _ in range(2):
        params = on_gpu(shapes=[(700001,), (3,)])
        optimizer = Adam(params, 0.01, grad_clip_norm=1.0, statistics=True)
        train(params, optimizer, 3)
        results.append([*params, *optimizer.statistics])
    assert_same(*results, 0)
