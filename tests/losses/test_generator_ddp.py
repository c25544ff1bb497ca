"""A generator under DistributedDataParallel: what two processes compute of its losses and path lengths."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("lpips")

from fastgan.losses import LPIPS, PerceptualLoss, path_length_penalty_of
from tests.losses.test_path_length import inputs
from tests.processes import run_script

SCRIPT = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel as DDP
from fastgan.losses import PathLength
from tests.losses.test_generator_ddp import LOSSES, batch, generator
from tests.losses.test_path_length import inputs

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
own = slice(2 * rank, 2 * rank + 2)
gradients = {}
for name, make in LOSSES.items():
    network, loss = generator(), make()
    wrapped = DDP(network)
    z, real = batch()
    loss(wrapped(z[own]), real[own]).backward()
    gradients[name] = [p.grad.clone() for p in network.parameters()]

def average(value):
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()

lengths = {}
for joint in (False, True):
    network, z, noise = inputs()
    synthesis, path_length = DDP(network), PathLength(decay=0.5)
    if joint:
        path_length.average = average
    for _ in range(2):
        network.zero_grad()
        path_length.of(synthesis, network.latents(z[own]), noise=noise[own]).loss.backward()
    means = [torch.zeros(()), torch.zeros(())]
    torch.distributed.all_gather(means, path_length.mean)
    lengths[joint] = means, [p.grad.clone() for p in network.parameters()]
if rank == 0:
    torch.save((gradients, lengths), sys.argv[1])
torch.distributed.barrier()
"""
LOSSES = {
    "lpips": lambda: LPIPS(weights=None, reduction="mean"),
    "perceptual": lambda: PerceptualLoss(backbone=None),
}


def generator():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 3, 1))


def batch():
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(2, 4, 3, 40, 40, generator=generator) - 1


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_script(SCRIPT, folder, folder / "found.pt", processes=2)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_equal_one_with_the_whole_batch(found, name):
    network, (z, real) = generator(), batch()
    LOSSES[name]()(network(z), real).backward()
    for ours, parameter in zip(found[0][name], network.parameters(), strict=True):
        # Convolutions of another batch size round differently, which changes the side of some ReLUs.
        assert (ours - parameter.grad).norm() <= 1e-3 * parameter.grad.norm()


@pytest.mark.parametrize("joint", [False, True])
def test_processes_have_a_mean_path_length_each_or_with_average_one(found, joint):
    means, gradients = found[1][joint]
    network, z, noise = inputs()
    halves = slice(0, 2), slice(2, 4)
    expected = [torch.tensor(0.0)] * 2
    for _ in range(2):
        each = [
            path_length_penalty_of(network, network.latents(z[half]), mean, decay=0.5, noise=noise[half])
            for half, mean in zip(halves, expected, strict=True)
        ]
        expected = [one.mean for one in each]
        if joint:
            expected = [sum(expected) / 2] * 2
    assert_close(means, expected)
    assert torch.equal(*means) is joint
    (2.0 * 4 * (each[0].penalty + each[1].penalty) / 2).backward()
    for ours, parameter in zip(gradients, network.parameters(), strict=True):
        assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-6)
