"""The optimizers against torch's; with clips and averages, against the sequence of torch's calls."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch

from fastgan import ops
from fastgan.ops import _dispatch
from fastgan.optim import EMA, Adam, AdamW, RMSprop
from tests.optim.steps import PAIRS, assert_same, parameters, train


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_clips_and_average_equal_the_sequence_of_torchs_calls(name, backend):
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
    count, norms = iter(range(1, 100)), []

    def clip_gradients():
        norms.append(torch.nn.utils.clip_grad_norm_(theirs, 30.0))
        torch.nn.utils.clip_grad_value_(theirs, 0.5)

    @torch.no_grad()
    def clip_weights_and_average():
        update = next(count)
        for average_parameter, parameter in zip(average, theirs, strict=True):
            parameter.clamp_(-0.7, 1.2)
            average_parameter.lerp_(parameter, 1 - min(0.9, (1 + update) / (10 + update)))

    with ops.use(backend):
        train(ours, optimizer, 30)
    torch_optimizer = PAIRS[name][1](theirs, lr=0.01)
    train(theirs, torch_optimizer, 30, before=clip_gradients, after=clip_weights_and_average)
    assert_same(ours, theirs, 1e-12)
    assert_same(list(ema.average), list(average), 1e-12)

    weights = torch.cat([p.detach().flatten() for p in theirs])
    at_bound = ((weights == -0.7) | (weights == 1.2)).double().mean()
    assert at_bound > 0
    expected_statistics = (norms[-1], weights.norm(), at_bound)
    for actual, value in zip(optimizer.statistics, expected_statistics, strict=True):
        torch.testing.assert_close(actual, value)


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
    # Adam's first step changes each element by lr, whatever the size of the gradient.
    torch.testing.assert_close((b - before[0]).abs(), torch.ones(4).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close((c - before[1]).abs(), torch.full((4,), 0.1).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_state_dicts_can_be_exchanged_with_torch(name):
    ours_class, theirs_class = PAIRS[name]
    ours, theirs = parameters(), parameters()
    optimizer, torch_optimizer = ours_class(ours, weight_clip=5.0), theirs_class(theirs)
    train(ours, optimizer, 5)
    train(theirs, torch_optimizer, 5)
    continued, torch_continued = parameters(), parameters()
    for source, target in ((theirs, continued), (ours, torch_continued)):
        for a, b in zip(source, target, strict=True):
            b.data.copy_(a.data)
    from_torch, to_torch = (
        ours_class(continued, lr=9.0, weight_clip=5.0),
        theirs_class(torch_continued, lr=9.0),
    )
    from_torch.load_state_dict(copy.deepcopy(torch_optimizer.state_dict()))
    to_torch.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert from_torch.param_groups[0]["weight_clip"] == 5.0
    for params, each in ((ours, optimizer), (continued, from_torch), (torch_continued, to_torch)):
        train(params, each, 5, first=5)
        assert_same(params, ours, 1e-6)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_optimizer_and_average_survive_pickling(copy_of):
    model = torch.nn.ParameterList(parameters())
    optimizer = RMSprop(model, 0.01, weight_clip=1.0, ema=EMA(model), statistics=True)
    train(list(model), optimizer, 3)
    other_model, other = copy_of((model, optimizer))
    assert other.ema.model is other_model
    for trained_model, trained_optimizer in ((model, optimizer), (other_model, other)):
        train(list(trained_model), trained_optimizer, 3, first=3)
    assert_same(list(other_model), list(model), 0)
    assert_same(list(other.ema.average), list(optimizer.ema.average), 0)
    assert other.statistics.weight_norm == optimizer.statistics.weight_norm


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_half_parameters_differ_by_one_place_from_torchs_steps_in_float32(name, dtype):
    """Compares with torch's optimizer in float32, rounding the parameters after each of 200 steps."""
    ours, wide = parameters(dtype), [torch.nn.Parameter(p.detach().float()) for p in parameters(dtype)]
    optimizer, torch_optimizer = PAIRS[name][0](ours, lr=0.01), PAIRS[name][1](wide, lr=0.01)

    def same_gradients():
        for a, b in zip(wide, ours, strict=True):
            b.grad = a.grad.to(dtype)
            a.grad = b.grad.float()
        optimizer.step()

    largest = [parameter.detach().abs() for parameter in wide]

    @torch.no_grad()
    def round_parameters():
        for parameter, maximum in zip(wide, largest, strict=True):
            parameter.copy_(parameter.to(dtype))
            torch.maximum(maximum, parameter.abs(), out=maximum)

    train(wide, torch_optimizer, 200, before=same_gradients, after=round_parameters)
    # Sums that round differently stay a place apart, also while the number becomes smaller.
    for a, b, maximum in zip(ours, wide, largest, strict=True):
        place = torch.finfo(dtype).eps * maximum
        assert ((a.detach().float() - b.detach()).abs() <= place).all()
        states = optimizer.state[a]
        assert all(states[key].dtype == torch.float32 for key in states)


@pytest.mark.parametrize("rounding", [False, True])
def test_states_of_half_parameters_are_saved_exactly(rounding):
    ours, restored = parameters(torch.bfloat16), parameters(torch.bfloat16)
    optimizer = Adam(ours, 0.01, stochastic_rounding=rounding)
    train(ours, optimizer, 5)
    other = Adam(restored, 0.5, stochastic_rounding=rounding)
    for a, b in zip(ours, restored, strict=True):
        b.data.copy_(a.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for params, each in ((ours, optimizer), (restored, other)):
        train(params, each, 5, first=5)
    assert_same(restored, ours, 0)


def test_stochastic_rounding_is_seeded_by_torchs_generator():
    def trained(seed):
        torch.manual_seed(seed)
        params = parameters(torch.bfloat16)
        train(params, RMSprop(params, 1e-3, stochastic_rounding=True), 5)
        return torch.cat([p.detach().flatten() for p in params])

    first, second, other = trained(1), trained(1), trained(2)
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_scaler_skips_infinite_gradients():
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
    # The skipped step did not update the average either.
    assert optimizer.ema.num_updates == 1


def test_nan_is_not_hidden():
    a, b = parameters(torch.float32, [(4,), (4,)])
    optimizer = RMSprop([a, b], 0.01, grad_clip_value=0.1, weight_clip=0.5)
    a.grad, b.grad = torch.ones(4), torch.ones(4)
    a.grad[1] = float("nan")
    optimizer.step()
    assert a.isnan().tolist() == [False, True, False, False] and not b.isnan().any()


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_replacements_between_steps_are_noticed(name):
    """The plan of a step is cached, and made again for new states, layouts, parameters and gradients."""
    sides = []
    for kind in PAIRS[name]:
        params = parameters(torch.float64)
        optimizer = kind(params, lr=0.01)
        train(params, optimizer, 2)
        optimizer.state.clear()
        train(params, optimizer, 2)
        params[2].data = params[2].data.contiguous()
        train(params, optimizer, 2)
        for state in optimizer.state.values():
            state.update({key: value.clone() for key, value in state.items()})
        params[0].grad = None
        optimizer.step()
        train(params, optimizer, 2)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3).double())]})
        params.append(optimizer.param_groups[1]["params"][0])
        train(params, optimizer, 2)
        sides.append(params)
    assert_same(*sides, 1e-12)


def test_groups_share_an_average_that_counts_once_a_step():
    model = torch.nn.ParameterList(parameters(torch.float64))
    ema = EMA(model, 0.9)
    groups = [{"params": [model[0]]}, {"params": list(model)[1:], "lr": 0.1}]
    optimizer = Adam(groups, ema=ema)
    expected = copy.deepcopy(model)
    for update in range(1, 5):
        train(list(model), optimizer, 1, first=update)
        with torch.no_grad():
            for average, parameter in zip(expected, model, strict=True):
                average.lerp_(parameter, 1 - min(0.9, (1 + update) / (10 + update)))
    assert ema.num_updates == 4
    assert_same(list(ema.average), list(expected), 1e-12)


def test_a_learning_rate_may_be_a_tensor():
    ours, theirs = parameters(), parameters()
    lr = torch.tensor(0.01)
    optimizer, torch_optimizer = Adam(ours, lr), torch.optim.Adam(theirs, lr=0.01)
    train(ours, optimizer, 3)
    lr.fill_(0.1)
    train(theirs, torch_optimizer, 3)
    torch_optimizer.param_groups[0]["lr"] = 0.1
    for params, each in ((ours, optimizer), (theirs, torch_optimizer)):
        train(params, each, 3, first=3)
    assert_same(ours, theirs, 1e-6)


def test_views_with_gaps_are_updated_too_with_a_warning(monkeypatch):
    monkeypatch.setattr(_dispatch, "_warned", set())
    whole = torch.randn(6, 8, dtype=torch.float64)
    gapped, dense = torch.nn.Parameter(whole[:, ::2]), torch.nn.Parameter(whole[:, ::2].clone())
    for parameter in (gapped, dense):
        parameter.grad = torch.ones(4, 6).double().t()
        warning = (
            pytest.warns(RuntimeWarning, match="a view with gaps") if parameter is gapped else nullcontext()
        )
        with warning:
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


@pytest.mark.parametrize("kind", [RMSprop, Adam, AdamW])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_clip": -1.0}, "weight_clip must be positive, or a pair"),
        ({"weight_clip": (0.5, -0.5)}, r"low <= high, got \(0.5, -0.5\)"),
        ({"grad_clip_norm": 0.0}, "grad_clip_norm must be positive, got 0.0"),
        ({"grad_clip_value": -0.1}, "grad_clip_value must be positive, got -0.1"),
        ({"differentiable": True}, "differentiable must be False, got True"),
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
    with pytest.raises(ValueError, match="update, got a list of 1 without 0.weight, 0.bias"):
        Adam([sparse], ema=EMA(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    moved = torch.nn.Parameter(torch.ones(2))
    moved.grad = torch.ones(2)
    optimizer = RMSprop([moved])
    optimizer.step()
    optimizer.state[moved]["square_avg"] = torch.ones(2, device="meta")
    with pytest.raises(ValueError, match=r"shape \(2,\) is on cpu, its state on meta"):
        optimizer.step()


@pytest.mark.parametrize("optimizer", [Adam, RMSprop])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": "0.1"}, TypeError, "lr must be a number, got str '0.1'"),
        ({"lr": torch.ones(2)}, ValueError, r"Tensor lr must be 1-element: .*, got .*\(2,\)"),
        ({"lr": torch.tensor(-1.0)}, ValueError, "Invalid learning rate: lr must not be negative, got -1.0"),
        ({"weight_decay": -1}, ValueError, "Invalid weight_decay value: .* must not be negative, got -1"),
        ({"maximize": "yes"}, TypeError, "maximize must be True or False, got str 'yes'"),
        ({"weight_clip": (1, 2, 3)}, TypeError, r"weight_clip must be two numbers, got tuple \(1, 2, 3\)"),
        ({"ema": torch.nn.Linear(1, 1)}, TypeError, "ema must be a fastgan.optim.EMA or None, got Linear"),
    ],
)
def test_options_of_a_wrong_kind_are_named(optimizer, options, error, message):
    with pytest.raises(error, match=message):
        optimizer([torch.nn.Parameter(torch.ones(2))], **options)


def test_options_of_a_group_are_checked_like_defaults():
    optimizer = Adam([torch.nn.Parameter(torch.ones(2))], betas=(0, 0.99), lr=torch.tensor(0.1))
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99), "integers are accepted, too"
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "betas": (0.9, 1.5)}
    with pytest.raises(ValueError, match=r"betas must lie in \[0, 1\), got \(0.9, 1.5\)"):
        optimizer.add_param_group(group)
    with pytest.raises(TypeError, match=r"params must be tensors, got str 'a' in list of params"):
        Adam(["a"])
    with pytest.raises(ValueError, match=r"empty parameter list: params must not be empty, got list \[\]"):
        Adam([])
    with pytest.raises(ValueError, match=r"state_dict must have 'state' and 'param_groups', got dict"):
        optimizer.load_state_dict({"state": {}})


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("optimizer", [RMSprop, Adam, AdamW])
def test_backward_after_a_step_changed_the_weights_is_refused(optimizer, backend):
    """As by torch: with D's weights after its step, G's gradient would silently be wrong."""
    network = torch.nn.Linear(3, 1)
    ema = EMA(network)
    step = optimizer(network.parameters(), lr=0.1, ema=ema)
    x = torch.randn(2, 3, requires_grad=True)
    losses = [network(x).square().sum(), ema.average(x).square().sum()]
    losses[0].backward(retain_graph=True)
    with ops.use(backend):
        step.step()
    for loss in losses:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
