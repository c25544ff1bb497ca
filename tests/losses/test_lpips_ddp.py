"""A generator under DistributedDataParallel with LPIPS: two processes equal one with the whole batch."""

import pytest
import torch

pytest.importorskip("lpips")

from fastgan.losses import LPIPS, PerceptualLoss
from tests.processes import run_script

SCRIPT = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel as DDP
from tests.losses.test_lpips_ddp import LOSSES, batch, generator

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
gradients = {}
for name, make in LOSSES.items():
    network, loss = generator(), make()
    wrapped = DDP(network)
    z, real = batch()
    own = slice(2 * rank, 2 * rank + 2)
    loss(wrapped(z[own]), real[own]).backward()
    gradients[name] = [p.grad.clone() for p in network.parameters()]
if rank == 0:
    torch.save(gradients, sys.argv[1])
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


def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    run_script(SCRIPT, tmp_path, tmp_path / "gradients.pt", processes=2)
    for name, actual in torch.load(tmp_path / "gradients.pt").items():
        network, (z, real) = generator(), batch()
        LOSSES[name]()(network(z), real).backward()
        for ours, parameter in zip(actual, network.parameters(), strict=True):
            # Convolutions of another batch size round differently, which changes the side of some ReLUs.
            assert (ours - parameter.grad).norm() <= 1e-3 * parameter.grad.norm()
