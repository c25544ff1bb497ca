"""The optimizers against torch's, with clips and averages against the sequence of torch's calls."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan import ops
from fastgan.optim import EMA, Adam, AdamW, RMSprop, update_ema

PAIRS = {
    "RMSprop": (RMSprop, torch.optim.RMSprop),
    "Adam": (Adam, torch.optim.Adam),
    "AdamW": (AdamW, torch.optim.AdamW),
}
SHAPES = [(5, 7), (1,), (3, 2, 4, 4), (2049,), ()]


def parameters(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    made = [tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor for tensor in made]
    return [torch.nn.Parameter(tensor) for tensor in made]


def train(params, optimizer, steps, *, first=0, before=lambda: None, after=lambda: None):
    """Steps with gradients that depend on the step alone."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in params:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = noise.to(parameter.dtype)
        before()
        optimizer.step()
        after()


def assert_same(ours, theirs, rtol):
    """Relative to the largest of all values: single ones may come to lie anywhere near 0."""
    scale = max(tensor.detach().double().abs().max().item() for tensor in theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=rtol * scale)


def assert_same_state(ours, our_params, theirs, their_params, rtol):
    for name in theirs.state[their_params[0]]:
        sides = ((ours, our_params), (theirs, their_params))
        assert_same(*([optimizer.state[p][name] for p in params] for optimizer, params in sides), rtol)
    assert ours.state[our_params[0]].keys() == theirs.state[their_params[0]].keys()


@st.composite
def cases(draw):
    name = draw(st.sampled_from(sorted(PAIRS)))
    options = {
        "lr": draw(st.sampled_from([1e-3, 3e-2])),
        "eps": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.05])),
        "maximize": draw(st.booleans()),
    }
    if name == "RMSprop":
        options |= {
            "alpha": draw(st.sampled_from([0.9, 0.99])),
            "momentum": draw(st.sampled_from([0.0, 0.5])),
            "centered": draw(st.booleans()),
        }
    else:
        options |= {
            "betas": draw(st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])),
            "amsgrad": draw(st.booleans()),
        }
    return name, options, draw(st.sampled_from([torch.float32, torch.float64]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_two_hundred_steps_are_those_of_torch(case):
    name, options, dtype = case
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizers = [kind(p, **options) for kind, p in zip(PAIRS[name], (ours, theirs), strict=True)]
    for optimizer, params in zip(optimizers, (ours, theirs), strict=True):
        train(params, optimizer, 200)
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    assert_same(ours, theirs, rtol)
    assert_same_state(optimizers[0], ours, optimizers[1], theirs, rtol)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_clips_and_average_are_the_sequence_of_torch(name, backend):
    models = [torch.nn.ParameterList(parameters(torch.float64)) for _ in range(2)]
    (our_model, their_model), (ours, theirs) = models, [list(model) for model in models]
    ema = EMA(our_model, decay=0.9)
    average = copy.deepcopy(their_model)
    optimizer = PAIRS[name][0](
        ours,
        lr=0.01,
        grad_clip_norm=30.0,
        grad_clip_value=0.5,
        weight_clip=(-0.7, 1.2),
        ema=ema,
        statistics=True,
    )
    count, norms = iter(range(100)), []

    def clip_gradients():
        norms.append(torch.nn.utils.clip_grad_norm_(theirs, 30.0))
        torch.nn.utils.clip_grad_value_(theirs, 0.5)

    @torch.no_grad()
    def clip_weights_and_average():
        step = next(count)
        for kept, parameter in zip(average, theirs, strict=True):
            parameter.clamp_(-0.7, 1.2)
            kept.lerp_(parameter, 1 - min(0.9, (1 + step) / (10 + step)))

    with ops.use(backend):
        train(ours, optimizer, 30)
    torch_optimizer = PAIRS[name][1](theirs, lr=0.01)
    train(theirs, torch_optimizer, 30, before=clip_gradients, after=clip_weights_and_average)
    assert_same(ours, theirs, 1e-12)
    assert_same(list(ema.average), list(average), 1e-12)

    weights = torch.cat([p.detach().flatten() for p in theirs])
    at_bound = ((weights == -0.7) | (weights == 1.2)).double().mean()
    assert at_bound > 0
    expected = (norms[-1], weights.norm(), at_bound)
    for said, known in zip(optimizer.statistics, expected, strict=True):
        torch.testing.assert_close(said, known)


def test_groups_have_their_own_clips():
    a, b, c = parameters(torch.float64, [(4,), (4,), (4,)])
    groups = [
        {"params": [a], "weight_clip": 0.01},
        {"params": [b], "grad_clip_norm": 0.1, "lr": 1.0},
        {"params": [c]},
    ]
    before = [p.detach().clone() for p in (b, c)]
    optimizer = Adam(groups, lr=0.1)
    train([a, b, c], optimizer, 1)
    assert a.abs().max() <= 0.01
    # The first step of Adam is lr in the gradient's direction, whatever its length.
    torch.testing.assert_close((b - before[0]).abs(), torch.ones(4).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close((c - before[1]).abs(), torch.full((4,), 0.1).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_state_dicts_go_both_ways(name):
    ours_class, theirs_class = PAIRS[name]
    ours, theirs = parameters(), parameters()
    optimizer, torch_optimizer = ours_class(ours, weight_clip=5.0), theirs_class(theirs)
    train(ours, optimizer, 5)
    train(theirs, torch_optimizer, 5)
    crossed, torch_crossed = parameters(), parameters()
    for source, target in ((theirs, crossed), (ours, torch_crossed)):
        for a, b in zip(source, target, strict=True):
            b.data.copy_(a.data)
    from_torch, to_torch = ours_class(crossed, lr=9.0, weight_clip=5.0), theirs_class(torch_crossed, lr=9.0)
    from_torch.load_state_dict(copy.deepcopy(torch_optimizer.state_dict()))
    to_torch.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert from_torch.param_groups[0]["weight_clip"] == 5.0
    for params, stepper in ((ours, optimizer), (crossed, from_torch), (torch_crossed, to_torch)):
        train(params, stepper, 5, first=5)
        assert_same(params, ours, 1e-6)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_optimizer_and_average_survive_pickling(way):
    model = torch.nn.ParameterList(parameters())
    optimizer = RMSprop(model, 0.01, weight_clip=1.0, ema=EMA(model), statistics=True)
    train(list(model), optimizer, 3)
    other_model, other = way((model, optimizer))
    assert other.ema.model is other_model
    for made, stepper in ((model, optimizer), (other_model, other)):
        train(list(made), stepper, 3, first=3)
    assert_same(list(other_model), list(model), 0)
    assert_same(list(other.ema.average), list(optimizer.ema.average), 0)
    assert other.statistics.weight_norm == optimizer.statistics.weight_norm


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_half_types_are_computed_in_float32(name, dtype):
    """One step from equal states: what float64 gives, rounded once."""
    ours = parameters(dtype)
    exact = [torch.nn.Parameter(p.detach().double()) for p in ours]
    optimizer, wide = PAIRS[name][0](ours, lr=0.01), PAIRS[name][1](exact, lr=0.01)
    train(ours, optimizer, 1)
    for a, b in zip(exact, ours, strict=True):
        a.grad = b.grad.double()
    wide.step()
    for a, b in zip(ours, exact, strict=True):
        ulp = torch.finfo(dtype).eps * b.detach().abs().clamp(min=1e-3)
        assert ((a.detach().double() - b.detach()).abs() <= ulp).all()


def test_a_scaler_leaves_out_what_is_infinite():
    model = torch.nn.ParameterList(parameters())
    optimizer = Adam(model, ema=EMA(model), statistics=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def backward(value):
        optimizer.zero_grad()
        scaler.scale(sum((p * value).sum() for p in model)).backward()
        scaler.step(optimizer)
        scaler.update()

    before = [p.detach().clone() for p in model]
    backward(float("inf"))
    assert_same(list(model), before, 0)
    assert all(not state["step"] for state in optimizer.state.values())
    backward(2.0)
    plain = parameters()
    other = torch.optim.Adam(plain)
    for parameter in plain:
        parameter.grad = torch.full_like(parameter, 2.0)
    other.step()
    assert_same(list(model), plain, 1e-6)
    elements = sum(p.numel() for p in model)
    torch.testing.assert_close(optimizer.statistics.gradient_norm.item(), 2 * elements**0.5)


def test_nan_is_not_hidden():
    a, b = parameters(torch.float32, [(4,), (4,)])
    optimizer = RMSprop([a, b], 0.01, grad_clip_value=0.1, weight_clip=0.5)
    a.grad, b.grad = torch.ones(4), torch.ones(4)
    a.grad[1] = float("nan")
    optimizer.step()
    assert a.isnan().tolist() == [False, True, False, False] and not b.isnan().any()


def test_views_with_gaps_are_updated_too():
    whole = torch.randn(6, 8, dtype=torch.float64)
    gapped, dense = torch.nn.Parameter(whole[:, ::2]), torch.nn.Parameter(whole[:, ::2].clone())
    for parameter in (gapped, dense):
        parameter.grad = torch.ones(4, 6).double().t()
        RMSprop([parameter], 0.1, weight_clip=0.5).step()
    torch.testing.assert_close(gapped, dense)


def test_same_bits_for_any_number_of_threads():
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            params = parameters(shapes=[(70001,), (3,), (300, 200)])
            optimizer = AdamW(params, 0.01, grad_clip_norm=1.0, statistics=True)
            train(params, optimizer, 3)
            results.append([*params, *optimizer.statistics])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert_same(other, results[0], 0)


def test_update_ema_follows_parameters_and_copies_buffers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    ema = EMA(model, decay=0.5, warmup=False)
    start = [p.clone() for p in ema.average.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(torch.randn(2, 3, 8, 8))
    ema.update()
    for average, before in zip(ema.average.parameters(), start, strict=True):
        torch.testing.assert_close(average, before + 0.5)
    torch.testing.assert_close(ema.average[1].running_mean, model[1].running_mean)
    assert not ema.average.training and not any(p.requires_grad for p in ema.average.parameters())
    restored = EMA(model)
    restored.load_state_dict(ema.state_dict())
    assert restored.num_updates == 1
    assert_same(list(restored.average.parameters()), list(ema.average.parameters()), 0)


def test_parameters_outside_the_optimizer_are_averaged_too():
    model = torch.nn.ParameterList(parameters(torch.float64, [(3,), (3,)]))
    model[1].requires_grad_(False)
    ema = EMA(model, decay=0.5, warmup=False)
    optimizer = Adam([model[0]], ema=ema)
    with torch.no_grad():
        model[1].add_(2)
    train([model[0]], optimizer, 1)
    torch.testing.assert_close(ema.average[1], model[1] - 1)


@pytest.mark.parametrize("kind", [RMSprop, Adam, AdamW])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_clip": -1.0}, "weight_clip must be positive, or a pair"),
        ({"weight_clip": (0.5, -0.5)}, r"low <= high, got \(0.5, -0.5\)"),
        ({"grad_clip_norm": 0.0}, "grad_clip_norm must be positive, got 0.0"),
        ({"grad_clip_value": -0.1}, "grad_clip_value must be positive, got -0.1"),
        ({"differentiable": True}, "differentiable=True is not supported"),
    ],
)
def test_wrong_options_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(parameters(), **options)


def test_wrong_tensors_are_named():
    with pytest.raises(TypeError, match=r"real floating-point tensors, got torch.complex64"):
        Adam([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    sparse = torch.nn.Parameter(torch.ones(2, 2))
    sparse.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        RMSprop([sparse]).step()
    with pytest.raises(ValueError, match="does not update: 0.weight, 0.bias"):
        Adam([sparse], ema=EMA(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    moved = torch.nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    optimizer = RMSprop([moved])
    optimizer.step()
    optimizer.state[moved]["square_avg"] = torch.ones(2, device="meta")
    with pytest.raises(ValueError, match=r"shape \(2,\) is on cpu, its state on meta"):
        optimizer.step()
    with pytest.raises(ValueError, match="differ in their parameters: bias"):
        update_ema(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False), 0.9)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
        EMA(torch.nn.Linear(2, 2), 1.5)
