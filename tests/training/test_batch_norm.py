"""Batch normalization over all processes."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.training.batch_norm import BatchNorm2d
from tests.processes import run_script

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from fastgan.training.batch_norm import BatchNorm2d

dist.init_process_group("gloo")
joined = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1
layer = BatchNorm2d(3).double()
x = joined.chunk(2)[dist.get_rank()].clone().requires_grad_()
for _ in range(2):
    y = layer(x)
loss = y.pow(3).sum()
(gradient,) = torch.autograd.grad(loss, x, create_graph=True)
gradient.square().sum().backward()
torch.save((y.detach(), gradient.detach(), x.grad, layer.state_dict()), f"{sys.argv[1]}/{dist.get_rank()}.pt")
"""


def test_one_process_is_torch():
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_two_processes_equal_one_with_the_joined_batch_to_second_order(tmp_path):
    run_script(SCRIPT, tmp_path, tmp_path, processes=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    layer = nn.BatchNorm2d(3).double()
    x = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1
    x.requires_grad_()
    for _ in range(2):
        y = layer(x)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    for index, expected in enumerate((y, gradient, x.grad)):
        torch.testing.assert_close(torch.cat([part[index] for part in parts]), expected.detach())
    for part in parts:
        torch.testing.assert_close(part[3], layer.state_dict())
