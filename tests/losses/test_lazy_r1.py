"""Copies of R1, pickled and saved ones, belong to the copied discriminator."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastgan.losses import R1, r1_penalty_of
from tests.losses.critics import make


def first(returned):
    return returned[0]


class Double(nn.Module):
    """A discriminator with two outputs, of which `first` returns the logits."""

    def __init__(self):
        super().__init__()
        self.network = make("dcgan")[0]

    def forward(self, x):
        return self.network(x), x


def pickled(pair):
    return pickle.loads(pickle.dumps(pair))


def saved(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved])
def test_a_copy_belongs_to_the_copied_discriminator(duplicate, compile):
    network, real, _, _ = make("dcgan")
    r1 = R1(network, weight=2.0, interval=1, compile=compile)
    before = r1(real, 0).loss
    network_copy, r1_copy = duplicate((network, r1))
    assert r1_copy.discriminator is network_copy and network_copy is not network
    with torch.no_grad():
        for parameter in network_copy.parameters():
            parameter.mul_(2)
    loss = r1_copy(real, 0).loss
    assert_close(loss, 2 * r1_penalty_of(network_copy, real))
    loss.backward()
    assert any(parameter.grad.any() for parameter in network_copy.parameters() if parameter.grad is not None)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert_close(r1(real, 0).loss, before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved])
def test_an_output_is_copied_as_well(duplicate):
    network, real = Double(), make("dcgan")[1]
    network_copy, r1 = duplicate((network, R1(network, 1.0, output=first)))
    assert_close(r1(real, 0).penalty, r1_penalty_of(network_copy.network, real).detach())


def test_lambdas_are_copied_but_not_pickled():
    network, real = Double(), make("dcgan")[1]
    r1 = R1(network, 1.0, output=lambda returned: returned[0])
    network_copy, copied = copy.deepcopy((network, r1))
    assert copied.discriminator is network_copy
    assert_close(copied(real, 0).penalty, r1(real, 0).penalty)
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(r1)


def test_r1_adds_no_parameters_to_a_module():
    trainer = nn.Module()
    trainer.discriminator = make("dcgan")[0]
    names = list(trainer.state_dict())
    trainer.r1 = R1(trainer.discriminator, 1.0)
    assert list(trainer.state_dict()) == names
    trainer_copy = copy.deepcopy(trainer)
    assert trainer_copy.r1.discriminator is trainer_copy.discriminator
