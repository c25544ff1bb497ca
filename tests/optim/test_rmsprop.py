"""RMSprop against torch.optim and TensorFlow's formula, with clips before and after the step."""

import copy

import pytest
import torch

from fastgan.optim import RMSprop


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1)).double()


def train(network, optimizer, steps=50, before=lambda p: None, after=lambda p: None):
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(8, 5).double()).exp().mean().backward()
        before(network.parameters())
        optimizer.step()
        after(network.parameters())
    return [p.detach().clone() for p in network.parameters()]


def test_without_clips_equals_torch():
    ours, theirs = network(), network()
    expected = train(theirs, torch.optim.RMSprop(theirs.parameters(), 0.003, 0.95, 1e-7))
    for a, b in zip(train(ours, RMSprop(ours.parameters(), 0.003, 0.95, 1e-7)), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_gradients_are_clipped_before_and_weights_after_the_step():
    ours, theirs = network(), network()

    def clip_weights(parameters):
        with torch.no_grad():
            for parameter in parameters:
                parameter.clamp_(-0.05, 0.05)

    expected = train(
        theirs,
        torch.optim.RMSprop(theirs.parameters(), 0.003),
        before=lambda p: torch.nn.utils.clip_grad_value_(p, 0.02),
        after=clip_weights,
    )
    optimizer = RMSprop(ours.parameters(), 0.003, grad_clip_value=0.02, weight_clip=0.05)
    for a, b in zip(train(ours, optimizer), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12) and a.abs().max() <= 0.05


def test_tensorflow_style_follows_tf1():
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = RMSprop.tensorflow_style([parameter], lr=0.1)
    value, mean_square = parameter.detach().clone(), torch.ones(2).double()
    for step in range(20):
        gradient = torch.tensor([0.5, -3.0]).double() * (step + 1)
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        value = value - 0.1 * gradient / (mean_square + 1e-10).sqrt()
        parameter.grad = gradient
        optimizer.step()
        assert torch.allclose(parameter, value, rtol=1e-12)


def test_parameters_without_gradient_are_not_changed():
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = RMSprop([a, b], 0.1, weight_clip=0.01)
    a.grad = torch.ones(3)
    optimizer.step()
    assert a.abs().max() <= 0.01 and torch.equal(b, torch.ones(3))
    assert b not in optimizer.state


def test_state_survives_a_round_trip():
    first, second = network(), network()
    optimizer = RMSprop(first.parameters(), 0.01)
    train(first, optimizer, 5)
    second.load_state_dict(first.state_dict())
    restored = RMSprop(second.parameters(), 0.5)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for a, b in zip(train(first, optimizer, 5), train(second, restored, 5), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate: lr must not be negative, got -1.0"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"eps": -1e-8}, "Invalid epsilon value: eps must not be negative, got -1e-08"),
        ({"initial_square_avg": -1.0}, "initial_square_avg must not be negative, got -1.0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RMSprop([torch.nn.Parameter(torch.ones(1))], **options)
